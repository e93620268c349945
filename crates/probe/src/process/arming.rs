//! Probes come and go, with modules and with the trace.

use leaktap_image::Module;
use leaktap_tracee::{AllStopped, Memory, Stopped, Tracer};

use super::thread::abandon;
use super::{Process, sigtrap};
use crate::breakpoints::Purpose;
use crate::modules::{Files, Found, Look};
use crate::probepoint::{self, Kind, Probepoint, Reason};
use crate::record::Recorder;
use crate::refusal::Refusal;

impl Process {
    /// Puts probes on all functions found. Of a program that is being linked there are none.
    pub fn arm(&mut self, _: &AllStopped<'_>) {
        self.arm_found();
    }

    /// The same when modules have changed, which is the one time that others may run: nobody has
    /// been in the code of the new ones, and each probe is one byte.
    pub(super) fn arm_found(&mut self) {
        if self.linking.is_some() {
            return;
        }
        let points = self.found.take().unwrap_or_else(|| self.find());
        for mut point in points {
            if self.points.iter().any(|old| old.address == point.address) {
                continue;
            }
            // One that a detour is ready for never has an int3, which would kill the process if we
            // were killed.
            self.look_for_foreign(&mut point);
            let ready = self.injection.mapped();
            let ready = ready.is_some_and(|agent| agent.has(&point));
            if point.kind == Kind::Breakpoint && !ready && self.is_left_unwatched() {
                point.refusal = self.injection.refusal_from_now_on();
                point.kind = Kind::None(Reason::WouldTrap);
            } else if point.kind == Kind::Breakpoint && !ready {
                let entry = Purpose::Entry(point.function);
                if self.breakpoints.insert(point.address, entry).is_err() {
                    point.kind = Kind::None(Reason::Unwritable);
                } else {
                    point.refusal = self.injection.refusal_from_now_on();
                }
            }
            self.points.push(point);
        }
        // The dynamic linker's is there before any other.
        self.points.sort_by_key(|point| !point.known.is_of_heap());
        let is_open = |point: &Probepoint| point.kind == Kind::None(Reason::IfuncUnresolved);
        self.is_settled = self.modules.families().are_settled() && !self.points.iter().any(is_open);
        self.watch_sigtrap();
    }

    /// The functions of the modules as they are now, and room for the instructions that breakpoints
    /// there displace.
    pub(super) fn find(&mut self) -> Vec<Probepoint> {
        let image = self.modules.image();
        self.breakpoints.set_modules(image, &self.modules.staying());
        self.modules.look_for_families(&self.memory);
        self.note_unwatched();
        let mut points = self.probes();
        for point in &mut points {
            self.look_for_foreign(point);
        }
        points
    }

    pub(super) fn probes(&self) -> Vec<Probepoint> {
        let (image, families) = (self.modules.image(), self.modules.families().all());
        probepoint::find(image, families, &self.memory, self.functions())
    }

    fn note_unwatched(&mut self) {
        let image = self.modules.image();
        let families = self.modules.families().all().iter();
        let others = families.filter(|family| family.id.is_none());
        for text in others.map(|family| family.describe(image)) {
            if !self.unwatched.contains(&text) {
                self.unwatched.push(text);
            }
        }
    }

    /// Brings the modules up to date, and arms them.
    pub fn update(&mut self, files: &mut Files, stopped: &AllStopped<'_>) {
        self.look(files, Look::All);
        self.arm(stopped);
    }

    /// Brings the modules up to date.
    pub(super) fn look(&mut self, files: &mut Files, look: Look) {
        let Some(Found {
            added,
            gone,
            are_same,
        }) = self.modules.refresh(&self.memory, files, look)
        else {
            return;
        };
        self.found = None;
        let points = self.points.len();
        for gone in &gone {
            self.points.retain(|point| !gone.contains(&point.address));
            self.breakpoints.forget(gone);
        }
        self.breakpoints
            .add_modules(&added, &self.modules.staying());
        let is_other = |module: &Module| self.may_have_point(module);
        self.is_settled &= are_same && self.points.len() == points && !added.iter().any(is_other);
        if let Some(agent) = self.injection.agent_mut() {
            agent.modules_changed(self.modules.rules(), &gone);
        }
    }

    /// Whether `module` has functions that are no allocator's and are watched by their names.
    fn may_have_point(&self, module: &Module) -> bool {
        let others = self.functions().standard();
        let others = others.filter(|(_, known)| !known.is_of_heap());
        let names = others.map(|(_, known)| &*known.name);
        let mut names = names.chain(sigtrap::FUNCTIONS);
        names.any(|name| !module.file().functions(name).is_empty())
    }

    /// Restores every byte. [`Process::leave_slot`] has been asked of each thread.
    pub fn disarm(&mut self, recorder: &mut dyn Recorder, stopped: &AllStopped<'_>) {
        self.end_linking(stopped);
        self.breakpoints.restore(&self.memory, stopped);
        for (_, mut thread) in self.threads.drain() {
            abandon(&mut thread, self.injection.agent(), recorder);
        }
    }

    /// Restores every byte in the copy of this process that a fork made, and takes the agent's code
    /// away, which is all that it has of the agent. `thread` is the copy's only one, at its first
    /// stop.
    ///
    /// # Errors
    /// As for [`Process::unmap_agent`].
    pub fn disarm_copy(
        &mut self,
        memory: &Memory,
        tracer: &mut Tracer,
        thread: &mut Stopped,
    ) -> Result<(), Refusal> {
        let calls = self.copies.remove(&thread.tid());
        let mut stopped = AllStopped::only(thread);
        self.breakpoints.restore(memory, &stopped);
        if let Some(linking) = &self.linking {
            linking.restore(memory, &stopped);
        }
        if let Some(agent) = self.injection.agent() {
            agent.restore(memory, &stopped);
            // Else its code stays there, and only passes calls on.
            if calls.is_some_and(|calls| agent.leave_copy(&stopped, memory, &calls).is_ok()) {
                agent.unmap_code(tracer, &mut stopped)?;
            }
        }
        Ok(())
    }
}
