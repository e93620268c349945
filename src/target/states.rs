//! What /proc says of a thread.

use leaktap_tracee::{Signal, Tid};
use nix::errno::Errno;
use procfs::ProcError;
use procfs::process::Process as ProcInfo;

/// True of a thread in a system call that no signal ends: state D of proc_pid_stat(5).
pub(crate) fn sleeps_uninterruptibly(tid: Tid) -> bool {
    state(tid) == Some('D')
}

/// True of a thread that runs, or would if it had a processor.
pub(crate) fn is_runnable(tid: Tid) -> bool {
    state(tid) == Some('R')
}

/// True of a thread that is no more, or, the leader, only waits for the others to end. Not of one
/// that we have no descriptor
/// left to ask for.
pub(crate) fn has_ended(tid: Tid) -> bool {
    match ProcInfo::new(tid.get()).and_then(|info| info.stat()) {
        Ok(stat) => matches!(stat.state, 'Z' | 'X'),
        Err(ProcError::NotFound(_)) => true,
        Err(ProcError::Io(error, _)) => error.raw_os_error() == Some(Errno::ESRCH as i32),
        Err(_) => false,
    }
}

fn state(tid: Tid) -> Option<char> {
    let stat = ProcInfo::new(tid.get()).and_then(|info| info.stat());
    Some(stat.ok()?.state)
}

/// True of a thread that has hit an int3 whose SIGTRAP has not been reported: SigPnd of
/// proc_pid_status(5).
pub(crate) fn has_pending_trap(tid: Tid) -> bool {
    let status = ProcInfo::new(tid.get()).and_then(|info| info.status());
    // That of an int3 is not blocked: the kernel opens the mask for it. One that is may wait for
    // ever.
    status.is_ok_and(|status| {
        status.sigpnd & !status.sigblk & (1 << (Signal::TRAP.number() - 1)) != 0
    })
}
