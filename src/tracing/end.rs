//! The stop of the leader at its end, where its mappings are looked at. Only while it has any, or may
//! have: while leaktap itself is stopped, a process in that stop keeps all that it has.

use std::time::{Duration, Instant};

use leaktap_tracee::{Died, Stopped};

use super::{SYS_EXIT, Tracing};

/// How often a leader that does not stop by itself is told that it has no mappings any more.
const LULL: Duration = Duration::from_secs(1);

/// Whether the leader knows.
pub(super) struct EndStop {
    /// It was interrupted, to be told.
    is_asked: bool,
    told: Instant,
}

impl EndStop {
    pub(super) fn new() -> EndStop {
        EndStop {
            is_asked: false,
            told: Instant::now(),
        }
    }
}

impl Tracing<'_> {
    /// Has `stopped` stop at its end, or not, if it is the leader.
    pub(crate) fn look_at_end_of(&mut self, stopped: &Stopped) {
        let tid = stopped.tid();
        if tid != self.target.tid() {
            return;
        }
        self.end_stop.is_asked = false;
        if self.tracer.stops_at_end(tid) != self.target.may_have_mappings() {
            self.set_end_of(stopped);
        }
    }

    /// The same for a leader of which nobody knows: it was another thread before it has executed
    /// a program.
    pub(crate) fn set_end_of(&mut self, leader: &Stopped) {
        self.end_stop.told = Instant::now();
        let stops = self.target.may_have_mappings();
        let _ = self.tracer.stop_at_end(leader, stops); // fails if it has been killed
    }

    /// Has the leader stop, to be told, if it runs and another thread has made the first mapping,
    /// or, some time ago, undone the last.
    pub(super) fn ask_leader(&mut self) {
        let leader = self.target.tid();
        let stops = self.target.may_have_mappings();
        if stops == self.tracer.stops_at_end(leader) || self.end_stop.is_asked {
            return;
        }
        let running = self
            .tasks
            .get(&leader)
            .and_then(|task| task.running.as_ref());
        if let Some(running) = running
            && (stops || self.end_stop.told.elapsed() >= LULL)
        {
            self.end_stop.is_asked = running.interrupt().is_ok();
        }
    }

    /// The leader is about to end. The process does so, too, and its memory is still there, unless
    /// the leader has called exit(2) and leaves others behind.
    pub(crate) fn on_end(&mut self, stopped: Stopped) -> Result<(), Died> {
        let tid = stopped.tid();
        let mut tasks = self.tasks.iter();
        let is_alone = tasks.all(|(other, task)| *other == tid || task.child);
        let call = stopped.registers()?.system_call();
        if tid == self.target.tid() && (is_alone || call != Some(SYS_EXIT)) {
            self.target.look_at_mappings();
        }
        self.resume(stopped)
    }
}
