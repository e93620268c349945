//! What a process does with memory, as told to whoever keeps the books.

pub use leaktap_ledger::Freed;
use leaktap_ledger::{FamilyId, Key, StackId};
use leaktap_memory::Addr;
use leaktap_unwind::{End, Frame};

use leaktap_api::FunctionId;

/// A stack of an allocation, from the caller of the allocation function outwards.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a> {
    /// Frames, innermost first.
    pub frames: &'a [Frame],
    /// Why there are no more.
    pub end: End,
}

/// What has allocated a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocator {
    /// The function that was called.
    pub function: FunctionId,
    /// Whose heap the block is in.
    pub family: FamilyId,
}

/// What a call has mapped, over whatever was mapped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Where it is.
    pub at: Addr,
    /// Its bytes.
    pub len: u64,
    /// When the call had returned: how many others had by then.
    pub moment: u64,
}

/// Takes what the probes see, in the order in which it happened.
pub trait Recorder {
    /// A block of `size` bytes at `at` was allocated.
    fn allocated(&mut self, by: Allocator, at: Addr, size: u64, stack: Stack<'_>);

    /// `by` has handed on the block of `key`, another family's, as its own: of that one call there
    /// is one block.
    fn handed_on(&mut self, by: Allocator, key: Key, stack: Stack<'_>);

    /// Whether stacks of frees are kept.
    fn keeps_free_stacks(&self) -> bool;

    /// The block of `key` is about to be freed, by a call that returns to `ret`, with this stack if
    /// they are kept. Returns what this took out of the books.
    fn freed(&mut self, key: Key, ret: Addr, stack: Option<Stack<'_>>) -> Freed;

    /// The stack of the free of `key`, which has just taken nothing out.
    fn misfreed(&mut self, key: Key, stack: Stack<'_>);

    /// The last [`Recorder::freed`] that returned `freed` did not happen after all.
    fn unfreed(&mut self, freed: Freed);

    /// The program mapped something.
    fn mapped(&mut self, function: FunctionId, what: Mapped, stack: Stack<'_>);

    /// The program mapped something, at `time`, as an agent says that has kept the stack.
    fn mapped_by(&mut self, stack: StackId, time: u32, what: Mapped);

    /// `len` bytes at `at` are no longer mapped. What was mapped there at a later moment than
    /// `begun`, when the call began that has unmapped them, is still there.
    fn unmapped(&mut self, at: Addr, len: u64, begun: u64);

    /// Of `len` bytes at `at` none may be used from now on (`PROT_NONE`), or they may be.
    fn protected(&mut self, at: Addr, len: u64, is_usable: bool);

    /// What is in `len` bytes at `at` is no longer needed: madvise(2). With `lazily` it stays until
    /// the kernel needs the memory.
    fn given_back(&mut self, at: Addr, len: u64, lazily: bool);

    /// A call was seen, what it did was not.
    fn lost(&mut self, why: Lost);
}

/// Why a call that was seen is not in the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The instruction that it returns to cannot be moved to a slot, or is not mapped.
    ReturnUnprobed,
    /// Its thread was killed while the agent noted it.
    Unfinished,
}
