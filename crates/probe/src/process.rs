//! One traced address space: its modules, its probes, and what its threads are in the middle of.
//!
//! An allocation from its stop to the books: [`Process::trap`] takes a thread that has hit one of
//! our int3s, [`Process::entered`] notes the call, and when the thread gets to the return address
//! [`Process::returned`] walks its stack and tells the [`Recorder`].

mod arming;
mod calls;
mod departure;
mod injection;
mod known;
mod linking;
mod mappings;
mod remains;
mod sigtrap;
mod swallowed;
mod thread;
mod withdrawal;

use std::collections::HashMap;
use std::fs::File;

use leaktap_api::{Action, Functions};
use leaktap_arch::breakpoint_before;
use leaktap_image::Module;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{Memory, Registers, Tid};

use crate::agent::{Injection, Waker};
use crate::breakpoints::{Breakpoints, NoSlot};
use crate::linking::Linking;
use crate::modules::{Files, Look, Modules, is_linked};
use crate::probepoint::Probepoint;
use crate::record::Recorder;
use crate::stack::Walker;
use crate::tails;

pub use departure::Departure;
use sigtrap::Sigtrap;
use swallowed::Swallowed;
pub(crate) use thread::Undo;
use thread::{Thread, abandon};

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
}
