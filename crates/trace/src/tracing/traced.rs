use std::collections::{HashMap, HashSet};
use std::time::Instant;

use leaktap_tracee::{Stopped, Tid, has_run_out};

use super::end::EndStop;
use super::{Child, Task};
use crate::overhead::Overhead;
use crate::target::Target;

/// A process under trace, and all that runs in its memory.
pub(crate) struct Traced {
    pub(crate) target: Target,
    pub(crate) tasks: HashMap<Tid, Task>,
    /// Announced by their parent, not yet seen.
    pub(crate) expected: HashMap<Tid, Child>,
    /// Made with the fs base of their maker, which runs on: they cannot be told apart by it.
    pub(crate) fs_shared: HashSet<Tid>,
    /// At a breakpoint, waiting for a slot.
    pub(crate) parked: Vec<Stopped>,
    /// In a group-stop, as by Ctrl-Z.
    pub(crate) is_stopped: bool,
    /// Let go: all that is still to come is its end.
    pub(crate) has_left: bool,
    pub(super) overhead: Overhead,
    pub(super) end_stop: EndStop,
}

impl Traced {
    /// Nothing runs in the memory of `target` yet.
    pub(crate) fn new(target: Target) -> Traced {
        Traced {
            target,
            tasks: HashMap::new(),
            expected: HashMap::new(),
            fs_shared: HashSet::new(),
            parked: Vec::new(),
            is_stopped: false,
            has_left: false,
            overhead: Overhead::new(None, Instant::now()),
            end_stop: EndStop::default(),
        }
    }

    /// From now on stops may take no more percent of its time than that.
    pub(crate) fn limit(&mut self, most_overhead: Option<u8>) {
        self.overhead = Overhead::new(most_overhead, Instant::now());
    }

    /// Whether the thread `tid` is its own, or will be.
    pub(crate) fn has(&self, tid: Tid) -> bool {
        self.tasks.contains_key(&tid) || self.expected.contains_key(&tid)
    }

    /// Whether it has to do with an event of `tid`: a leader may have ended before others, or be
    /// what another thread has become.
    pub(crate) fn is_of(&self, tid: Tid) -> bool {
        self.has(tid) || self.target.tid() == tid
    }

    /// Whether the user has named it: not so a child.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.target.parent.is_none()
    }

    /// Whether a thread of it waits until it is let go.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.has_left && self.target.process().departure().is_some()
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.target.exit.is_some() || !self.has_left && self.tasks.is_empty()
    }

    /// Threads that could not be stopped when it was let go.
    pub(crate) fn unstopped(&self) -> impl Iterator<Item = Tid> + '_ {
        let unstopped = self.tasks.iter().filter(|(_, task)| task.unstoppable);
        unstopped.map(|(tid, _)| *tid)
    }

    /// Whether the target has to be let go for its own sake.
    pub(crate) fn must_leave(&mut self) -> bool {
        if self.has_left {
            return false;
        }
        let excess = self.overhead.excess(Instant::now());
        if let Some(excess) = excess {
            self.target.was_too_slow(excess);
        }
        let has_run_out = has_run_out();
        if has_run_out {
            self.target.note_shortage();
        }
        excess.is_some() || has_run_out || self.is_waited_for()
    }
}
