//! What a process does that leaktap must be gone for, before it is done.

use std::ops::Range;

use leaktap_api::Action;
use leaktap_memory::Addr;

use super::Process;

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
    /// A thread is about to do what `action` says with these `arguments`.
    pub(super) fn look_for_departure(&mut self, action: Action, arguments: [u64; 3]) {
        let [first, len, protection] = arguments;
        let start = Addr::new(first);
        let range = start..start.checked_add(len).unwrap_or(start);
        let writes = action == Action::PROTECT && protection & PROT_WRITE != 0;
        if action.fills(first) && self.injection.agent().is_some() {
            self.departure = Some(Departure::Locks);
        } else if writes && self.is_written_in(&range) {
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
