//! Changes of the dynamic linker's list of modules: the agent tells of them, and waits for us.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use leaktap_agent::CONTROL_AT;
use leaktap_agent::layout::{Control, SERVED};
use leaktap_memory::Addr;
use std::mem::offset_of;

use super::Agent;
use super::waker::{Waker, wake};

impl Agent {
    /// Threads that change the list of modules are waited for from now on.
    pub(crate) fn serve(&mut self, waker: Option<Waker>) {
        self.waker = waker;
        if let Some(waker) = &mut self.waker {
            waker.watch(&self.shared);
        }
        self.shared.live().served.store(SERVED, Release);
    }

    /// Threads wait for nobody any more.
    pub(crate) fn stop_serving(&self) {
        let live = self.shared.live();
        live.served.store(0, Release);
        wake(&live.seen);
    }

    /// The thread of this fs base, or [`ALL`](leaktap_agent::layout::ALL), waits for nobody while
    /// `run` takes it out.
    pub(super) fn none_waits<T>(&self, fs: u64, run: impl FnOnce(&Agent) -> T) -> T {
        let leaving = &self.shared.live().leaving;
        leaving.store(fs, Release);
        let result = run(self);
        leaving.store(0, Release);
        result
    }

    /// As [`Agent::stop_serving`] for an agent that another tracer has left, whose memory is not
    /// ours.
    pub(super) fn stop_waits(&self) {
        if self.regions.shared.is_empty() {
            return; // nobody waits
        }
        let gone = self.memory.write(self.served_at(), &0_u32.to_le_bytes());
        let _ = gone; // with the whole process
    }

    /// Where the target has what says that they are.
    pub(crate) fn served_at(&self) -> Addr {
        let offset = CONTROL_AT + offset_of!(Control, live.served) as u64;
        self.regions.shared.start.wrapping_offset(offset as i64)
    }

    /// What to say by [`Agent::has_seen`] of the changes that have been told since; nothing if none
    /// has.
    pub(crate) fn change(&self) -> Option<u32> {
        let told = self.shared.told().changes.load(Acquire);
        (told != self.seen).then_some(told)
    }

    /// Whether only one has been told since the last that was seen, and awaited.
    pub(crate) fn is_next(&self, change: u32) -> bool {
        let is_served = self.shared.live().served.load(Acquire) == SERVED;
        is_served && change == self.seen.wrapping_add(1)
    }

    /// They have been seen: the threads that have told of them go on. False if one has done so
    /// before.
    pub(crate) fn has_seen(&mut self, change: u32) -> bool {
        self.seen = change;
        let live = self.shared.live();
        let was_served = live.served.swap(SERVED, AcqRel) == SERVED;
        live.seen.store(change, Release);
        wake(&live.seen);
        was_served
    }
}
