//! How a trace is made.

use std::time::Duration;

use crate::orders::OnSignal;
use crate::target::{Engine, How};

/// What stops may take of the time of a process that has not asked for it, in percent.
const OVERHEAD: u8 = 10;

/// How a trace is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Let the target go after this long.
    pub duration: Option<Duration>,
    /// How the target is watched.
    pub how: How,
    /// Let the target go when stops take more percent of its time. If it is not said: more than
    /// 10, of a process that is attached to under [`Engine::Auto`]; else stops take what they take.
    pub max_overhead: Option<u8>,
    /// Whether whole stacks of frees are kept.
    pub free_stacks: bool,
    /// For so long after that, only frees of what is there are waited for.
    pub drain: Option<Duration>,
    /// Report again and again after so long, and go on.
    pub every: Option<Duration>,
    /// Leave out what is there after so long.
    pub baseline_after: Option<Duration>,
    /// Whether children are traced, too.
    pub follow_forks: bool,
    /// Whether those are traced to their end that outlive the processes asked for.
    pub wait_all: bool,
}

impl Settings {
    /// The most that stops may take of the target's time, in percent. Who launches a program, or
    /// asks for breakpoints, wants to know all, and has waited for that; a process that others use
    /// must not be slowed down unasked.
    pub(crate) fn most_overhead(&self, on_signal: OnSignal) -> Option<u8> {
        let is_guest = on_signal == OnSignal::Detach && self.how.engine == Engine::Auto;
        self.max_overhead.or(is_guest.then_some(OVERHEAD))
    }
}
