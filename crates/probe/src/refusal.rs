use std::fmt;

/// Why an instruction cannot be moved, or a probe cannot be optimised into a detour.
///
/// Displayed as its name, which is also how the JSON report spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The function ends before the bytes that a jump needs.
    TooShort,
    /// The function only returns, and there is no room for a jump between it and the next one.
    NoPadding,
    /// A branch of the function targets the bytes that would be replaced.
    JumpIntoRegion,
    /// A displaced instruction means something else at another address.
    NotRelocatable,
    /// A thread is, or will return, between the bytes that would be replaced.
    ThreadInRegion,
    /// No free memory near enough to the function for a jump or a rip-relative operand.
    NoMemoryInReach,
    /// The process may not be given new mappings (seccomp, SELinux, no /proc).
    InjectionForbidden,
    /// The process locks what it maps (mlockall(2)), more than it may; or locked ours meanwhile.
    MemoryLocked,
    /// leaktap itself may have no more descriptors (EMFILE: `ulimit -n`; ENFILE).
    TracerDescriptors,
    /// leaktap itself may have no file as long as the shared memory (EFBIG: `ulimit -f`).
    TracerFileSize,
    /// leaktap itself may have no more addresses (ENOMEM: `ulimit -v`).
    TracerAddresses,
    /// The dynamic linker was loading or unloading modules whenever all threads were stopped.
    LinkerAtWork,
    /// A thread slept where no signal reaches it, so that nobody could tell where it would go on.
    ThreadAsleep,
    /// The kernel does not let a thread read its fs base by an instruction (FSGSBASE, Linux 5.9).
    NoFsBase,
    /// Another process runs in the same memory (CLONE_VM): it has threads that the agent cannot
    /// tell apart.
    MemoryShared,
    /// Nobody was bound to the function when the agent was made.
    BoundLater,
    /// The function may throw through the frame that a detour would put below it.
    MayUnwind,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
