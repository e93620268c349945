//! The agent goes out again.

use std::io;

use leaktap_agent::{OPEN, SHUT, Shared};
use leaktap_tracee::{AllStopped, Stopped, Tid, Tracer};

use super::Process;
use crate::agent::{Held, Injection};
use crate::refusal::Refusal;

impl Process {
    /// Whether a thread that cannot be stopped, since it is `asleep`, may come back to the agent.
    pub fn may_be_in_agent(&self, asleep: Tid) -> bool {
        let agent = self.injection.agent();
        agent.is_some_and(|agent| agent.may_have(asleep))
    }

    /// Whether an agent has been taken out whose memory may still be there.
    pub fn has_withdrawn(&self) -> bool {
        self.injection.withdrawn().is_some()
    }

    /// Takes all threads out of the agent; all have left slots. Its memory stays, to be unmapped by
    /// [`Process::unmap_agent`].
    ///
    /// # Errors
    /// Why threads have to run a little first. Nothing has changed then.
    pub fn withdraw(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut AllStopped<'_>,
    ) -> Result<(), Held> {
        let is_ignored = self.ignores_sigtrap();
        let Some(agent) = self.injection.agent_mut() else {
            return Ok(());
        };
        let left = agent.leave(stopped);
        self.keep_ignored(is_ignored, tracer, stopped.threads_mut());
        left?;
        if let Some(agent) = self.injection.take_agent() {
            self.breakpoints.note_presence(agent.served_at(), false);
            self.injection = Injection::Withdrawn(agent);
        }
        Ok(())
    }

    /// Whether a thread that has `stopped` has to run to get out of the agent.
    pub fn is_at_work(&self, stopped: &Stopped) -> bool {
        let agent = self.injection.agent();
        agent.is_some_and(|agent| agent.is_at_work(stopped))
    }

    /// Opens the agent's exits, or shuts them, for threads that are at work there.
    pub fn open_exits(&mut self, open: bool, stopped: &AllStopped<'_>) {
        let Some(agent) = self.injection.agent() else {
            return;
        };
        let exits = agent.exits();
        if open {
            agent.open_exits(true, stopped);
            self.breakpoints.note_own(exits, OPEN, SHUT, false);
        } else {
            self.breakpoints.note_own(exits, OPEN, SHUT, true);
            agent.open_exits(false, stopped);
        }
    }

    /// A thread that has `stopped` is about to handle a signal: no frame of it may lead to the
    /// agent's code.
    pub fn leave_for_signal(&mut self, tracer: &mut Tracer, stopped: &mut Stopped) {
        let agent = self.injection.agent();
        if !agent.is_some_and(|agent| agent.is_at(stopped)) {
            return;
        }
        let is_ignored = self.ignores_sigtrap();
        let agent = self.injection.agent_mut();
        if agent.is_some_and(|agent| agent.step_out(tracer, stopped)) {
            self.keep_ignored(is_ignored, tracer, &mut [stopped]);
        }
    }

    /// Unmaps a part of the agent that was withdrawn, by system calls of one of `stopped`; the
    /// others may run. Returns true if nothing is left.
    ///
    /// # Errors
    /// [`Refusal::InjectionForbidden`] if the rest stays: the program has installed a seccomp
    /// filter since, or it has been killed.
    pub fn unmap_agent(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut [&mut Stopped],
    ) -> Result<bool, Refusal> {
        match &mut self.injection {
            Injection::Withdrawn(agent) => agent.unmap(tracer, stopped),
            _ => Ok(true),
        }
    }

    /// Moves to `home` some of what an agent that was withdrawn has counted: from `at` on, 0 at
    /// first, to where is returned, nothing at the end. The target may run meanwhile, and has next
    /// to nothing left to unmap afterwards.
    ///
    /// # Errors
    /// See [`Shared::move_here`].
    pub fn bring_home(&self, home: &mut Shared, at: u64) -> io::Result<Option<u64>> {
        let agent = self.injection.withdrawn();
        agent.map_or(Ok(None), |agent| agent.bring_home(home, at))
    }

    /// Restores the functions, and leaves the agent's memory to threads that will not come out.
    pub fn abandon_agent(&mut self, stopped: &AllStopped<'_>) {
        if let Some(agent) = self.injection.take_agent() {
            agent.all_gone();
            agent.restore(&self.memory, stopped);
            agent.stop_serving();
            self.breakpoints.note_presence(agent.served_at(), false);
        }
    }
}
