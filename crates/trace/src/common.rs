//! What the processes of a session have in common.

use std::collections::{HashMap, HashSet};

use leaktap_probe::{Files, Modules};
use leaktap_symbols::Resolver;
use leaktap_tracee::{Event, Stopped, Tid, Tracer};

/// What the processes of a session have in common.
#[derive(Default)]
pub(crate) struct Common {
    pub(crate) tracer: Tracer,
    /// Each file is read once, and its rows are made once, whoever maps it.
    pub(crate) files: Files,
    /// The same of its names.
    pub(crate) resolver: Resolver,
    /// Children are to be traced, too, each by itself.
    pub(crate) follows: bool,
    /// There may be more than one process.
    pub(crate) is_shared: bool,
    /// Threads that have stopped while those of another process were waited for, and children that
    /// no parent has announced yet.
    pub(crate) strays: HashMap<Tid, Stopped>,
    /// The ends of such.
    pub(crate) ends: Vec<Event>,
    /// Children that are to be traced, at their first stop or in front of the first instruction of
    /// another program.
    pub(crate) newborn: Vec<Newborn>,
    /// Processes that have executed other programs, of which nobody has told yet.
    pub(crate) execed: Vec<Tid>,
    /// Threads of processes that are no longer traced, which could not be stopped then.
    pub(crate) leaving: HashSet<Tid>,
}

/// A child that is to be traced by itself. Nothing of its parent's probes is in its memory.
pub(crate) struct Newborn {
    pub(crate) stopped: Stopped,
    /// The process that is its parent.
    pub(crate) parent: Tid,
    /// A copy of its parent, or it has just executed a program.
    pub(crate) is_copy: bool,
}

impl Common {
    /// A process runs another program now, with `modules`: what of the former one nobody else may
    /// have is closed.
    pub(crate) fn only_those_of(&mut self, modules: &Modules) {
        // Children run the same again and again.
        if !self.is_shared {
            self.files.retain(|file| modules.has(file));
            self.resolver.retain(|file| modules.has(file));
        }
    }
}
