//! Process and agent: how probes become detours, and are breakpoints again.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;

use leaktap_agent::layout::{MARKS, NOTED, TAKEN, UNDER, key_of_number};
use leaktap_agent::{OPEN, SHUT, Shared};
use leaktap_api::{Action, Entered, Innermost, Nested, Place, Standing, State, standing};
use leaktap_arch::BREAKPOINT;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{AllStopped, Registers, Stopped, Tid, Tracer};
use leaktap_unwind::Start;

use super::Process;
use crate::agent::{self, Agent, Held, Injection, Plan, Remains, Waker, Words};
use crate::breakpoints::{Breakpoints, Purpose};
use crate::modules::{Files, Look};
use crate::probepoint::{Kind, Probepoint, Reason};
use crate::record::Recorder;
use crate::refusal::Refusal;
use crate::tails;

impl Process {
    /// Finds out which functions there are and which can be led to an agent, so that
    /// [`Process::map_agent`] and [`Process::arm`] need not while threads are stopped.
    pub fn plan(&mut self) {
        let points = self.find();
        let unpatched = self.breakpoints.unpatched();
        let (process, image) = (self.memory.process(), self.modules.image());
        let mut plan = Plan::new(process, image, &unpatched, &points);
        plan.place(image.mappings());
        self.injection = Injection::Planned(plan);
        self.waker = self.waker.take().or_else(Waker::stand_by);
        // What nothing has bound yet may be bound by then.
        let is_bound = |point: &Probepoint| point.kind == Kind::Breakpoint;
        self.found = Some(points).filter(|points| points.iter().all(is_bound));
    }

    /// The functions found, and how they would be watched with an agent, as far as can be told
    /// beforehand.
    pub fn foresee(&mut self) -> Vec<Probepoint> {
        let refused = self.injection.refusal();
        if !matches!(self.injection, Injection::Planned(_)) {
            self.plan();
        }
        let Injection::Planned(plan) = &self.injection else {
            return Vec::new();
        };
        let refused = refused.or_else(|| agent::refusal(self.memory.process(), plan));
        let mut points = plan.points.clone();
        for point in points.iter_mut().filter(|point| point.may_have_detour()) {
            point.refusal = refused.or(plan.refusal_of(point));
            if point.refusal.is_none() && plan.site(point.address).is_some() {
                point.kind = Kind::Detour;
            }
        }
        points
    }

    /// Gives the process memory for the agent. False if the probes are to stay breakpoints:
    /// [`Probepoint::refusal`] says why.
    pub fn map_agent(&mut self, tracer: &mut Tracer, stopped: &mut AllStopped<'_>) -> bool {
        if !matches!(self.injection, Injection::Planned(_)) {
            self.plan();
        }
        let Injection::Planned(plan) = std::mem::take(&mut self.injection) else {
            return false;
        };
        self.injection = match Agent::map(&self.memory, plan, tracer, stopped) {
            Ok(agent) => Injection::Mapped(agent),
            Err(refusal) => Injection::Refused(refusal),
        };
        self.injection.mapped().is_some()
    }

    /// The probes are to stay breakpoints, unless it is known already why.
    pub fn refuse(&mut self, refusal: Refusal) {
        if self.injection.refusal().is_none() {
            self.injection = Injection::Refused(refusal);
        }
    }

    /// Fills the agent's memory, and looks for new modules once more; the threads may run.
    pub fn fill_agent(&mut self, files: &mut Files) {
        let depth = self.walker.depth();
        self.injection = match std::mem::take(&mut self.injection) {
            Injection::Mapped(mut agent) => match agent.fill(&mut self.modules, depth) {
                Ok(()) => Injection::Mapped(agent),
                Err(refusal) => Injection::Unfit(agent, refusal),
            },
            other => other,
        };
        self.look(files, Look::All);
    }

    /// Leads the functions that are armed to the agent. No thread is in the middle of a call.
    /// Returns where the agent keeps the books from now on; nothing if the probes stay breakpoints.
    pub fn lead_to_agent(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut AllStopped<'_>,
    ) -> Option<Arc<Shared>> {
        let led = match std::mem::take(&mut self.injection) {
            Injection::Mapped(agent) => self.lead_if_safe(agent, tracer, stopped),
            Injection::Unfit(mut agent, refusal) => {
                agent.unmap_all(tracer, stopped);
                Err(refusal)
            }
            Injection::Refused(refusal) => Err(refusal),
            other => {
                self.injection = other;
                return None;
            }
        };
        self.note_refusals(led.as_ref().map_err(|refusal| *refusal).map(Agent::plan));
        if self.never_traps {
            self.lift_all(stopped);
        }
        let shared = led.as_ref().ok().map(Agent::shared);
        self.injection = led.map_or_else(Injection::Refused, Injection::Leading);
        self.watch_sigtrap();
        self.unwatch_sigtrap(stopped);
        shared
    }

    /// Leaves unwatched what no detour can be had for, from when that is known on: until a launched
    /// program has been linked, it has int3s.
    pub fn never_trap(&mut self) {
        self.never_traps = true;
    }

    /// Whether a function that has no detour now will have no probe.
    pub(super) fn is_left_unwatched(&self) -> bool {
        let is_settled = self.injection.agent().is_some() || self.injection.refusal().is_some();
        self.never_traps && is_settled
    }

    /// No function has an int3 any longer.
    fn lift_all(&mut self, stopped: &AllStopped<'_>) {
        for point in self
            .points
            .iter_mut()
            .filter(|point| point.may_have_detour())
        {
            self.breakpoints.lift(point.address, stopped);
            point.kind = Kind::None(Reason::WouldTrap);
        }
    }

    /// Says of each function of the heap that stays a breakpoint why: as `led` does for all of
    /// them, or by the plan of the agent that is there.
    fn note_refusals(&mut self, led: Result<&Plan, Refusal>) {
        let heap = self.points.iter_mut();
        for point in heap.filter(|point| point.may_have_detour()) {
            point.refusal = match led {
                Err(refusal) => Some(refusal),
                // What came of it goes before what was planned.
                Ok(plan) => point.refusal.or_else(|| plan.refusal_of(point)),
            };
        }
    }

    /// As `lead`, unless a thread sleeps nobody knows where, or all memory is locked by
    /// now: what is reserved would count, and be filled by the next such call.
    fn lead_if_safe(
        &mut self,
        mut agent: Agent,
        tracer: &mut Tracer,
        stopped: &mut AllStopped<'_>,
    ) -> Result<Agent, Refusal> {
        let asleep = stopped.asleep().iter();
        let asleep_at: Option<Vec<_>> = asleep.map(|thread| thread.asleep_at()).collect();
        let refusal = match asleep_at {
            None => Refusal::ThreadInRegion,
            Some(_) if agent.is_locked() => Refusal::MemoryLocked,
            Some(asleep_at) => return self.lead(agent, tracer, stopped, &asleep_at),
        };
        agent.unmap_all(tracer, stopped);
        Err(refusal)
    }

    /// Leads functions to `agent`; takes it away again if it is of no use then.
    fn lead(
        &mut self,
        mut agent: Agent,
        tracer: &mut Tracer,
        stopped: &mut AllStopped<'_>,
        asleep_at: &[(Addr, Addr)],
    ) -> Result<Agent, Refusal> {
        let awake = stopped.threads().iter();
        let awake = awake.filter_map(|thread| thread.registers().ok());
        let places = awake.map(|now| (now.sp(), now.ip()));
        let asleep = asleep_at.iter().copied();
        let mut returned_to: Vec<Addr> = asleep.clone().map(|(_, ip)| ip).collect();
        let (mut words, replaced) = (Words::new(&self.memory), agent.replaced());
        for (sp, _) in places.chain(asleep) {
            let words = words.above(sp);
            returned_to.extend(words.filter(|word| replaced.contains(*word)));
        }
        agent.modules_changed(self.modules.rules(), &[]);
        for at in agent.keep(&self.points) {
            self.breakpoints.lift(at, stopped); // there is one at a launch
        }
        let patched = agent.patch(stopped, &returned_to, self.modules.image().mappings());
        let failed = (!agent.is_of_use()).then(|| {
            let of_heap = self.points.iter().filter(|point| point.known.is_of_heap());
            let of_heap: HashSet<_> = of_heap.map(|point| point.address).collect();
            let mut of_heap = patched.iter().filter(|(at, _)| of_heap.contains(at));
            // Nothing is there any longer that could be patched.
            of_heap
                .find_map(|(_, done)| done.err())
                .unwrap_or(Refusal::LinkerAtWork)
        });
        if failed.is_some() {
            agent.restore(&self.memory, stopped);
        }
        for (address, done) in patched {
            let mut points = self.points.iter_mut();
            if let Some(point) = points.find(|point| point.address == address) {
                let done = failed.map_or(done, Err);
                become_detour(point, done, &mut self.breakpoints);
            }
        }
        agent.sees_closing(all_closing_have_detours(&self.points));
        if let Some(refusal) = failed {
            for code in agent.codes() {
                self.modules.rules().remove(code.clone());
            }
            agent.unmap_all(tracer, stopped);
            return Err(refusal);
        }
        agent.serve(self.waker.take());
        self.breakpoints.note_presence(agent.served_at(), true);
        self.walker.hide(agent.codes());
        for thread in stopped.threads() {
            if let Ok(registers) = thread.registers() {
                let fs = registers.fs_base();
                if self.fs_bases.values().any(|other| *other == fs) {
                    agent.share_state(fs);
                }
                self.fs_bases.insert(thread.tid(), fs);
            }
        }
        Ok(agent)
    }

    /// Why there is no agent, where one was asked for.
    pub fn refused(&self) -> Option<Refusal> {
        self.injection.refusal()
    }

    /// Whether a tracer that was killed has left an agent in the process.
    pub fn remains(&self) -> Remains {
        self.remains_seen_by(self.memory.process())
    }

    /// The same as a thread of it sees it, which lives: the leader may have ended.
    pub fn remains_seen_by(&self, thread: Tid) -> Remains {
        agent::remains(&self.memory, thread)
    }

    /// Whether int3s of a tracer that was killed are still there: the one that stands by takes them
    /// out.
    pub fn has_foreign_breakpoints(&self) -> bool {
        let image = self.modules.image();
        let points = self.probes();
        let mut all = points.iter().map(|point| point.address);
        let of_signals = super::sigtrap::FUNCTIONS.iter();
        let mut of_signals =
            of_signals.filter_map(|name| image.resolve(name, &self.memory)?.code.addr());
        all.any(|at| self.is_foreign(at)) || of_signals.any(|at| self.is_foreign(at))
    }

    /// Whether an int3 is at `at` that neither we have set, nor whoever built the file.
    pub(super) fn is_foreign(&self, at: Addr) -> bool {
        let mut now = [0];
        let in_file = || {
            let module = self.modules.image().module_at(at)?;
            let bytes = module.file().bytes_at(module.svma(at), 1)?;
            bytes.first().copied()
        };
        self.breakpoints.purposes(at).is_none()
            && self.memory.read(at, &mut now).is_ok()
            && now == [BREAKPOINT]
            && in_file() != Some(BREAKPOINT)
    }

    /// There is no probe where somebody else's int3 is.
    pub(super) fn look_for_foreign(&self, point: &mut Probepoint) {
        if point.kind == Kind::Breakpoint && self.is_foreign(point.address) {
            point.kind = Kind::None(Reason::ForeignBreakpoint);
        }
    }

    /// Looks for instructions that a tracer which was killed has moved to unused bytes, while the
    /// process runs.
    pub fn look_for_slots(&mut self) {
        self.left = tails::left(self.modules.image(), &self.memory);
    }

    /// Puts back what was there. Before [`Process::arm`], which takes what is there now for what is
    /// to be put back at the end.
    pub fn restore_slots(&mut self, stopped: &AllStopped<'_>) {
        for left in std::mem::take(&mut self.left) {
            left.restore(&self.memory, stopped);
        }
    }

    /// Takes charge of that agent, to be taken out by [`Process::withdraw`]. False if it is not
    /// known well enough for that.
    pub fn adopt_remains(&mut self) -> bool {
        let agent = Agent::adopt(&self.memory, &mut self.modules);
        self.injection = agent.map_or(Injection::None, Injection::Leading);
        self.injection.agent().is_some()
    }

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

    /// A thread with registers `parent` makes `child`, a process with a copy of the memory: notes
    /// which of its calls would return to the agent there, for [`Process::disarm_copy`].
    pub fn copy_begins(&mut self, parent: &Registers, child: Tid) {
        if let Some(agent) = self.injection.agent()
            && let Some(calls) = agent.calls_of(parent.fs_base())
        {
            self.copies.insert(child, calls);
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

    /// Tells `recorder` of what the agent has noted, and brings modules and probes up to date where
    /// it has told that the dynamic linker changes them. The thread that has told waits for that,
    /// and goes on unless there is a [departure](Process::departure).
    pub fn look_for_changes(&mut self, files: &mut Files, recorder: &mut dyn Recorder) {
        let change = self.injection.agent().and_then(Agent::change);
        self.read_mappings(recorder);
        if let Some(change) = change.filter(|_| self.departure.is_none()) {
            let agent = self.injection.agent();
            let is_next = agent.is_some_and(|agent| agent.is_next(change));
            let look = if is_next { Look::Listed } else { Look::All };
            self.look_at_change(files, look);
            if let Some(agent) = self.injection.agent_mut() {
                self.has_been_late |= !agent.has_seen(change);
            }
        }
    }

    /// Whether a thread has waited for that in vain, and gone on before.
    pub fn has_been_late(&self) -> bool {
        self.has_been_late
    }

    /// A thread begins: it is stopped, and its registers are these.
    pub fn thread_begins(&mut self, tid: Tid, registers: &Registers) {
        if let Some(agent) = self.injection.agent_mut() {
            agent.thread_begins(registers);
            self.fs_bases.insert(tid, registers.fs_base());
        }
    }

    /// Others run at the same time as `tid`, with its fs base: the agent cannot tell them apart.
    pub fn share_fs_base(&mut self, tid: Tid) {
        if let Some((agent, fs)) = self.injection.agent().zip(self.fs_bases.get(&tid)) {
            agent.share_state(*fs);
            let number = tid.in_its_namespace().cast_unsigned();
            self.numbers.insert(tid, key_of_number(number));
        }
    }

    /// The agent need not know a thread any longer that has ended, unless another one has the same
    /// fs base.
    pub(super) fn forget_fs_base(&mut self, tid: Tid) {
        let Some(fs) = self.fs_bases.remove(&tid) else {
            return;
        };
        let number = self.numbers.remove(&tid);
        let Some(agent) = self.injection.agent() else {
            return;
        };
        number.into_iter().for_each(|key| agent.thread_gone(key));
        match self.fs_bases.values().filter(|other| **other == fs).count() {
            0 => agent.thread_gone(fs),
            1 => agent.unshare_state(fs),
            _ => {}
        }
        if self.fs_bases.is_empty() {
            agent.all_gone();
        }
    }

    /// Time passes: the program may have installed a seccomp filter, which might kill it for a
    /// system call that it does not make itself. A few threads are looked at each time.
    pub fn look_for_filters(&mut self) {
        /// Each takes some 20 µs.
        const THREADS: usize = 8;
        let Some(agent) = self.injection.agent() else {
            return;
        };
        let from = self.looked_at % self.fs_bases.len().max(1);
        self.looked_at = from + THREADS;
        let mut threads = self.fs_bases.keys().skip(from).take(THREADS);
        if threads.any(|thread| thread.is_filtered()) {
            agent.allow_system_calls(false);
        }
    }

    /// Tells the agent what a call is about to unmap. True if the call is part of one that the
    /// agent has noted.
    pub(super) fn is_part_of_noted(
        &mut self,
        action: Action,
        registers: &Registers,
        entered: Entered,
        start: Start,
    ) -> bool {
        let Some(agent) = self.injection.agent_mut() else {
            return false;
        };
        if action.unmaps(registers.argument(3)) {
            let start = Addr::new(registers.argument(0));
            let end = start.checked_add(registers.argument(1)).unwrap_or(start);
            agent.unmapping(&(start..end));
        }
        let number = agent.number(registers.fs_base());
        let outer = number.and_then(|number| agent.outer(number));
        let outer = outer.map_or(0, |outer| outer.load(Acquire));
        // What breakpoints have noted there is among the calls here, too.
        outer != 0 && outer & NOTED == 0 && self.is_inside(outer, entered, start)
    }

    /// Whether what is `entered`, and goes on at `start`, is part of a call that the agent has
    /// noted with `outer`.
    fn is_inside(&mut self, outer: u64, entered: Entered, start: Start) -> bool {
        let sp = outer & !MARKS;
        let Ok(ret) = self.memory.read_u64(Addr::new(sp)) else {
            return false;
        };
        let innermost = Innermost {
            place: Place { sp, ret },
            state: match outer & TAKEN {
                0 => State::Runs,
                UNDER => State::Under,
                _ => State::Busy,
            },
            may_jump: false,
            is_foreign: false,
        };
        let is_call = |place| place == innermost.place;
        let rules = self.modules.rules();
        let mut callers = self.walker.callers(&self.memory, rules, start);
        let found = standing(
            entered,
            innermost,
            is_call,
            None::<&mut Nested<0>>,
            &mut callers,
        );
        matches!(found, Standing::PartOf(_))
    }
}

/// Whether the agent sees all calls by which a page that was readable may cease to be.
fn all_closing_have_detours(points: &[Probepoint]) -> bool {
    const CLOSING: [Action; 5] = [
        Action::MAP,
        Action::UNMAP,
        Action::REMAP,
        Action::PROTECT,
        Action::GIVE_BACK,
    ];
    let mut mapping = points
        .iter()
        .filter(|point| point.known.action.is_mapping());
    let has = |action| {
        let mut points = points.iter();
        points.any(|point| point.known.action.shape() == action)
    };
    CLOSING.into_iter().all(has) && mapping.all(|point| point.kind == Kind::Detour)
}

/// `point` has been patched, or not: it is a breakpoint then.
fn become_detour(
    point: &mut Probepoint,
    patched: Result<(), Refusal>,
    breakpoints: &mut Breakpoints,
) {
    let function = point.function;
    point.refusal = patched.err();
    if patched.is_ok() {
        point.kind = Kind::Detour;
    } else if breakpoints
        .insert(point.address, Purpose::Entry(function))
        .is_err()
    {
        point.kind = Kind::None(Reason::Unwritable);
    }
}
