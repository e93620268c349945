//! Processes that run in the memory of another one: clone(2) with `CLONE_VM`, without
//! `CLONE_THREAD`. Among them children of vfork(2) that have not executed a program yet.

use crate::procfs::{self, Status};
use crate::{Tid, sys};

/// Whether `other`, of another process, runs in the memory of `thread`, as far as we may know:
/// kcmp(2)
/// takes the same rights as ptrace(2).
pub(crate) fn share(thread: Tid, other: Tid) -> bool {
    sys::same_memory(thread.get(), other.get()) == Ok(true)
        // Those without any memory have all the same.
        && !procfs::is_kernel_thread(other)
        && Status::of(other).is_some_and(|status| !status.is_dead())
}
