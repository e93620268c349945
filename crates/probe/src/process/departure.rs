//! What a process does that leaktap must be gone for, before it is done.

use std::ops::Range;

use leaktap_memory::Addr;
use leaktap_tracee::Registers;

use super::Process;
use crate::breakpoints::Purpose;

/// Of mlockall(2): what is mapped now, unless only pages that are touched later are meant.
const MCL_CURRENT: u64 = 1;
const MCL_ONFAULT: u64 = 4;

/// Of mprotect(2).
const PROT_WRITE: u64 = 2;

/// Why the process has to be let go; a thread waits for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It is about to call mlockall(2), which fills all that is mapped with pages, and so what is
    /// reserved for the agent's books.
    Locks,
    /// It is about to make code writable in which we have written. Whoever hooks a function keeps
    /// what was there, and puts it back one day: that must not be an int3, or a jump to an agent
    /// that is gone.
    Rewrites,
}

impl Process {
    /// Puts a breakpoint on mlockall, if there is one.
    pub(super) fn arm_lock(&mut self) {
        if let Some(at) = self.lock {
            // One that cannot be set is as none.
            let _ = self.breakpoints.insert(at, Purpose::Lock);
        }
    }

    /// Where mlockall is.
    pub(super) fn lock_all(&self) -> Option<Addr> {
        let found = self.modules.image().resolve("mlockall", &self.memory)?;
        found.code.addr()
    }

    /// A thread with `registers` has come to the breakpoint at `at`.
    pub(super) fn look_for_lock(&mut self, at: Addr, registers: &Registers) {
        let fills = registers.argument(0) & (MCL_CURRENT | MCL_ONFAULT) == MCL_CURRENT;
        if self.lock == Some(at) && fills && self.injection.agent().is_some() {
            self.departure = Some(Departure::Locks);
        }
    }

    /// A thread with `registers` is about to call mprotect.
    pub(super) fn look_for_rewrite(&mut self, registers: &Registers) {
        let [start, len, protection] = [0, 1, 2].map(|n| registers.argument(n));
        let start = Addr::new(start);
        let range = start..start.checked_add(len).unwrap_or(start);
        if protection & PROT_WRITE != 0 && self.is_written_in(&range) {
            self.departure = Some(Departure::Rewrites);
        }
    }

    fn is_written_in(&self, range: &Range<Addr>) -> bool {
        let agent = self.injection.agent();
        self.breakpoints.is_set_in(range) || agent.is_some_and(|agent| agent.is_patched_in(range))
    }

    /// Whether, and why, the process waits to be let go.
    pub fn departure(&self) -> Option<Departure> {
        self.departure
    }
}
