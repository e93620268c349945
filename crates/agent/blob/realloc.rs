//! What calls that reallocate have taken out of the ledger, and how it goes back.

use leaktap_ledger::{Freed, Full};

use crate::agent::{Agent, stripe};
use crate::layout::{Loss, Thread};
use crate::moving::{MOVING, Moving};

impl Agent {
    /// Number `index` of the calls of `thread`.
    pub(crate) fn moving(self, thread: *mut Thread, index: usize) -> Option<Moving<'static>> {
        // SAFETY: the state of this thread, which exists while the agent is present; all of this is
        // atomic.
        let calls = unsafe { &(*thread).moving };
        calls.get(index).map(Moving)
    }

    /// A call that was entered with its return address at `sp` begins. Returns its number, and
    /// nothing if there is no room: that is counted.
    pub(crate) fn begin_moving(self, thread: *mut Thread, sp: u64) -> Option<usize> {
        let begins = |index: &usize| {
            let call = self.moving(thread, *index);
            call.is_some_and(|call| call.begin(sp))
        };
        let index = (0..MOVING).find(begins);
        if index.is_none() {
            self.lose(Loss::NoSpare);
        }
        index
    }

    /// What a call in `thread`, which was in `before` when it began, has taken out goes back.
    #[cold]
    pub(crate) fn put_back(self, thread: *mut Thread, before: u64, freed: Freed) {
        let Some(state) = self.state(thread, before) else {
            return;
        };
        let ledger = self.ledger();
        if ledger.restore(stripe(state), freed) == Err(Full) {
            self.lose(Loss::Full);
        }
        self.done(state, before);
    }

    /// Calls of `thread` that were entered at a stack pointer of which `is_over` is true will not
    /// return. `now` is what the thread is in.
    pub(crate) fn left(self, thread: *mut Thread, now: u64, is_over: impl Fn(u64) -> bool) {
        for call in (0..MOVING).filter_map(|index| self.moving(thread, index)) {
            let sp = call.entry_sp();
            if sp != 0
                && is_over(sp)
                && let Some(freed) = call.end(sp)
            {
                self.put_back(thread, now, freed);
            }
        }
    }
}
