//! How a target is watched, and how it ended.

use std::time::Duration;

use leaktap_probe::Pool;
use leaktap_report::Mode;

/// How functions are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// By detours, and by breakpoints where there can be none.
    Auto,
    /// By breakpoints alone.
    Breakpoint,
}

impl Engine {
    /// What the report calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Engine::Auto => "auto",
            Engine::Breakpoint => "breakpoint",
        }
    }
}

/// How the target ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called exit(2) with this.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// How long threads of the target were stopped, other than to count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Halts {
    /// To attach, in all: once, or, with an agent, twice.
    pub(crate) attach: Duration,
    /// To detach, in all: all threads, and then one that unmaps the agent's memory.
    pub(crate) detach: Duration,
    /// The longest.
    pub(crate) longest: Duration,
}

impl Halts {
    /// All threads were stopped for so long, to attach.
    pub(crate) fn add_attach(&mut self, halt: Duration) {
        self.attach += halt;
        self.longest = self.longest.max(halt);
    }

    /// Some were stopped for so long, to detach.
    pub(crate) fn add_detach(&mut self, halt: Duration) {
        self.detach += halt;
        self.longest = self.longest.max(halt);
    }
}

/// How a target is to be watched.
#[derive(Clone, Debug)]
pub struct How {
    /// How it comes under trace.
    pub mode: Mode,
    /// Most frames of a stack.
    pub depth: usize,
    /// Between two moments of the time line.
    pub interval: Duration,
    /// Whether code may be injected.
    pub engine: Engine,
    /// Whether what would need an int3 is left unwatched.
    pub detours_only: bool,
    /// Allocators beside those that leaktap knows.
    pub pools: Vec<Pool>,
    /// Whether blocks are graded by what can still be reached when the program ends.
    pub grades: bool,
}
