use super::*;

const AT: Addr = Addr::new(0x7f00_0000_1000);
const NEAR: Addr = Addr::new(0x7f00_1000_0000);
const FAR: Addr = Addr::new(0x5500_0000_0000);

fn moved(bytes: &[u8], count: usize, to: Addr) -> Relocated {
    relocate(bytes, AT, count, to).unwrap()
}

fn refused(bytes: &[u8], count: usize, to: Addr) -> Refusal {
    relocate(bytes, AT, count, to).unwrap_err()
}

/// What a decoder makes of `code` at `to`: branch targets and rip-relative addresses resolved.
fn targets(code: &[u8], to: Addr) -> Vec<u64> {
    let mut decoder = Decoder::with_ip(64, code, to.get(), DecoderOptions::NONE);
    let mut found = Vec::new();
    while decoder.can_decode() {
        let i = decoder.decode();
        if i.op0_kind() == OpKind::NearBranch64 {
            found.push(i.near_branch_target());
        } else if i.is_ip_rel_memory_operand() {
            found.push(i.ip_rel_memory_address());
        }
    }
    found
}

#[test]
fn plain_instructions_keep_their_bytes() {
    let code = [0x41, 0x54, 0x55, 0x53, 0x48, 0x89, 0xfb, 0x90];
    let got = moved(&code, 5, FAR);
    assert_eq!((got.displaced, got.ends), (7, false));
    assert_eq!(got.code, code[..7]);
    let ends: Vec<_> = got.map.iter().map(|b| (b.original, b.relocated)).collect();
    assert_eq!(ends, [(0, 0), (2, 2), (3, 3), (4, 4), (7, 7)]);
    assert_eq!(got.original(3), Some(3));
    assert_eq!(got.original(5), None);
}

#[test]
fn rip_relative_operands_keep_their_address() {
    // cmp byte ptr [rip+0x100], 0
    let code = [0x80, 0x3d, 0, 1, 0, 0, 0];
    let got = moved(&code, 5, NEAR);
    assert_eq!(targets(&got.code, NEAR), [AT.get() + 7 + 0x100]);
    assert_eq!(refused(&code, 5, FAR), Refusal::NoMemoryInReach);
}

#[test]
fn branches_keep_their_targets_near_and_far() {
    // test rdi, rdi; je +0x20; and the ends of the map
    let code = [0x48, 0x85, 0xff, 0x74, 0x20];
    let got = moved(&code, 5, NEAR);
    assert_eq!(targets(&got.code, NEAR), [AT.get() + 0x25]);
    assert_eq!(got.map.last().map(|b| b.relocated), Some(got.code.len()));
    let got = moved(&code, 5, FAR);
    // jne over; jmp [rip+0]; dq
    assert_eq!(got.code[3..5], [0x75, 14]);
    assert_eq!(got.code[11..19], (AT.get() + 0x25).to_le_bytes());
    assert_eq!(got.code.len(), 19);
}

#[test]
fn a_jump_ends_the_displaced_code() {
    let code = [0xe9, 0, 1, 0, 0];
    let got = moved(&code, 5, NEAR);
    assert!(got.ends);
    assert_eq!(got.map.len(), 1);
    assert_eq!(targets(&got.code, NEAR), [AT.get() + 0x105]);
    assert_eq!(
        moved(&code, 5, FAR).code[6..],
        (AT.get() + 0x105).to_le_bytes()
    );
    let slot = out_of_line(&code, AT, FAR, 32).unwrap();
    assert_eq!((slot.jump, slot.code.len()), (14, 14));
    assert_eq!(slot.original(14), None);
}

#[test]
fn a_call_pushes_its_own_return_address() {
    // push rbp; mov rbp, rdi; call +0x200
    let code = [0x55, 0x48, 0x89, 0xfd, 0xe8, 0, 2, 0, 0];
    let got = moved(&code, 5, NEAR);
    assert_eq!(got.displaced, 9);
    assert!(!got.ends);
    let back = (AT.get() + 9).to_le_bytes();
    assert_eq!(got.code[4..9], [0x68, back[0], back[1], back[2], back[3]]);
    assert_eq!(
        got.code[9..17],
        [0xc7, 0x44, 0x24, 4, back[4], back[5], back[6], back[7]]
    );
    assert_eq!(targets(&got.code, NEAR), [AT.get() + 9 + 0x200]);
    assert_eq!(got.original(9), None);
}

#[test]
fn indirect_calls_only_where_the_push_does_not_matter() {
    // call [rip+0x10]: becomes jmp [the same]
    let got = moved(&[0xff, 0x15, 0x10, 0, 0, 0], 1, NEAR);
    assert_eq!(targets(&got.code, NEAR), [AT.get() + 0x16]);
    assert_eq!(moved(&[0xff, 0xd0], 1, FAR).code[13..], [0xff, 0xe0]);
    for on_stack in [
        &[0xff, 0xd4][..],
        &[0xff, 0x54, 0x24, 8],
        &[0xff, 0x14, 0x24],
    ] {
        assert_eq!(refused(on_stack, 1, FAR), Refusal::NotRelocatable);
    }
    // call rax; three nops: it would return into the replaced bytes
    assert_eq!(
        refused(&[0xff, 0xd0, 0x90, 0x90, 0x90], 5, FAR),
        Refusal::NotRelocatable
    );
}

#[test]
fn counted_branches_get_a_long_jump() {
    for code in [
        &[0xe3, 0x10][..],
        &[0xe2, 0x10],
        &[0xe1, 0x10],
        &[0x67, 0xe3, 0x10],
    ] {
        let got = moved(code, 1, NEAR);
        let n = code.len();
        let over = NEAR.get() + n as u64 + 2;
        let target = AT.get() + n as u64 + 0x10;
        assert_eq!(targets(&got.code, NEAR), [over, over + 5, target]);
        assert_eq!(got.code[..n - 1], code[..n - 1]);
        assert_eq!(moved(code, 1, FAR).code.len(), n + 2 + 14);
    }
}

#[test]
fn refuses_what_depends_on_where_it_is() {
    use Refusal::{JumpIntoRegion, NotRelocatable, TooShort};
    let table: [(&str, &[u8], Refusal); 14] = [
        ("ret within", &[0xc3, 0x90, 0x90, 0x90, 0x90], TooShort),
        (
            "jmp short within",
            &[0xeb, 0x20, 0x90, 0x90, 0x90],
            TooShort,
        ),
        ("end of bytes", &[0x55, 0x53], TooShort),
        ("cut instruction", &[0x55, 0x48, 0x8b, 0x05, 0x00], TooShort),
        ("int3", &[0xcc, 0x90, 0x90, 0x90, 0x90], NotRelocatable),
        ("ud2", &[0x0f, 0x0b, 0x90, 0x90, 0x90], NotRelocatable),
        ("syscall", &[0x0f, 0x05, 0x90, 0x90, 0x90], NotRelocatable),
        ("int 0x80", &[0xcd, 0x80, 0x90, 0x90, 0x90], NotRelocatable),
        ("xbegin", &[0xc7, 0xf8, 0, 1, 0, 0], NotRelocatable),
        (
            "far return",
            &[0x90, 0x90, 0x90, 0x90, 0xcb],
            NotRelocatable,
        ),
        (
            "no instruction",
            &[0x06, 0x90, 0x90, 0x90, 0x90],
            NotRelocatable,
        ),
        ("66 call", &[0x66, 0xe8, 0, 1, 0, 0], NotRelocatable),
        ("66 je", &[0x66, 0x74, 0x10, 0x90, 0x90], NotRelocatable),
        ("je into", &[0x48, 0x85, 0xff, 0x74, 0xfe], JumpIntoRegion),
    ];
    for (name, code, want) in table {
        assert_eq!(refused(code, 5, NEAR), want, "{name}");
    }
    // A branch to the first instruction stays one: it runs the probe again.
    assert_eq!(moved(&[0x48, 0x85, 0xff, 0x74, 0xfb], 5, NEAR).displaced, 5);
    // data16 rex.w call, as in TLS sequences, is an ordinary call.
    assert_eq!(moved(&[0x66, 0x48, 0xe8, 0, 1, 0, 0], 5, NEAR).displaced, 7);
}

#[test]
fn a_slot_goes_on_behind_the_instruction() {
    let slot = out_of_line(&[0x41, 0x54, 0x55], AT, NEAR, 32).unwrap();
    assert_eq!((slot.displaced, slot.jump, slot.code.len()), (2, 2, 7));
    assert_eq!(targets(&slot.code, NEAR), [AT.get() + 2]);
    let slot = out_of_line(&[0x41, 0x54, 0x55], AT, FAR, 32).unwrap();
    assert_eq!(slot.code[2..8], [0xff, 0x25, 0, 0, 0, 0]);
    assert_eq!(slot.code[8..], (AT.get() + 2).to_le_bytes());
    assert_eq!(
        (slot.original(0), slot.original(2), slot.original(1)),
        (Some(0), Some(2), None)
    );
    assert_eq!(
        out_of_line(&[0x41, 0x54], AT, FAR, 15),
        Err(Refusal::NoMemoryInReach)
    );
}

#[test]
fn forty_eight_bytes_hold_any_slot() {
    let longest: [&[u8]; 4] = [
        &[0xe8, 0, 1, 0, 0],
        &[0x67, 0xe2, 0x10],
        &[0x0f, 0x84, 0, 1, 0, 0],
        &[
            0x66, 0x66, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x90,
        ],
    ];
    for code in longest {
        let len = out_of_line(code, AT, FAR, 64).unwrap().code.len();
        assert!(len <= 48, "{code:02x?}: {len}");
    }
}
