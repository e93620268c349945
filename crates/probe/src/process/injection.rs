//! Process and agent: how probes become detours, and are breakpoints again.

use std::collections::HashSet;
use std::sync::Arc;

use leaktap_agent::Shared;
use leaktap_api::Action;
use leaktap_memory::Addr;
use leaktap_tracee::{AllStopped, Tracer};

use super::Process;
use crate::agent::{self, Agent, Injection, Plan, Waker, Words};
use crate::breakpoints::{Breakpoints, Purpose};
use crate::modules::{Files, Look};
use crate::probepoint::{Kind, Probepoint, Reason};
use crate::record::Recorder;
use crate::refusal::Refusal;

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
