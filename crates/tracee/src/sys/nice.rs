//! The nice value of the calling thread (setpriority(2), sched(7)).

use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::libc::{self, c_int};

/// No nice value.
const NONE: i32 = i32::MAX;

/// What it was before it was changed, or [`NONE`].
static BEFORE: AtomicI32 = AtomicI32::new(NONE);

/// -20, the highest priority, to 19.
pub(crate) fn nice() -> i32 {
    // SAFETY: integers only. The kernel itself answers 40 to 1.
    let answer = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) };
    20 - answer as i32
}

/// Changes it, for the calling thread alone: what that starts from now on has 0 instead, if that is
/// lower.
pub(crate) fn set_nice_alone(nice: i32) -> Result<(), Errno> {
    let before = self::nice();
    set(nice)?;
    let policy = libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK;
    let none: c_int = 0; // the kernel's `struct sched_param`
    // SAFETY: `none` lives through the call. (musl's own function refuses.)
    let done = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const none) };
    if let Err(errno) = Errno::result(done) {
        set(before)?; // lower than now: cannot be refused
        return Err(errno);
    }
    BEFORE.store(before, Ordering::Relaxed);
    Ok(())
}

/// Puts back what [`set_nice_alone`] has changed. Also for a forked child, before it executes a
/// program: it is async-signal-safe.
pub(crate) fn restore_nice() {
    let before = BEFORE.load(Ordering::Relaxed);
    if before != NONE {
        let _ = set(before); // whoever could change it may put it back
    }
}

/// True if the calling thread has not the usual scheduling policy.
pub(crate) fn has_other_policy() -> bool {
    // SAFETY: an integer only.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    policy as c_int & !libc::SCHED_RESET_ON_FORK != libc::SCHED_OTHER
}

fn set(nice: c_int) -> Result<(), Errno> {
    // SAFETY: integers only.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}
