use leaktap_arch::{JUMP, JUMP_BY_WORD};
use leaktap_memory::Addr;

use super::JUMP_LEN;

/// A jump at `from` to `to`: five bytes where 32 bits reach, else fourteen. Changes no register.
pub fn jump(from: Addr, to: Addr) -> Vec<u8> {
    match rel32(from.wrapping_offset(JUMP_LEN as i64), to.get()) {
        Some(distance) => [&[JUMP][..], &distance.to_le_bytes()].concat(),
        // jmp qword ptr [rip+0], and the address it loads
        None => [&JUMP_BY_WORD[..], &[0; 4], &to.get().to_le_bytes()].concat(),
    }
}

/// The distance from the end of an instruction to `target`, if it fits.
pub(super) fn rel32(end: Addr, target: u64) -> Option<i32> {
    i32::try_from(target.wrapping_sub(end.get()) as i64).ok()
}

/// Where the jump `offset` bytes into `code`, which is at `at`, leads, if there is one of ours.
pub(crate) fn jumps_to(at: Addr, code: &[u8], offset: usize) -> Option<Addr> {
    match code.get(offset..)? {
        [JUMP, distance @ ..] => {
            let distance = i32::from_le_bytes(*distance.first_chunk()?);
            let end = at.wrapping_offset((offset + JUMP_LEN) as i64);
            Some(end.wrapping_offset(i64::from(distance)))
        }
        [a, b, 0, 0, 0, 0, target @ ..] if [*a, *b] == JUMP_BY_WORD => {
            Some(Addr::new(u64::from_le_bytes(*target.first_chunk()?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_found_whatever_its_length() {
        let at = Addr::new(0x7000);
        for to in [0x1234, 0x7fff_1234_5678] {
            let mut code = vec![0x55];
            code.extend(jump(at.wrapping_offset(1), Addr::new(to)));
            code.resize(32, 0);
            assert_eq!(jumps_to(at, &code, 1), Some(Addr::new(to)));
            assert_eq!(jumps_to(at, &code, 0), None);
        }
        assert_eq!(jumps_to(at, &[0x55, 0xe9, 1], 1), None);
    }
}
