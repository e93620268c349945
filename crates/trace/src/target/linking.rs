//! A program that is being linked.

use leaktap_tracee::{AllStopped, Attached, Died, Stopped};

use super::{Engine, Target};

impl Target {
    /// See [`Process::await_link`](leaktap_probe::Process::await_link). Many system calls may be
    /// made until then, and each stops twice: that is for programs that live on if we are killed.
    pub(crate) fn await_link(&mut self, stopped: &AllStopped<'_>) {
        if self.how.engine == Engine::Auto && !self.ends_with_us {
            self.process.await_link(stopped);
        }
    }

    /// The same for a program that has been executed while we attached.
    pub(crate) fn await_first_link(&mut self, attached: &mut Attached) {
        let is_alone = attached.late.is_empty() && attached.sharers.is_empty();
        if is_alone && attached.stopped.len() == 1 {
            self.await_link(&attached.all_stopped());
        }
    }

    /// See [`Process::return_from_link`](leaktap_probe::Process::return_from_link).
    pub(crate) fn return_from_link(&self, stopped: &Stopped) -> Result<(), Died> {
        let mut registers = stopped.registers()?;
        self.process.return_from_link(&mut registers);
        stopped.set_registers(&registers)
    }

    /// See [`Process::end_linking`](leaktap_probe::Process::end_linking).
    pub(crate) fn end_linking(&mut self, stopped: &AllStopped<'_>) {
        self.process.end_linking(stopped);
    }

    /// Arms what is being linked, without awaiting the end of that any longer.
    pub(crate) fn arm_unlinked(&mut self, stopped: &AllStopped<'_>) {
        self.process.end_linking(stopped);
        self.process.arm(stopped);
    }

    /// See [`Process::take_linking_out`](leaktap_probe::Process::take_linking_out).
    pub(crate) fn take_linking_out(&mut self, stopped: &AllStopped<'_>) {
        self.process.take_linking_out(stopped);
    }
}
