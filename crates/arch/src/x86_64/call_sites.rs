//! What the bytes of a call say of whom it calls.

use crate::{CALL, CALL_BY_WORD, ENDBR64, JUMP, JUMP_BY_WORD};

/// Bytes before a return address that hold any call that is told here.
pub const CALL_SITE_LEN: usize = 6;

/// Bytes of an entry of the procedure linkage table that are looked at.
pub const LINKAGE_LEN: usize = 11;

/// Bytes of a call or jump over a 32-bit distance.
pub const DIRECT_LEN: usize = 5;

/// A prefix that jumps of linkage tables may have.
const BND: u8 = 0xf2;

/// Where a call leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// To the code there.
    At(u64),
    /// To where the word there says.
    ByWord(u64),
}

/// What the call right before `ret` calls, by the `bytes` before that. Nothing of a call through a
/// register or other memory.
pub fn called_before(bytes: [u8; CALL_SITE_LEN], ret: u64) -> Option<Callee> {
    let [a, b, distance @ ..] = bytes;
    let target = behind(ret, distance);
    match [a, b] {
        CALL_BY_WORD => Some(Callee::ByWord(target)),
        [_, CALL] => Some(Callee::At(target)),
        _ => None,
    }
}

/// Bytes of the longest call: of a word at a register, plus another one, plus a number.
pub const LONGEST_CALL: usize = 8;

/// Whether `bytes`, as many as the longest call has or more, may end with a call.
pub fn ends_with_call(bytes: &[u8]) -> bool {
    let byte = |back: usize| {
        bytes
            .len()
            .checked_sub(back)
            .and_then(|at| bytes.get(at).copied())
    };
    // Through a register or a word: ff, /2, then what is part of the operand.
    let by_operand = |len: usize| {
        let operand = byte(len.wrapping_sub(1)).filter(|operand| operand >> 3 & 7 == 2);
        let base = byte(len.wrapping_sub(2)).filter(|_| len > 2);
        let needs = |operand: u8| match (operand >> 6, operand & 7, base.map(|base| base & 7)) {
            (0, 4, Some(5)) | (2, 4, _) => 7,
            (0, 5, _) | (2, ..) => 6,
            (1, 4, _) => 4,
            (0, 4, _) | (1, ..) => 3,
            _ => 2,
        };
        byte(len) == Some(0xff) && operand.is_some_and(|operand| needs(operand) == len)
    };
    byte(DIRECT_LEN) == Some(CALL) || [2, 3, 4, 6, 7].into_iter().any(by_operand)
}

/// Where the word is by which the entry of a linkage table at `at` jumps, if this is one.
pub fn linkage_word(entry: &[u8], at: u64) -> Option<u64> {
    let jump = entry.strip_prefix(&ENDBR64).unwrap_or(entry);
    let jump = jump.strip_prefix(&[BND]).unwrap_or(jump);
    let distance = jump.strip_prefix(&JUMP_BY_WORD)?;
    let skipped = entry.len() - distance.len();
    let end = at.wrapping_add(skipped as u64 + 4);
    Some(behind(end, *distance.first_chunk()?))
}

/// Where `bytes`, which end at `end`, lead, if they are a call or a jump over a distance.
pub fn direct_branch(bytes: [u8; DIRECT_LEN], end: u64) -> Option<u64> {
    let [opcode, distance @ ..] = bytes;
    matches!(opcode, CALL | JUMP).then(|| behind(end, distance))
}

fn behind(end: u64, distance: [u8; 4]) -> u64 {
    end.wrapping_add_signed(i32::from_le_bytes(distance).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_calls_are_known() {
        let calls: [&[u8]; 9] = [
            &[0xe8, 1, 2, 3, 4],
            &[0xff, 0xd0],
            &[0x41, 0xff, 0xd7],
            &[0xff, 0x10],
            &[0xff, 0x50, 0x18],
            &[0xff, 0x54, 0x24, 0x08],
            &[0xff, 0x14, 0xc5, 1, 2, 3, 4],
            &[0xff, 0x15, 1, 2, 3, 4],
            &[0x41, 0xff, 0x94, 0x24, 1, 2, 3, 4],
        ];
        for call in calls {
            let bytes = [&[0x90; LONGEST_CALL][..], call].concat();
            assert!(ends_with_call(&bytes), "{call:x?}");
        }
        // jmp *%rax; push (%rax); call with a byte more; nothing.
        let others: [&[u8]; 4] = [&[0xff, 0xe0], &[0xff, 0x30], &[0xff, 0xd0, 0x90], &[]];
        for other in others {
            let bytes = [&[0x90; LONGEST_CALL][..], other].concat();
            assert!(!ends_with_call(&bytes), "{other:x?}");
        }
        assert!(!ends_with_call(&[]));
    }

    #[test]
    fn calls_are_told_by_what_is_before_their_return() {
        let of = |bytes| called_before(bytes, 0x1000);
        assert_eq!(of([0x90, 0xe8, 0x10, 0, 0, 0]), Some(Callee::At(0x1010)));
        assert_eq!(
            of([0xff, 0x15, 0xf0, 0xff, 0xff, 0xff]),
            Some(Callee::ByWord(0xff0))
        );
        assert_eq!(of([0x90, 0x90, 0x90, 0x90, 0xff, 0xd0]), None);
    }

    #[test]
    fn entries_of_linkage_tables_of_every_kind() {
        let jump = [0xff, 0x25, 1, 0, 0, 0];
        assert_eq!(linkage_word(&jump, 0x1000), Some(0x1007));
        assert_eq!(
            linkage_word(&[&[0xf2][..], &jump].concat(), 0x1000),
            Some(0x1008)
        );
        assert_eq!(
            linkage_word(&[&ENDBR64[..], &jump].concat(), 0x1000),
            Some(0x100b)
        );
        let both = [&ENDBR64[..], &[0xf2], &jump].concat();
        assert_eq!(
            (both.len(), linkage_word(&both, 0x1000)),
            (LINKAGE_LEN, Some(0x100c))
        );
        assert_eq!(linkage_word(&[0x55; 11], 0x1000), None);
        assert_eq!(linkage_word(&jump[..5], 0x1000), None);
    }

    #[test]
    fn branches_over_a_distance() {
        let of = |opcode| direct_branch([opcode, 0xfb, 0xff, 0xff, 0xff], 0x1005);
        assert_eq!(
            [of(0xe8), of(0xe9), of(0xeb)],
            [Some(0x1000), Some(0x1000), None]
        );
    }
}
