//! Opcodes (Intel SDM, volume 2).

/// Bytes of the longest instruction (2.3.11).
pub const LONGEST: usize = 15;

/// `ret`.
pub const RET: u8 = 0xc3;

/// `endbr64`, the landing pad of indirect branches under CET.
pub const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// `jmp rel32`: a distance from its end follows.
pub const JUMP: u8 = 0xe9;

/// `call rel32`.
pub const CALL: u8 = 0xe8;

/// `jmp [rip+rel32]`.
pub const JUMP_BY_WORD: [u8; 2] = [0xff, 0x25];

/// `call [rip+rel32]`.
pub const CALL_BY_WORD: [u8; 2] = [0xff, 0x15];

/// `push imm32`.
pub const PUSH: u8 = 0x68;

/// How glibc's `__start_context` begins, behind what may be an `endbr64`: `mov %rbx, %rsp`.
pub const START_CONTEXT: [u8; 3] = [0x48, 0x89, 0xdc];

/// Where each `lea` to a 64-bit register leads that is relative to itself, in `code`, which is at
/// `at`; and what only looks like one.
pub fn addresses_loaded(code: &[u8], at: u64) -> impl Iterator<Item = u64> + '_ {
    code.windows(7)
        .enumerate()
        .filter_map(move |(offset, lea)| {
            let [rex, 0x8d, register, distance @ ..] = lea else {
                return None;
            };
            let is_one = rex & 0xfb == 0x48 && register & 0xc7 == 5;
            let distance = i32::from_le_bytes(distance.try_into().ok()?);
            let end = at.wrapping_add(offset as u64).wrapping_add(7);
            is_one.then(|| end.wrapping_add_signed(distance.into()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_relative_to_the_end_of_what_loads_them() {
        // lea 0x10(%rip), %rdi; lea 0x10(%rdi), %rsi; lea -0x10(%rip), %r8; lea (%rip), %eax
        let code = [
            &[0x48, 0x8d, 0x3d, 0x10, 0, 0, 0][..],
            &[0x48, 0x8d, 0x77, 0x10],
            &[0x4c, 0x8d, 0x05, 0xf0, 0xff, 0xff, 0xff],
            &[0x8d, 0x05, 0, 0, 0, 0],
        ]
        .concat();
        let found: Vec<_> = addresses_loaded(&code, 0x1000).collect();
        assert_eq!(found, [0x1017, 0x1002]);
    }
}
