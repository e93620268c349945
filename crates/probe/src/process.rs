//! One traced address space: its modules, its probes, and what its threads are in the middle of.
//!
//! An allocation from its stop to the books: [`Process::trap`] takes a thread that has hit one of
//! our int3s, [`Process::entered`] notes the call, and when the thread gets to the return address
//! [`Process::returned`] walks its stack and tells the [`Recorder`].

mod departure;
mod injection;
mod linking;
mod mappings;
mod sigtrap;
mod swallowed;
mod thread;

use std::collections::HashMap;
use std::fs::File;

use leaktap_api::{Action, Entered, FunctionId, Functions, Place};
use leaktap_arch::{ARGUMENTS, breakpoint_before};
use leaktap_image::Module;
use leaktap_ledger::{FamilyId, Key};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{AllStopped, Memory, Registers, Stopped, Tid, Tracer};

use crate::agent::{Injection, Waker};
use crate::breakpoints::{Breakpoints, NoSlot, Purpose};
use crate::calls::{Call, Entry};
use crate::linking::Linking;
use crate::modules::{Files, Found, Look, Modules, is_linked};
use crate::outcome::Outcome;
use crate::probepoint::{self, Kind, Probepoint, Reason};
use crate::record::{Freed, Lost, Recorder};
use crate::refusal::Refusal;
use crate::stack::{self, Walker};
use crate::tails;

pub use departure::Departure;
use mappings::moment;
use sigtrap::Sigtrap;
use swallowed::Swallowed;
pub(crate) use thread::Undo;
use thread::{Free, Note, Thread, abandon, undo};

/// What starts a program, in each C library.
const START: &str = "__libc_start_main";

/// An address space under trace.
#[derive(Debug)]
pub struct Process {
    memory: Memory,
    modules: Modules,
    walker: Walker,
    points: Vec<Probepoint>,
    /// Those of the modules as they are, to be armed.
    found: Option<Vec<Probepoint>>,
    /// All that there is to be found is armed.
    is_settled: bool,
    breakpoints: Breakpoints,
    threads: HashMap<Tid, Thread>,
    /// See [`Process::never_trap`].
    never_traps: bool,
    /// See [`Process::has_been_late`].
    has_been_late: bool,
    /// Why a thread waits until we are gone.
    departure: Option<Departure>,
    injection: Injection,
    /// By what the end of its linking is awaited.
    linking: Option<Linking>,
    /// For the agent that is planned.
    waker: Option<Waker>,
    /// Slots of a tracer that was killed.
    left: Vec<tails::Left>,
    /// Of the threads, by which the agent knows them.
    fs_bases: HashMap<Tid, u64>,
    /// Of those that share one, by which the agent knows them then.
    numbers: HashMap<Tid, u64>,
    /// Of threads that fork, the calls that return to the agent, by the child.
    copies: HashMap<Tid, Vec<Addr>>,
    /// What the program does with SIGTRAP.
    sigtrap: Sigtrap,
    /// Functions whose int3s somebody else takes.
    swallowed: Swallowed,
    /// See [`Process::unwatched`].
    unwatched: Vec<String>,
    /// How many of them have been looked at for seccomp filters, in this round.
    looked_at: usize,
    /// How many calls had returned before there was an agent, which counts those that map memory.
    mapped: u64,
}

/// What a SIGTRAP turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// One of our breakpoints: the registers now step over it.
    StepOver,
    /// One of our breakpoints, but every slot is held by another thread: interrupt those that
    /// [`Process::holders`] names and ask [`Process::retry`] after each of their stops. Or
    /// [`Process::departure`].
    Wait,
    /// Not ours: the program's own.
    Foreign,
}

impl Process {
    /// Takes charge of the process of `memory`, whose modules are `modules`. Changes nothing yet.
    pub fn new(memory: Memory, modules: Modules, depth: usize) -> Process {
        Process {
            breakpoints: Breakpoints::new(memory.clone()),
            memory,
            modules,
            walker: Walker::new(depth),
            points: Vec::new(),
            found: None,
            is_settled: false,
            threads: HashMap::new(),
            never_traps: false,
            has_been_late: false,
            departure: None,
            injection: Injection::None,
            linking: None,
            waker: None,
            left: Vec::new(),
            fs_bases: HashMap::new(),
            numbers: HashMap::new(),
            copies: HashMap::new(),
            sigtrap: Sigtrap::default(),
            swallowed: Swallowed::default(),
            unwatched: Vec::new(),
            looked_at: 0,
            mapped: 0,
        }
    }

    /// The process's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// False if the process has executed another program since it was read: its memory is another
    /// one, too.
    pub fn is_current(&self) -> bool {
        let image = self.modules.image();
        let entry = image.entry();
        image.is_current() && (entry.is_null() || self.memory.read(entry, &mut [0]).is_ok())
    }

    /// The functions by their numbers.
    pub fn functions(&self) -> &Functions {
        self.modules.families().functions()
    }

    /// The process's modules.
    pub fn modules(&self) -> &Modules {
        &self.modules
    }

    /// The functions found, with how each is watched.
    pub fn probepoints(&self) -> &[Probepoint] {
        &self.points
    }

    /// Puts probes on all functions found. Of a program that is being linked there are none.
    pub fn arm(&mut self, _: &AllStopped<'_>) {
        self.arm_found();
    }

    /// The same when modules have changed, which is the one time that others may run: nobody has
    /// been in the code of the new ones, and each probe is one byte.
    fn arm_found(&mut self) {
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
    fn find(&mut self) -> Vec<Probepoint> {
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

    fn probes(&self) -> Vec<Probepoint> {
        let (image, families) = (self.modules.image(), self.modules.families().all());
        probepoint::find(image, families, &self.memory, self.functions())
    }

    /// Notes in `file` from now on where int3s are: see [`Change`](crate::Change).
    pub fn set_journal(&mut self, file: Option<File>) {
        self.breakpoints.set_journal(file);
    }

    /// Handles the SIGTRAP of `tid` if it comes from one of our breakpoints: tells `recorder` what
    /// the thread did and moves `registers` on, to a slot that does what the breakpoint displaced.
    pub fn trap(
        &mut self,
        tid: Tid,
        registers: &mut Registers,
        recorder: &mut dyn Recorder,
    ) -> Trap {
        let at = breakpoint_before(registers.ip());
        let Some(purposes) = self.breakpoints.purposes(at) else {
            if !self.breakpoints.was_here(at) {
                return Trap::Foreign;
            }
            registers.set_ip(at);
            return Trap::StepOver;
        };
        registers.set_ip(at);
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.free = None;
        }
        if let Some(function) = purposes.result {
            self.returned(tid, at, function, registers, recorder);
        }
        if let Some(function) = purposes.entry {
            self.entered(tid, function, registers, recorder);
        }
        self.retry(tid, registers)
    }

    /// Moves a thread at one of our breakpoints on to a slot, if one is free and the process need
    /// not be let go.
    pub fn retry(&mut self, tid: Tid, registers: &mut Registers) -> Trap {
        if self.departure.is_some() {
            return Trap::Wait;
        }
        let held = &mut self.threads.entry(tid).or_default().held;
        match self.breakpoints.step_over(registers.ip(), held) {
            Ok(slot) => {
                registers.set_ip(slot);
                Trap::StepOver
            }
            Err(NoSlot) => Trap::Wait,
        }
    }

    /// True if a thread that reports a SIGTRAP with its ip at `ip` need not have hit a breakpoint
    /// of ours: look at the signal's `si_code`.
    pub fn is_ambiguous(&self, ip: Addr) -> bool {
        self.breakpoints.is_ambiguous(breakpoint_before(ip))
    }

    /// True if the dynamic linker has mapped what the program needs, or there is none.
    pub fn is_linked(&self) -> bool {
        is_linked(self.modules.image(), &self.memory)
    }

    /// True of the breakpoint that the dynamic linker runs into when its list of modules changes.
    pub fn is_linker(&self, at: Addr) -> bool {
        let mut points = self.points.iter();
        let is_its = |point: &Probepoint| point.known.action == Action::CHANGE_MODULES;
        points.any(|point| point.address == at && is_its(point))
    }

    /// Brings modules and probes up to date if the dynamic linker's list is consistent. The thread
    /// that called the linker must be stopped; others may run.
    pub fn modules_changed(&mut self, files: &mut Files) {
        self.look_at_change(files, Look::Listed);
    }

    pub(crate) fn look_at_change(&mut self, files: &mut Files, look: Look) {
        if self.look_if_consistent(files, look) && !self.is_settled {
            self.arm_found();
        }
    }

    /// Brings modules alone up to date if that list is consistent.
    pub fn look_at_modules(&mut self, files: &mut Files) {
        self.look_if_consistent(files, Look::Listed);
    }

    fn look_if_consistent(&mut self, files: &mut Files, look: Look) -> bool {
        let is_consistent = self.modules.are_at_rest(&self.memory);
        if is_consistent {
            self.look(files, look);
        }
        is_consistent
    }

    /// A thread stopped for a reason of its own: if it is inside a slot, moves `registers` to the
    /// place in the program that this is, and returns true. So neither a signal frame nor a
    /// detached thread ever holds an address in a slot.
    pub fn leave_slot(
        &mut self,
        tid: Tid,
        registers: &mut Registers,
        recorder: &mut dyn Recorder,
    ) -> bool {
        if let Some(linking) = &self.linking
            && linking.leave(registers)
        {
            return true;
        }
        let Some(thread) = self.threads.get_mut(&tid) else {
            return false;
        };
        let moved = self.breakpoints.leave(&mut thread.held, registers);
        // Back at the entry of a free: it will be entered again.
        if moved
            && let Some(free) = thread.free
            && (free.entry, free.entry_sp) == (registers.ip(), registers.sp())
        {
            recorder.unfreed(free.freed);
            thread.free = None;
        }
        moved
    }

    /// Threads that may be inside a slot.
    pub fn holders(&self) -> impl Iterator<Item = Tid> + '_ {
        let held = self.threads.iter().filter(|(_, thread)| thread.held.any());
        held.map(|(&tid, _)| tid)
    }

    /// `tid` is gone: what it was in the middle of never happened.
    pub fn thread_gone(&mut self, tid: Tid, recorder: &mut dyn Recorder) {
        self.forget_fs_base(tid);
        self.copies.remove(&tid);
        self.forget_mask(tid);
        if let Some(mut thread) = self.threads.remove(&tid) {
            abandon(&mut thread, self.injection.agent(), recorder);
            self.breakpoints.release(&mut thread.held);
        }
    }

    /// The memory of the process is gone, with all that was in it: nothing is put back.
    pub fn gone(&mut self, recorder: &mut dyn Recorder) {
        if let Some(agent) = self.injection.agent() {
            agent.all_gone();
        }
        self.injection.forget();
        self.linking = None;
        self.breakpoints = Breakpoints::new(self.memory.clone());
        for (_, mut thread) in self.threads.drain() {
            abandon(&mut thread, self.injection.agent(), recorder);
        }
    }

    /// True if the process has a malloc that can be probed.
    pub fn finds_allocator(&self) -> bool {
        let families = self.modules.families().all().iter();
        let functions = families.flat_map(|family| &family.functions);
        let mut known = functions.filter(|member| member.code.addr().is_some());
        known.any(|member| !self.functions().frees(member.function))
    }

    /// Whether it is a static program that has no allocator: its symbols are there, and none of
    /// them allocates.
    pub fn has_none_to_find(&self) -> bool {
        let image = self.modules.image();
        let program = image.program().filter(|_| image.is_static());
        let has_names = |program: &Module| !program.file().functions(START).is_empty();
        program.is_some_and(has_names) && !self.finds_allocator()
    }

    /// The allocators that were found and are not watched, each with its name, its module and who
    /// uses it.
    pub fn unwatched(&self) -> &[String] {
        &self.unwatched
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
    fn look(&mut self, files: &mut Files, look: Look) {
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

    fn entered(
        &mut self,
        tid: Tid,
        function: FunctionId,
        registers: &Registers,
        recorder: &mut dyn Recorder,
    ) {
        let Some(action) = self.functions().action(function) else {
            return;
        };
        self.swallowed.entered(function);
        self.note_code(action, [0, 1, 2].map(|n| registers.argument(n)));
        let (family, is_told) = self.family_at(registers.ip());
        match action.shape() {
            Action::PROTECT => return self.protects(registers, recorder),
            Action::LOCK => {
                return self.look_for_departure(Action::LOCK, [registers.argument(0), 0, 0]);
            }
            Action::CHANGE_MODULES => return,
            _ if action.is_idle(registers.argument(2)) => return,
            _ => {}
        }
        let entry_sp = registers.sp();
        let Ok(ret) = self.memory.read_u64(entry_sp).map(Addr::new) else {
            return; // the call instruction has just written there: the thread is being killed
        };
        if self.modules.is_allocator(ret) {
            return;
        }
        let entered = self.made_by(action, family, registers, ret);
        let start = stack::caller(ret, entry_sp, registers.bp());
        if self.is_part_of_noted(action, registers, entered, start) {
            return;
        }
        let arguments: [u64; ARGUMENTS] = std::array::from_fn(|n| registers.argument(n));
        let call = Call {
            function,
            family,
            is_told,
            entry_sp,
            ret,
            action,
            arguments,
            begun: self.moment(),
            undo: Undo::default(),
        };
        let agent = self.injection.agent();
        let thread = self.threads.entry(tid).or_default();
        let rules = self.modules.rules();
        let mut callers = self.walker.callers(&self.memory, rules, start);
        let dead = |dead: Call<Undo>| undo(dead.undo, agent, recorder);
        if thread.calls.enter(entered, &call, &mut callers, dead) == Entry::Own {
            self.begin(tid, call, registers, recorder);
        }
    }

    /// Who has made a call that returns to `ret`. One from the program's own code is no allocator's
    /// doing, wherever the stack leads: but for memory that an allocator in that code asks for.
    fn made_by(
        &self,
        action: Action,
        family: FamilyId,
        registers: &Registers,
        ret: Addr,
    ) -> Entered {
        let is_inside = match action.is_mapping() {
            true => self.modules.is_system(ret) || self.is_beside_allocator(ret),
            false => self.modules.is_inside(family, ret),
        };
        let is_allocator = is_inside || self.modules.is_same(ret, registers.ip());
        Entered {
            place: Place {
                sp: registers.sp().get(),
                ret: ret.get(),
            },
            by_program: !is_allocator,
        }
    }

    /// A call of its own begins.
    fn begin(
        &mut self,
        tid: Tid,
        mut call: Call<Undo>,
        registers: &Registers,
        recorder: &mut dyn Recorder,
    ) {
        let Call { action, ret, .. } = call;
        let block = action.block(&call.arguments).map(Addr::new);
        if action.is_free() {
            let free = block.map(|block| self.free(block, &call, registers, recorder));
            let thread = self.threads.entry(tid).or_default();
            thread.free = free.map(|freed| Free::of(registers, freed));
            thread.calls.push(call);
            return;
        }
        if self
            .breakpoints
            .insert(ret, Purpose::Result(call.function))
            .is_err()
        {
            recorder.lost(Lost::ReturnUnprobed);
            return;
        }
        let agent = self.injection.agent().filter(|_| !action.is_mapping());
        call.undo.noted = agent.and_then(|agent| Note::of(agent, registers.fs_base(), &call));
        if action.shape() == Action::SET_BREAK {
            call.arguments[1] = self.modules.current_break(&self.memory);
        }
        call.undo.freed = block.map(|block| self.free(block, &call, registers, recorder));
        self.threads.entry(tid).or_default().calls.push(call);
    }

    /// `call`, which has just been entered, frees `block`.
    fn free(
        &mut self,
        block: Addr,
        call: &Call<Undo>,
        registers: &Registers,
        recorder: &mut dyn Recorder,
    ) -> Freed {
        let start = stack::caller(call.ret, call.entry_sp, registers.bp());
        let rules = self.modules.rules();
        let stack = match recorder.keeps_free_stacks() {
            true => Some(self.walker.walk(&self.memory, rules, start)),
            false => None,
        };
        let key = Key::new(call.family, block.get());
        let freed = recorder.freed(key, call.ret, stack);
        if let Freed::Unmatched(_) = freed {
            let stack = self.walker.walk(&self.memory, rules, start);
            recorder.misfreed(key, stack);
        }
        freed
    }

    /// The family of the function at `at`, and whether a user has told of it.
    fn family_at(&self, at: Addr) -> (FamilyId, bool) {
        let mut points = self.points.iter();
        let point = points.find(|point| point.address == at);
        point.map_or((FamilyId::FIRST, false), |point| {
            (point.family, point.is_told)
        })
    }

    /// True of code of a module in which a function of the heap is watched.
    fn is_beside_allocator(&self, at: Addr) -> bool {
        let mut points = self.points.iter();
        self.modules.image().module_at(at).is_some_and(|module| {
            points.any(|point| !point.known.action.is_mapping() && module.contains(point.address))
        })
    }

    fn returned(
        &mut self,
        tid: Tid,
        at: Addr,
        function: FunctionId,
        registers: &Registers,
        recorder: &mut dyn Recorder,
    ) {
        let Some(thread) = self.threads.get_mut(&tid) else {
            return;
        };
        let agent = self.injection.agent();
        let over = |dead: Call<_>| undo(dead.undo, agent, recorder);
        let Some(mut call) = thread.calls.returned(at, registers.sp(), over) else {
            return self.returned_unseen(function, at);
        };
        thread.free = None;
        let number = agent.and_then(|agent| agent.number(registers.fs_base()));
        let noted = number.and_then(|number| Some((agent?.outer(number)?, agent?.handed(number)?)));
        self.mapped += u64::from(agent.is_none());
        let moment = moment(self.mapped, agent);
        loop {
            call.undo.forget_note(agent);
            let start = stack::caller(at, call.entry_sp, registers.bp());
            let mut outcome = Outcome {
                memory: &self.memory,
                modules: &mut self.modules,
                walker: &mut self.walker,
                recorder,
                handed: thread.handed(noted),
                moment,
            };
            outcome.of(&call, registers.result(), start);
            thread.hand(outcome.handed, noted);
            self.breakpoints.returned(at);
            // What has jumped there returns with it.
            let over = |dead: Call<_>| undo(dead.undo, agent, recorder);
            match thread.calls.returned(at, registers.sp(), over) {
                Some(jumped) => call = jumped,
                None => return,
            }
        }
    }
}
