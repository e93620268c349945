//! The stop of the leader at its end, where its mappings are looked at. Only if it has had any, or
//! may have: while leaktap itself is stopped, a process in that stop keeps all that it has.

use std::collections::HashMap;

use leaktap_arch::system_calls::EXIT;
use leaktap_tracee::{Died, Stopped, Tid, Tracer};

use super::{Traced, Tracing};

/// Whether the leader knows.
#[derive(Default)]
pub(super) struct EndStop {
    /// It was interrupted, to be told.
    is_asked: bool,
    /// Threads that have come to their ends, and what they had in their registers.
    ended: HashMap<Tid, [u64; 16]>,
}

impl Traced {
    /// Has the leader stop, to be told, if it runs and another thread has made the first mapping.
    /// Once for each program: an interrupted epoll_wait(2) waits its whole time again.
    pub(crate) fn ask_leader(&mut self, tracer: &Tracer) {
        let leader = self.target.tid();
        let is_told = self.end_stop.is_asked || tracer.stops_at_end(leader);
        if is_told || !self.target.may_have_mappings() {
            return;
        }
        let task = self.tasks.get(&leader);
        if let Some(running) = task.and_then(|task| task.running.as_ref()) {
            self.end_stop.is_asked = running.interrupt().is_ok();
        }
    }
}

impl Tracing<'_> {
    /// Another program has taken the place of the one whose threads have ended.
    pub(super) fn nobody_has_ended(&mut self) {
        self.traced.end_stop.ended.clear();
    }

    /// Has `stopped` stop at its end, if it is the leader.
    pub(crate) fn look_at_end_of(&mut self, stopped: &Stopped) {
        let tid = stopped.tid();
        if tid != self.traced.target.tid() {
            return;
        }
        self.traced.end_stop.is_asked = false;
        if !self.common.tracer.stops_at_end(tid) && self.traced.target.may_have_mappings() {
            self.set_end_of(stopped);
        }
    }

    /// The same for a leader of which nobody knows: it was another thread before it has executed
    /// a program.
    pub(crate) fn set_end_of(&mut self, leader: &Stopped) {
        let stops = self.traced.target.may_have_mappings();
        let _ = self.common.tracer.stop_at_end(leader, stops); // fails if it has been killed
    }

    /// A thread is about to end. The process does so, too, and its memory is still there, unless
    /// it has called exit(2) and leaves others behind.
    pub(crate) fn on_end(&mut self, stopped: Stopped) -> Result<(), Died> {
        let tid = stopped.tid();
        let ended = &self.traced.end_stop.ended;
        let mut tasks = self.traced.tasks.iter();
        let is_alone =
            tasks.all(|(other, task)| *other == tid || task.child || ended.contains_key(other));
        let registers = stopped.registers()?;
        let ends_alone = registers.system_call() == Some(EXIT.cast_unsigned());
        let is_leader = tid == self.traced.target.tid();
        if is_leader && (is_alone || !ends_alone) {
            self.traced.target.look_at_mappings();
        }
        if self.traced.target.how.grades && !self.is_child(tid) {
            // Others may not come, and the last one knows best.
            if is_alone || !ends_alone && !self.traced.target.is_graded() {
                let ended = self.traced.end_stop.ended.values();
                let others: Vec<_> = ended.flatten().copied().collect();
                self.traced.target.grade(tid, &registers, &others);
            }
            // The number of one that ends alone may be another's by and by, but for the leader's.
            if is_leader || !ends_alone {
                let words = registers.words();
                self.traced.end_stop.ended.insert(tid, words);
            }
        }
        self.resume(stopped)
    }
}
