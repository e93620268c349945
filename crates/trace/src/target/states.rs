//! What /proc says of a thread.

use leaktap_tracee::Tid;

/// True of a thread in a system call that no signal ends: state D of proc_pid_stat(5).
pub(crate) fn sleeps_uninterruptibly(tid: Tid) -> bool {
    state(tid) == Some('D')
}

/// True of a thread that runs, or would if it had a processor.
pub(crate) fn is_runnable(tid: Tid) -> bool {
    state(tid) == Some('R')
}

/// True of a thread that is no more, or, the leader, only waits for the others to end. Not of one
/// that we have no descriptor left to ask for.
pub(crate) fn has_ended(tid: Tid) -> bool {
    tid.state()
        .is_ok_and(|state| matches!(state, None | Some('Z' | 'X')))
}

fn state(tid: Tid) -> Option<char> {
    tid.state().ok().flatten()
}
