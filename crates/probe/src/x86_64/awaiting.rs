//! Code that makes a system call without any effect, and returns.

use leaktap_arch::{RET, Registers};
use leaktap_memory::Addr;

/// `or edi, -1; push 3; pop rax; syscall; ret`: close(-1), which any filter lets pass that a
/// program can be linked under. Of the registers it changes only what any call may.
const CODE: [u8; 9] = [0x83, 0xcf, 0xff, 0x6a, 0x03, 0x58, 0x0f, 0x05, RET];

/// Of its `syscall`, how far its end is from the start.
const BEHIND_CALL: u64 = 8;

/// Of what comes after the `push`.
const AFTER_PUSH: u64 = 5;

/// That code, which takes the place of a `ret`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaiting;

impl Awaiting {
    /// Its bytes.
    pub(crate) const CODE: [u8; CODE.len()] = CODE;

    /// Whether `now` is it, or what is left of it when the `ret` has been put back.
    pub(crate) fn is_left(now: &[u8; CODE.len()]) -> bool {
        [CODE[0], RET].contains(&now[0]) && now[1..] == CODE[1..]
    }

    /// Whether a thread is at the end of the system call of that code at `at`, or in it.
    pub(crate) fn is_at_call(at: Addr, registers: &Registers) -> bool {
        registers.ip().offset_from(at) == Some(BEHIND_CALL)
    }

    /// Moves a thread that is inside to the start, where the `ret` belongs; false if it is not.
    pub(crate) fn leave(at: Addr, registers: &mut Registers) -> bool {
        let offset = registers.ip().offset_from(at);
        let Some(offset @ 1..=BEHIND_CALL) = offset else {
            return false;
        };
        registers.set_ip(at);
        if offset == AFTER_PUSH {
            registers.set_sp(registers.sp().wrapping_offset(8));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_inside_goes_back_to_the_start() {
        let at = Addr::new(0x1000);
        for (offset, pops) in [(1, 0), (3, 0), (5, 8), (6, 0), (8, 0)] {
            let mut registers = Registers::default();
            registers.set_ip(at.wrapping_offset(offset));
            assert!(Awaiting::leave(at, &mut registers), "{offset}");
            assert_eq!((registers.ip(), registers.sp()), (at, Addr::new(pops)));
        }
        for offset in [0, 9] {
            let mut registers = Registers::default();
            registers.set_ip(at.wrapping_offset(offset));
            assert!(!Awaiting::leave(at, &mut registers));
        }
    }
}
