//! System calls that a stop of ours must not make fail.
//!
//! Most blocking calls answer `-ERESTART*` when a stop wakes them, and the kernel makes them again
//! if no handler runs. Some answer `-EINTR` whatever woke them (signal(7), "Interruption of system
//! calls and library functions by stop signals"). A signal that the program ignores has the same
//! effect under a tracer: untraced it would not even be queued.
//!
//! The stops concerned lie in the kernel's `get_signal`, before it looks at the result. So the
//! result is changed to `-ERESTARTNOHAND`: the kernel then makes the call again if no handler
//! runs, and answers `EINTR` if one does, whatever comes between our look and the return. Nothing
//! is to be foreseen about other signals.
//!
//! Of signal(7)'s list, tee(2) and vmsplice(2) are not here: they answer `-ERESTARTSYS`.
//!
//! Limits: a call that has done part of its work (write(2) of much to a pipe, recv(2) with
//! `MSG_WAITALL`) answers how much; nothing can be done about that. A call with a relative timeout
//! begins to wait anew. A call that SIGSTOP and SIGCONT alone would have made fail with `EINTR` is
//! made again, too.

use nix::libc;

use crate::{Died, Registers, Stopped};

/// `-EINTR` as a system call's result.
const EINTR: u64 = (-libc::EINTR as i64).cast_unsigned();

/// `-ERESTARTNOHAND` of the kernel's linux/errno.h.
const ERESTARTNOHAND: u64 = (-514_i64).cast_unsigned();

/// Has the kernel decide anew about a call that is about to answer `EINTR`. At an interrupt this is
/// done as soon as we see it, lest we die first. Only for threads stopped before that decision
/// (`Stop::Signal`, `Stop::Interrupt`).
pub(crate) fn restart_interrupted(stopped: &Stopped) -> Result<(), Died> {
    let mut registers = stopped.registers()?;
    if is_interrupted(&registers) {
        registers.set_result(ERESTARTNOHAND);
        stopped.set_registers(&registers)?;
    }
    Ok(())
}

/// Whether a thread with these registers is about to answer `EINTR` to such a call.
pub(crate) fn is_interrupted(registers: &Registers) -> bool {
    registers.result() == EINTR && registers.system_call().is_some_and(can_be_made_again)
}

/// Calls that have had no effect when they answer `EINTR`. close(2), for one, is not among them.
fn can_be_made_again(number: u64) -> bool {
    matches!(
        number.cast_signed(),
        libc::SYS_epoll_wait
            | libc::SYS_epoll_pwait
            | libc::SYS_epoll_pwait2
            | libc::SYS_semop
            | libc::SYS_semtimedop
            | libc::SYS_rt_sigtimedwait
            | libc::SYS_io_getevents
            | libc::SYS_io_uring_enter
            // Sockets with SO_RCVTIMEO or SO_SNDTIMEO.
            | libc::SYS_accept
            | libc::SYS_accept4
            | libc::SYS_connect
            | libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_recvmmsg
            | libc::SYS_sendto
            | libc::SYS_sendmsg
            | libc::SYS_sendmmsg
            | libc::SYS_read
            | libc::SYS_readv
            | libc::SYS_write
            | libc::SYS_writev
            | libc::SYS_preadv2
            | libc::SYS_pwritev2
            | libc::SYS_sendfile
            | libc::SYS_splice
    )
}
