//! mlockall(2) fills all that is mapped with pages, and so what is reserved for the agent's books: a process that is about to call it has to be let
//! go first.

use leaktap_memory::Addr;
use leaktap_tracee::Registers;

use super::Process;
use crate::breakpoints::Purpose;

/// Of mlockall(2): what is mapped now, unless only pages that are touched later are meant.
const MCL_CURRENT: u64 = 1;
const MCL_ONFAULT: u64 = 4;

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
        self.must_leave |= self.lock == Some(at) && fills && self.agent.is_some();
    }

    /// Whether the process waits to be let go, to call mlockall(2).
    pub fn must_leave(&self) -> bool {
        self.must_leave
    }
}
