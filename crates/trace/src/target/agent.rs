//! The agent: into the target, and out again.

use leaktap_probe::{Files, Held, Refusal};
use leaktap_symbols::Resolver;
use leaktap_tracee::{AllStopped, Attached, Stopped, Tid, Tracer};

use super::{Engine, Target, has_ended};
use crate::common::Common;

impl Target {
    /// Makes memory for the agent, if that was asked for and the modules of the process are known:
    /// at a launch, when the dynamic linker has mapped them all.
    pub(crate) fn map_agent(&mut self, tracer: &mut Tracer, stopped: &mut AllStopped<'_>) -> bool {
        self.how.engine == Engine::Auto
            && !self.books.is_injected()
            && self.has_counted_nothing()
            && self.process.is_linked()
            && self.process.map_agent(tracer, stopped)
    }

    /// Breakpoints have to do, for one of these reasons if there is no other: threads are asleep,
    /// another process shares the memory, or the dynamic linker is at work.
    pub(crate) fn refuse(&mut self, attached: &Attached) {
        let refusal = if !attached.late.is_empty() {
            Refusal::ThreadAsleep
        } else if !attached.sharers.is_empty() {
            Refusal::MemoryShared
        } else if !self.process.is_linked() {
            Refusal::LinkerAtWork
        } else {
            return;
        };
        if self.how.engine == Engine::Auto {
            self.process.refuse(refusal);
        }
    }

    /// Whether a program that has just begun can have an agent at once.
    pub(super) fn is_to_be_injected(&self) -> bool {
        self.how.engine == Engine::Auto && self.process.is_linked()
    }

    /// All of it, at once: while a program is being launched, `stopped` is its only thread. Modules
    /// may have changed. What there will be a detour for never has an int3.
    pub(crate) fn inject(&mut self, common: &mut Common, stopped: &mut Stopped) {
        let mut stopped = AllStopped::only(stopped);
        self.process.look_at_modules(&mut common.files);
        if self.map_agent(&mut common.tracer, &mut stopped) {
            self.fill_agent(&mut common.files);
        }
        if self.process.is_linked() {
            self.process.arm(&stopped);
        }
        self.lead_to_agent(&mut common.tracer, &mut stopped);
        self.read_ahead(&mut common.resolver);
    }

    /// Has all be read beside the program for which the report, at its end, would have to be waited
    /// for.
    fn read_ahead(&self, resolver: &mut Resolver) {
        if self.process.is_linked() {
            let files = self.process.modules().outermost();
            files.for_each(|file| resolver.read_ahead(file));
        }
    }

    /// See [`Process::fill_agent`](leaktap_probe::Process::fill_agent).
    pub(crate) fn fill_agent(&mut self, files: &mut Files) {
        self.process.fill_agent(files);
    }

    /// Replaces breakpoints by detours, where there is an agent.
    pub(crate) fn lead_to_agent(&mut self, tracer: &mut Tracer, stopped: &mut AllStopped<'_>) {
        if let Some(shared) = self.process.lead_to_agent(tracer, stopped) {
            self.books.share(shared);
        }
        self.look_for_operators();
    }

    /// See [`Process::adopt_remains`](leaktap_probe::Process::adopt_remains).
    pub(crate) fn adopt_remains(&mut self) -> bool {
        self.process.adopt_remains()
    }

    /// See [`Process::may_be_in_agent`](leaktap_probe::Process::may_be_in_agent).
    pub(crate) fn may_be_in_agent(&self, asleep: Tid) -> bool {
        self.process.may_be_in_agent(asleep)
    }

    /// Whether there is an agent that has been taken out, and room of our own for what it has
    /// counted.
    pub(crate) fn can_bring_home(&mut self) -> bool {
        self.process.has_withdrawn() && self.books.home().is_some()
    }

    /// Takes the agent out, if there is one: see
    /// [`Process::withdraw`](leaktap_probe::Process::withdraw). With a target that has ended, it is
    /// gone.
    pub(crate) fn withdraw(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut AllStopped<'_>,
    ) -> Result<(), Held> {
        if self.exit.is_some() {
            return Ok(());
        }
        self.process.withdraw(tracer, stopped)
    }

    /// See [`Process::open_exits`](leaktap_probe::Process::open_exits).
    pub(crate) fn open_exits(&mut self, open: bool, stopped: &AllStopped<'_>) {
        self.process.open_exits(open, stopped);
    }

    /// See [`Process::leave_for_signal`](leaktap_probe::Process::leave_for_signal).
    pub(crate) fn leave_for_signal(&mut self, common: &mut Common, stopped: &mut Stopped) {
        // It may wait in the agent for that.
        self.look_for_changes(&mut common.files);
        self.process.leave_for_signal(&mut common.tracer, stopped);
        // It may just have told of something, and goes on without a wait.
        self.look_for_changes(&mut common.files);
    }

    /// See [`Process::share_fs_base`](leaktap_probe::Process::share_fs_base).
    pub(crate) fn share_fs_base(&mut self, tid: Tid) {
        self.process.share_fs_base(tid);
    }

    /// See [`Process::copy_begins`](leaktap_probe::Process::copy_begins).
    pub(crate) fn copy_begins(&mut self, parent: &Stopped, child: Tid) {
        if let Ok(registers) = parent.registers() {
            self.process.copy_begins(&registers, child);
        }
    }

    /// See [`Process::unmap_agent`](leaktap_probe::Process::unmap_agent).
    pub(crate) fn unmap_agent(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut [&mut Stopped],
    ) -> bool {
        let unmapped = self.process.unmap_agent(tracer, stopped);
        if unmapped.is_err() && self.tid().is_filtered() {
            self.note_filtered("the target");
        } else if unmapped.is_err() && self.exit.is_none() && !has_ended(self.tid()) {
            self.notes.push(format!(
                "leaktap's memory stays mapped, unused: no thread could unmap it; the next \
                 `leaktap attach -p {}` does",
                self.tid()
            ));
        }
        unmapped.unwrap_or(true)
    }

    /// Moves some of the books into our own memory; see
    /// [`Process::bring_home`](leaktap_probe::Process::bring_home).
    pub(crate) fn bring_home(&mut self, at: u64) -> Option<u64> {
        match self.process.bring_home(self.books.home()?, at) {
            Ok(next) => next,
            Err(error) => {
                let lost = format!("the books could not be read to their end: {error}");
                self.notes.push(lost);
                None
            }
        }
    }

    fn has_counted_nothing(&self) -> bool {
        let mut families = self.families();
        families.all(|family| self.books.totals(family).allocations == 0)
    }
}
