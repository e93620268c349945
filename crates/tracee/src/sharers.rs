//! Processes that run in the memory of another one: clone(2) with `CLONE_VM`, without
//! `CLONE_THREAD`. Among them children of vfork(2) that have not executed a program yet.

use crate::procfs::Status;
use crate::{Tid, sys};

/// Whether `other`, of another process, runs in the memory of `thread`, as far as we may know:
/// kcmp(2) takes the same rights as ptrace(2).
pub(crate) fn share(thread: Tid, other: Tid) -> bool {
    let is_same = || sys::same_memory(thread.get(), other.get()) == Ok(true);
    // Two that are about to end, or a kernel thread and one of these, have the same memory: none.
    // None gets any again, so whatever has some now had it when they were compared.
    let has_memory = |status: Status| status.field("VmSize").is_some();
    // The kernel compares where the memory is noted: looked at one after the other, a new process
    // may have its note where that of one which ended in between was. A second time, it has none.
    is_same() && Status::of(other).is_some_and(has_memory) && is_same()
}
