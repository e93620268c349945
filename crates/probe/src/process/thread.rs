//! What a thread is in the middle of, and how that is taken back.

use std::sync::atomic::Ordering::Release;

use leaktap_memory::Addr;
use leaktap_tracee::Registers;

use crate::agent::Agent;
use crate::breakpoints::Held;
use crate::calls::Calls;
use crate::record::{Recorder, Removed};
use leaktap_api::FunctionId;

/// What a thread is in the middle of.
#[derive(Debug, Default)]
pub(super) struct Thread {
    pub(super) calls: Calls<Undo>,
    pub(super) held: Held,
    pub(super) free: Option<Free>,
}

/// What a call that did not take place has changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Undo {
    /// What a realloc took out of the books.
    pub(crate) removed: Option<Removed>,
    /// The number of the thread of whose note in the agent's memory this is one, and what that said
    /// before.
    pub(super) noted: Option<(usize, u64)>,
}

/// The last free that a thread entered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    function: FunctionId,
    pub(super) entry: Addr,
    pub(super) entry_sp: Addr,
    block: Addr,
    pub(super) removed: Removed,
}

impl Thread {
    /// Books a free of something, unless it is made on behalf of the one before: `operator delete`
    /// calling or
    /// jumping to `free`.
    pub(super) fn freed(
        &mut self,
        function: FunctionId,
        registers: &Registers,
        block: Option<Addr>,
        recorder: &mut dyn Recorder,
    ) {
        let inside = |last: Free| {
            last.function != function
                && Some(last.block) == block
                && registers.sp() <= last.entry_sp
        };
        if self.free.is_some_and(inside) {
            return;
        }
        // The one before is over, even if this one, at the same place of the stack, frees nothing.
        self.free = block.map(|block| Free {
            function,
            entry: registers.ip(),
            entry_sp: registers.sp(),
            block,
            removed: recorder.freed(block),
        });
    }
}

impl Undo {
    /// The call is over: the agent's note of it goes.
    pub(super) fn forget_note(&self, agent: Option<&Agent>) {
        if let Some((number, before)) = self.noted
            && let Some(outer) = agent.and_then(|agent| agent.outer(number))
        {
            outer.store(before, Release);
        }
    }
}

pub(super) fn undo(undo: Undo, agent: Option<&Agent>, recorder: &mut dyn Recorder) {
    undo.forget_note(agent);
    if let Some(removed) = undo.removed {
        recorder.unfreed(removed);
    }
}

pub(super) fn abandon(thread: &mut Thread, agent: Option<&Agent>, recorder: &mut dyn Recorder) {
    for call in thread.calls.drain() {
        undo(call.undo, agent, recorder);
    }
}
