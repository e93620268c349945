//! Signals that wait for one thread.

use std::mem::MaybeUninit;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, siginfo_t};

/// `PTRACE_PEEKSIGINFO` of linux/ptrace.h, which the libc crate lacks for musl.
const PTRACE_PEEKSIGINFO: c_long = 0x4209;

/// How many are asked for at a time.
const AT_A_TIME: usize = 16;

/// `struct ptrace_peeksiginfo_args`.
#[repr(C)]
struct Arguments {
    from: u64,
    flags: u32,
    number: i32,
}

/// Whether `signal` is in the queue of the stopped thread `tid` alone.
pub(crate) fn has_pending(tid: i32, signal: c_int) -> Result<bool, Errno> {
    let mut from = 0;
    loop {
        let (all, found) = peek(tid, from)?;
        if all.iter().take(found).any(|info| info.si_signo == signal) {
            return Ok(true);
        }
        if found < AT_A_TIME {
            return Ok(false);
        }
        from += AT_A_TIME as u64;
    }
}

/// Those that wait, from number `from` on, and how many they are.
fn peek(tid: i32, from: u64) -> Result<([siginfo_t; AT_A_TIME], usize), Errno> {
    let arguments = Arguments {
        from,
        flags: 0,
        number: AT_A_TIME as i32,
    };
    let mut all = MaybeUninit::<[siginfo_t; AT_A_TIME]>::zeroed();
    // SAFETY: the kernel reads `arguments`, and writes at most AT_A_TIME siginfo_t, which are made
    // of integers, to `all`; both live through the call.
    let (found, all) = unsafe {
        let arguments = &raw const arguments;
        let found = libc::syscall(
            libc::SYS_ptrace,
            PTRACE_PEEKSIGINFO,
            tid,
            arguments,
            all.as_mut_ptr(),
        );
        (found, all.assume_init())
    };
    let found = Errno::result(found)?;
    Ok((all, usize::try_from(found).unwrap_or(0)))
}
