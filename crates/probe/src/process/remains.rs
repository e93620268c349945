//! What a tracer that was killed has left.

use leaktap_arch::BREAKPOINT;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{AllStopped, Tid};

use super::Process;
use crate::agent::{self, Agent, Injection, Remains};
use crate::probepoint::{Kind, Probepoint, Reason};
use crate::tails;

impl Process {
    /// Whether a tracer that was killed has left an agent in the process.
    pub fn remains(&self) -> Remains {
        self.remains_seen_by(self.memory.process())
    }

    /// The same as a thread of it sees it, which lives: the leader may have ended.
    pub fn remains_seen_by(&self, thread: Tid) -> Remains {
        agent::remains(&self.memory, thread)
    }

    /// Whether int3s of a tracer that was killed are still there: the one that stands by takes them
    /// out.
    pub fn has_foreign_breakpoints(&self) -> bool {
        let image = self.modules.image();
        let points = self.probes();
        let mut all = points.iter().map(|point| point.address);
        let of_signals = super::sigtrap::FUNCTIONS.iter();
        let mut of_signals =
            of_signals.filter_map(|name| image.resolve(name, &self.memory)?.code.addr());
        all.any(|at| self.is_foreign(at)) || of_signals.any(|at| self.is_foreign(at))
    }

    /// Whether an int3 is at `at` that neither we have set, nor whoever built the file.
    pub(super) fn is_foreign(&self, at: Addr) -> bool {
        let mut now = [0];
        let in_file = || {
            let module = self.modules.image().module_at(at)?;
            let bytes = module.file().bytes_at(module.svma(at), 1)?;
            bytes.first().copied()
        };
        self.breakpoints.purposes(at).is_none()
            && self.memory.read(at, &mut now).is_ok()
            && now == [BREAKPOINT]
            && in_file() != Some(BREAKPOINT)
    }

    /// There is no probe where somebody else's int3 is.
    pub(super) fn look_for_foreign(&self, point: &mut Probepoint) {
        if point.kind == Kind::Breakpoint && self.is_foreign(point.address) {
            point.kind = Kind::None(Reason::ForeignBreakpoint);
        }
    }

    /// Looks for instructions that a tracer which was killed has moved to unused bytes, while the
    /// process runs.
    pub fn look_for_slots(&mut self) {
        self.left = tails::left(self.modules.image(), &self.memory);
    }

    /// Puts back what was there. Before [`Process::arm`], which takes what is there now for what is
    /// to be put back at the end.
    pub fn restore_slots(&mut self, stopped: &AllStopped<'_>) {
        for left in std::mem::take(&mut self.left) {
            left.restore(&self.memory, stopped);
        }
    }

    /// Takes charge of that agent, to be taken out by [`Process::withdraw`]. False if it is not
    /// known well enough for that.
    pub fn adopt_remains(&mut self) -> bool {
        let agent = Agent::adopt(&self.memory, &mut self.modules);
        self.injection = agent.map_or(Injection::None, Injection::Leading);
        self.injection.agent().is_some()
    }
}
