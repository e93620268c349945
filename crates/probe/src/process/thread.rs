//! What a thread is in the middle of, and how that is taken back.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use leaktap_agent::layout::{MARKS, NOTED, running};
use leaktap_ledger::Key;
use leaktap_memory::Addr;
use leaktap_tracee::Registers;

use crate::agent::Agent;
use crate::breakpoints::Held;
use crate::calls::{Call, Calls};
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
    /// What the agent is told of it.
    pub(super) noted: Option<Note>,
}

/// A note in the agent's memory: the number of the thread, and what was there before.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note {
    /// The call that runs.
    Runs(usize, u64),
    /// The function in which it is that a user has told of.
    Pool(usize, [u64; 2]),
}

impl Note {
    /// Tells the agent that `call` runs in the thread with `fs` as its fs base.
    pub(super) fn of(agent: &Agent, fs: u64, call: &Call<Undo>) -> Option<Note> {
        let number = agent.number(fs)?;
        let (sp, ret) = (call.entry_sp.get(), call.ret.get());
        // What a pool calls of another allocator is that one's own, but what it maps is not.
        if call.is_told {
            let pool = agent.pool(number)?;
            let before = pool.each_ref().map(|word| word.load(Acquire));
            store(pool, [sp, ret]);
            return Some(Note::Pool(number, before));
        }
        let outer = agent.outer(number)?;
        let before = outer.load(Acquire);
        outer.store(running(sp, before) | NOTED, Release);
        Some(Note::Runs(number, before))
    }

    fn undo(self, agent: &Agent) {
        match self {
            Note::Runs(number, before) => {
                if let Some(outer) = agent.outer(number) {
                    outer.store(before, Release);
                }
            }
            Note::Pool(number, before) => {
                if let Some(pool) = agent.pool(number) {
                    store(pool, before);
                }
            }
        }
    }
}

/// The thread is stopped.
fn store(pool: &[AtomicU64; 2], words: [u64; 2]) {
    for (place, word) in pool.iter().zip(words) {
        place.store(word, Release);
    }
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
        if let Some((note, agent)) = self.noted.zip(agent) {
            note.undo(agent);
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
