use leaktap_memory::Unreadable;

use super::*;
use crate::arch::{LongBranch, has_branch, long_branches, may_have_branch};

const AT: Addr = Addr::new(0x7f00_0000_1000);
const DATA: Addr = Addr::new(0x7f00_0000_2000);

/// Read-only data at [`DATA`].
struct Data(Vec<u8>);

impl ReadMemory for Data {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        let from = at.offset_from(DATA).and_then(|o| usize::try_from(o).ok());
        let bytes = from.and_then(|from| self.0.get(from..from + buf.len()));
        let bytes = bytes.ok_or(Unreadable { at, len: buf.len() })?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

fn find(function: &[u8]) -> Result<Site, Refusal> {
    Site::find(function, AT, &Data(Vec::new()))
}

#[test]
fn displaces_whole_instructions() {
    // push r12; push rbp; push rbx; mov rbx, rdi; ret
    let code = [0x41, 0x54, 0x55, 0x53, 0x48, 0x89, 0xfb, 0xc3];
    let site = find(&code).unwrap();
    assert_eq!((site.at(), site.displaced()), (AT, &code[..7]));
    assert_eq!(
        (site.replaced(), site.end()),
        (&code[..5], Addr::new(AT.get() + 7))
    );
    assert_eq!(
        site.inner(),
        Addr::new(AT.get() + 1)..Addr::new(AT.get() + 7)
    );
}

#[test]
fn keeps_endbr64() {
    let code = [0xf3, 0x0f, 0x1e, 0xfa, 0xe9, 0, 1, 0, 0];
    let site = find(&code).unwrap();
    assert_eq!(
        (site.at().get(), site.displaced()),
        (AT.get() + 4, &code[4..])
    );
}

#[test]
fn the_jump_needs_reach() {
    let site = find(&[0x41, 0x54, 0x41, 0x55, 0x53]).unwrap();
    assert_eq!(
        site.jump(Addr::new(AT.get() + 0x105)),
        Ok([0xe9, 0, 1, 0, 0])
    );
    assert_eq!(
        site.jump(Addr::new(AT.get() - 0xfb)),
        Ok([0xe9, 0, 0xff, 0xff, 0xff])
    );
    assert_eq!(
        site.jump(Addr::new(AT.get() + 5 + (1 << 31))),
        Err(Refusal::NoMemoryInReach)
    );
    assert!(site.jump(Addr::new(AT.get() + 5 - (1 << 31))).is_ok());
}

#[test]
fn refuses_short_functions_and_unmovable_code() {
    use Refusal::{JumpIntoRegion, NotRelocatable, TooShort};
    let table: [(&str, &[u8], Refusal); 12] = [
        ("empty", &[], TooShort),
        ("endbr64 alone", &[0xf3, 0x0f, 0x1e, 0xfa], TooShort),
        ("xor eax, eax; ret", &[0x31, 0xc0, 0xc3], TooShort),
        (
            "the same and padding",
            &[0x31, 0xc0, 0xc3, 0x90, 0x90, 0x90],
            TooShort,
        ),
        ("jmp short", &[0xeb, 0x10, 0xcc, 0xcc, 0xcc], TooShort),
        ("four bytes", &[0x48, 0x89, 0xfb, 0x90], TooShort),
        ("int3", &[0xcc, 0x90, 0x90, 0x90, 0x90], NotRelocatable),
        (
            "call rax first",
            &[0xff, 0xd0, 0x90, 0x90, 0x90, 0x90],
            NotRelocatable,
        ),
        // push rbx; nop x4; jmp to the second instruction
        (
            "jmp into",
            &[0x53, 0x90, 0x90, 0x90, 0x90, 0xeb, 0xfa],
            JumpIntoRegion,
        ),
        // the same to the last byte of a displaced instruction
        (
            "jmp within",
            &[0xb8, 1, 0, 0, 0, 0xeb, 0xfd],
            JumpIntoRegion,
        ),
        // push; nops; jne; the branch is conditional and long
        (
            "jne into",
            &[
                0x53, 0x90, 0x90, 0x90, 0x90, 0x0f, 0x85, 0xf6, 255, 255, 255,
            ],
            JumpIntoRegion,
        ),
        (
            "not all code",
            &[0x53, 0x90, 0x90, 0x90, 0x90, 0xc3, 0x06],
            JumpIntoRegion,
        ),
    ];
    for (name, code, want) in table {
        assert_eq!(find(code), Err(want), "{name}");
    }
    // To the first byte and behind the displaced ones is fine.
    assert!(find(&[0x53, 0x90, 0x90, 0x90, 0x90, 0xeb, 0xf9]).is_ok());
    assert!(find(&[0x53, 0x90, 0x90, 0x90, 0x90, 0x90, 0xeb, 0xfd]).is_ok());
}

/// push rbx; nop x4; lea rdx, [rip+table]; movsxd rax, [rdx+rdi*4]; add rax, rdx; jmp rax
fn switch() -> Vec<u8> {
    let mut code = vec![0x53, 0x90, 0x90, 0x90, 0x90, 0x48, 0x8d, 0x15];
    code.extend(((DATA.get() - AT.get() - 12) as i32).to_le_bytes());
    code.extend([0x48, 0x63, 0x04, 0xba, 0x48, 0x01, 0xd0, 0xff, 0xe0]);
    code
}

fn distances(targets: &[u64]) -> Data {
    let distance = |t: &u64| (t.wrapping_sub(DATA.get()) as i32).to_le_bytes();
    Data(targets.iter().flat_map(distance).collect())
}

#[test]
fn reads_the_jump_tables_of_a_switch() {
    let at = AT.get();
    let clean = distances(&[at, at + 5, at + 12]);
    assert!(Site::find(&switch(), AT, &clean).is_ok());
    let dirty = distances(&[at + 12, at + 1]);
    assert_eq!(
        Site::find(&switch(), AT, &dirty),
        Err(Refusal::JumpIntoRegion)
    );
    // A table of addresses: push rbx; nop x4; jmp [rdi*8 + DATA], in code below 2 GiB.
    let low = Addr::new(0x40_1000);
    let mut code = vec![0x53, 0x90, 0x90, 0x90, 0x90, 0xff, 0x24, 0xfd];
    code.extend(0x40_2000_u32.to_le_bytes());
    struct Table(u64);
    impl ReadMemory for Table {
        fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
            if at != Addr::new(0x40_2000) {
                return Err(Unreadable { at, len: buf.len() });
            }
            buf.copy_from_slice(&self.0.to_le_bytes());
            Ok(())
        }
    }
    assert!(Site::find(&code, low, &Table(low.get() + 5)).is_ok());
    assert_eq!(
        Site::find(&code, low, &Table(low.get() + 2)),
        Err(Refusal::JumpIntoRegion)
    );
}

#[test]
fn a_tail_call_is_no_table() {
    // push rbx; nop x4; lea rdx, [rip+unreadable]; jmp rax
    let code = [
        0x53, 0x90, 0x90, 0x90, 0x90, 0x48, 0x8d, 0x15, 0, 0, 1, 0, 0xff, 0xe0,
    ];
    assert!(find(&code).is_ok());
}

#[test]
fn a_long_branch_anywhere_in_the_text_is_found() {
    let site = find(&[0x53, 0x90, 0x90, 0x90, 0x90, 0xc3]).unwrap();
    let text_at = Addr::new(AT.get() + 0x5000);
    for (target, found) in [(0, false), (1, true), (4, true), (5, false)] {
        let mut text = vec![0xf4; 64];
        // A jump at an odd place: its end is text + 36.
        let distance = (AT.get() + target).wrapping_sub(text_at.get() + 36) as i32;
        text[32..36].copy_from_slice(&distance.to_le_bytes());
        for opcode in [&[0xe8][..], &[0xe9], &[0x0f, 0x8f]] {
            text[32 - opcode.len()..32].copy_from_slice(opcode);
            let inner = [Addr::new(0)..Addr::new(1), site.inner()];
            let end = Addr::new(text_at.get() + 36);
            let expected = found.then_some(LongBranch { end, into: 1 });
            let found = long_branches(&text, text_at, &inner);
            assert_eq!(found, expected.as_slice());
        }
    }
    assert_eq!(long_branches(&[0, 0], text_at, &[site.inner()]), []);
}

/// What looks like a branch is one where decoding arrives at it.
#[test]
fn a_branch_that_is_part_of_another_instruction_is_none() {
    let table: [(&str, &[u8], usize, bool); 9] = [
        ("nop; jmp", &[0x90, 0xe9, 1, 2, 3, 4], 6, true),
        ("nop; jne", &[0x90, 0x0f, 0x85, 1, 2, 3, 4], 7, true),
        ("bnd jmp", &[0xf2, 0xe9, 1, 2, 3, 4], 6, true),
        ("call; ret", &[0xe8, 1, 2, 3, 4, 0xc3], 5, true),
        (
            "movabs rax, e9 ...",
            &[0x48, 0xb8, 0xe9, 1, 2, 3, 4, 0, 0, 0, 0xc3],
            7,
            false,
        ),
        (
            "mov eax, e9 ...; add [rax], al",
            &[0xb8, 1, 2, 3, 0xe9, 0x00, 0x00, 0x90, 0x90],
            9,
            false,
        ),
        ("mov eax, imm at its end", &[0xb8, 1, 2, 3, 4], 5, false),
        ("cut off in the middle", &[0x90, 0xb8, 0xe9, 1], 7, true),
        ("no code before it", &[0x06, 0xe9, 1, 2, 3, 4], 6, true),
    ];
    for (name, function, end, expected) in table {
        let end = Addr::new(AT.get() + end as u64);
        assert_eq!(has_branch(function, AT, end), expected, "{name}");
    }
    // The last byte of a function, and the next ones.
    assert!(!has_branch(
        &[0xb8, 1, 2, 3, 0xe9],
        AT,
        Addr::new(AT.get() + 9)
    ));
}

/// As in Chromium: `mov r8d, ebp; and r8d, -2`, in which a call can be read, and no function known.
#[test]
fn where_no_function_is_known_code_is_read_from_before() {
    // mov rax, [rip+x]; test rax, rax; je; push rbp; call; xor esi, esi; ret
    let filler = [
        0x48, 0x8b, 0x05, 0xe8, 0xe9, 1, 2, 0x48, 0x85, 0xc0, 0x74, 3, 0x55, 0xe8, 1, 2, 3, 4,
        0x31, 0xf6, 0xc3,
    ];
    let around = |code: &[u8]| {
        let before = filler.iter().copied().cycle().take(20 * filler.len());
        let text: Vec<u8> = before.chain(code.iter().copied()).chain(filler).collect();
        let end = AT.wrapping_offset((20 * filler.len() + code.len()) as i64);
        may_have_branch(&text, AT, end)
    };
    assert!(!around(&[0x41, 0x89, 0xe8, 0x41, 0x83, 0xe0, 0xfe]));
    assert!(around(&[0x55, 0xe8, 0x41, 0x83, 0xe0, 0xfe]));
    assert!(around(&[0x90, 0x0f, 0x85, 0x41, 0x83, 0xe0, 0xfe]));
    // Nothing before it, or no code.
    assert!(may_have_branch(
        &[0x90, 0xe9, 1, 2, 3, 4],
        AT,
        AT.wrapping_offset(6)
    ));
    let data = [0x06; 300];
    assert!(may_have_branch(&data, AT, AT.wrapping_offset(290)));
}
