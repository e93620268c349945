//! What a thread is in the middle of, and how that is taken back.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use leaktap_agent::layout::MARKS;
use leaktap_ledger::Key;
use leaktap_memory::Addr;
use leaktap_tracee::Registers;

use crate::agent::Agent;
use crate::breakpoints::Held;
use crate::calls::Calls;
use crate::record::{Freed, Recorder};

/// What a thread is in the middle of.
#[derive(Debug, Default)]
pub(super) struct Thread {
    pub(super) calls: Calls<Undo>,
    pub(super) held: Held,
    pub(super) free: Option<Free>,
    /// As the agent's [`handed`](leaktap_agent::layout::Thread::handed), where there is none.
    pub(super) handed: Option<Key>,
}

impl Thread {
    /// The block that a call inside the one that is returning has returned. The agent has `noted`
    /// what runs, and what was handed.
    pub(super) fn handed(&self, noted: Option<(&AtomicU64, &AtomicU64)>) -> Option<Key> {
        let Some((_, handed)) = noted else {
            return self.handed;
        };
        let handed = handed.load(Acquire);
        (handed != 0).then_some(Key::from_bits(handed))
    }

    /// A call has returned `block`, or is the last of those that are under way.
    pub(super) fn hand(&mut self, block: Option<Key>, noted: Option<(&AtomicU64, &AtomicU64)>) {
        let is_inside = noted.is_some_and(|(outer, _)| outer.load(Acquire) & !MARKS != 0);
        let block = block.filter(|_| is_inside || !self.calls.is_empty());
        match noted {
            Some((_, handed)) => handed.store(block.map_or(0, Key::bits), Release),
            None => self.handed = block,
        }
    }
}

/// What a call that did not take place has changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Undo {
    /// What a realloc took out of the books.
    pub(crate) freed: Option<Freed>,
    /// The number of the thread of whose note in the agent's memory this is one, and what that said
    /// before.
    pub(super) noted: Option<(usize, u64)>,
}

/// The free that a thread has entered last, if it has entered nothing since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    pub(super) entry: Addr,
    pub(super) entry_sp: Addr,
    pub(super) freed: Freed,
}

impl Free {
    /// A thread with `registers` is at its first instruction.
    pub(super) fn of(registers: &Registers, freed: Freed) -> Free {
        Free {
            entry: registers.ip(),
            entry_sp: registers.sp(),
            freed,
        }
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
    if let Some(freed) = undo.freed {
        recorder.unfreed(freed);
    }
}

pub(super) fn abandon(thread: &mut Thread, agent: Option<&Agent>, recorder: &mut dyn Recorder) {
    for call in thread.calls.drain() {
        undo(call.undo, agent, recorder);
    }
}
