//! What a stop of a thread means for its process and the books.

use leaktap_memory::Addr;
use leaktap_probe::{Files, Trap};
use leaktap_tracee::{AllStopped, Registers, Stopped, Tid, Tracer};

use super::Target;

impl Target {
    /// A thread begins; it has not run yet.
    pub(crate) fn thread_begins(&mut self, thread: &Stopped) {
        if let Ok(registers) = thread.registers() {
            self.process.thread_begins(thread.tid(), &registers);
        }
    }

    /// See [`Process::trap`](leaktap_probe::Process::trap).
    pub(crate) fn trap(&mut self, tid: Tid, registers: &mut Registers) -> Trap {
        self.process.trap(tid, registers, &mut self.books)
    }

    /// See [`Process::ask_sigtrap`](leaktap_probe::Process::ask_sigtrap).
    pub(crate) fn ask_sigtrap(&mut self, tracer: &mut Tracer, stopped: &mut AllStopped<'_>) {
        self.process.ask_sigtrap(tracer, stopped);
    }

    /// See [`Process::keep_sigtrap`](leaktap_probe::Process::keep_sigtrap).
    pub(crate) fn keep_sigtrap(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut Stopped,
        at: Addr,
        registers: &Registers,
    ) {
        self.process.keep_sigtrap(tracer, stopped, at, registers);
    }

    /// See [`Process::inherits_mask`](leaktap_probe::Process::inherits_mask).
    pub(crate) fn inherits_mask(&mut self, thread: Tid, parent: Tid) {
        self.process.inherits_mask(thread, parent);
    }

    /// See [`Process::retry`](leaktap_probe::Process::retry).
    pub(crate) fn retry(&mut self, tid: Tid, registers: &mut Registers) -> Trap {
        self.process.retry(tid, registers)
    }

    /// See [`Process::leave_slot`](leaktap_probe::Process::leave_slot).
    pub(crate) fn leave_slot(&mut self, tid: Tid, registers: &mut Registers) -> bool {
        self.process.leave_slot(tid, registers, &mut self.books)
    }

    /// See [`Process::modules_changed`](leaktap_probe::Process::modules_changed).
    pub(crate) fn modules_changed(&mut self, files: &mut Files) {
        self.process.modules_changed(files);
        self.look_for_operators();
    }

    /// See [`Process::thread_gone`](leaktap_probe::Process::thread_gone).
    pub(crate) fn thread_gone(&mut self, tid: Tid) {
        self.process.thread_gone(tid, &mut self.books);
    }
}
