//! The event loop: waits for the stops of all threads, hands them to the target, lets them go on.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use leaktap_memory::{Addr, ReadMemory};
use leaktap_probe::Trap;
use leaktap_tracee::{
    Attached, Died, Event, Memory, Registers, Running, Signal, Stop, Stopped, Tid, Tracer,
    has_run_out,
};

use crate::observer::Observer;
use crate::orders::{OnSignal, Orders};
use crate::overhead::Overhead;
use crate::target::{Exit, Target};

mod end;

use end::EndStop;

/// Looks at the tracee before the tracer sleeps: a wake-up across cores costs more than these.
const SPINS: u32 = 100;

/// Numbers of system calls, and CLONE_VM, clone(2).
const SYS_CLONE: u64 = 56;
const SYS_CLONE3: u64 = 435;
const SYS_EXIT: u64 = 60;
const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_SETTLS: u64 = 0x8_0000;

/// A trace under way.
pub(crate) struct Tracing<'a> {
    pub(crate) tracer: Tracer,
    pub(crate) target: &'a mut Target,
    pub(crate) tasks: HashMap<Tid, Task>,
    /// Announced by their parent, not yet seen.
    pub(crate) expected: HashMap<Tid, Child>,
    /// Seen, not yet announced.
    pub(crate) unborn: HashMap<Tid, Stopped>,
    /// Made with the fs base of their maker, which runs on: they cannot be told apart by it.
    pub(crate) fs_shared: HashSet<Tid>,
    /// At a breakpoint, waiting for a slot.
    pub(crate) parked: Vec<Stopped>,
    /// In a group-stop, as by Ctrl-Z.
    is_stopped: bool,
    overhead: Overhead,
    end_stop: EndStop,
}

/// A tracee in the target's memory.
pub(crate) struct Task {
    pub(crate) running: Option<Running>,
    /// In a system call that cannot be stopped: vfork(2), a dead file server. Or ended, though
    /// others live on.
    pub(crate) unstoppable: bool,
    /// So it was seen to sleep: somewhere, perhaps in the agent.
    pub(crate) asleep: bool,
    /// A child that shares the target's memory until it calls exec or exits.
    pub(crate) child: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Child {
    /// A thread of the target.
    Thread,
    /// A process in the target's memory: of vfork(2), posix_spawn(3).
    SharesMemory,
    /// A process with a copy of the target's memory: of fork(2).
    Copy,
}

impl<'a> Tracing<'a> {
    /// Starts from threads that are all stopped, and lets them run; those that are late will stop
    /// as soon as they leave an uninterruptible system call.
    pub(crate) fn start(tracer: Tracer, target: &'a mut Target, attached: Attached) -> Tracing<'a> {
        let mut tracing = Tracing {
            tracer,
            target,
            tasks: HashMap::new(),
            expected: HashMap::new(),
            unborn: HashMap::new(),
            fs_shared: HashSet::new(),
            parked: Vec::new(),
            is_stopped: false,
            overhead: Overhead::new(None, Instant::now()),
            end_stop: EndStop::default(),
        };
        let is_child = |tid: Tid| attached.sharers.contains(&tid);
        for thread in &attached.stopped {
            tracing.add(thread.tid(), is_child(thread.tid()));
        }
        for thread in attached.late {
            tracing.add(thread.tid(), is_child(thread.tid()));
            tracing.running(thread);
        }
        for thread in attached.stopped {
            match thread.stop() {
                // The target was read and armed after this exec.
                Stop::Exec { .. } if !tracing.is_child(thread.tid()) => {
                    let _ = tracing.resume(thread); // killed: its end is reported
                }
                _ => tracing.on_stop(thread),
            }
        }
        tracing
    }

    /// Traces until the target ends or has to be let go, and detaches.
    pub(crate) fn run(mut self, orders: &mut Orders<'_>, observer: &mut dyn Observer) {
        let mut must_leave = false;
        self.overhead = Overhead::new(orders.max_overhead, Instant::now());
        while self.target.exit.is_none() && !self.tasks.is_empty() {
            if orders.is_over() || orders.is_told_to_end(self.target) {
                break;
            }
            let event = self.tracer.wait(SPINS);
            self.target.pass_time();
            if self.target.process().departure().is_some() {
                // A thread waits for that, and must not go on before, not even for a signal.
                self.tracer.keep(event);
                must_leave = true;
                break;
            }
            match event {
                Event::NoChildren => break,
                event => self.on_event(event),
            }
            if self.is_stopped {
                orders.stop_with_job();
            }
            self.ask_leader();
            must_leave = self.must_leave();
            if must_leave {
                break;
            }
            observer.sampled(&|| self.target.progress());
        }
        self.detach();
        // The program that was launched runs on by itself.
        let has_left = must_leave && orders.on_signal == OnSignal::PassOn;
        while has_left && self.target.exit.is_none() {
            if orders.is_told_to_end(self.target) {
                break;
            }
            orders.stop_with_job();
            match self.tracer.wait(0) {
                Event::NoChildren => break,
                event => drop(self.goes_on(None, event)),
            }
        }
    }

    /// Whether the target has to be let go for its own sake.
    fn must_leave(&mut self) -> bool {
        let excess = self.overhead.excess(Instant::now());
        if let Some(excess) = excess {
            self.target.was_too_slow(excess);
        }
        let has_run_out = has_run_out();
        if has_run_out {
            self.target.note_shortage();
        }
        excess.is_some() || has_run_out || self.target.process().departure().is_some()
    }

    pub(crate) fn on_event(&mut self, event: Event) {
        match event {
            Event::Stopped(stopped) => self.on_stop(stopped),
            Event::Exited { tid, code } => self.gone(tid, Exit::Code(code)),
            Event::Killed { tid, signal, .. } => self.gone(tid, Exit::Signal(signal.number())),
            Event::Interrupted | Event::NoChildren => {}
        }
        self.retry_parked();
    }

    fn on_stop(&mut self, stopped: Stopped) {
        let tid = stopped.tid();
        if !self.tasks.contains_key(&tid) {
            match self.expected.remove(&tid) {
                Some(child) => self.born(stopped, child),
                None => {
                    self.unborn.insert(tid, stopped);
                }
            }
            return;
        }
        self.is_awake(tid);
        if !self.is_child(tid) {
            self.is_stopped = matches!(stopped.stop(), Stop::Group(_));
        }
        // What fails here is that the thread has been killed, which wait() reports next.
        let _ = match stopped.stop() {
            Stop::Signal(Signal::TRAP) => self.on_trap(stopped),
            Stop::Signal(_) => self.on_signal(stopped),
            Stop::Clone(child) => self.on_new(stopped, child, Child::Thread),
            Stop::Fork(child) => self.on_new(stopped, child, Child::Copy),
            Stop::Vfork(child) => {
                if let Some(task) = self.tasks.get_mut(&tid) {
                    task.unstoppable = true;
                }
                self.on_new(stopped, child, Child::SharesMemory)
            }
            Stop::VforkDone(_) => {
                if let Some(task) = self.tasks.get_mut(&tid) {
                    task.unstoppable = false;
                }
                self.resume(stopped)
            }
            Stop::Exec { .. } => self.on_exec(stopped),
            Stop::Exit { .. } => self.on_end(stopped),
            Stop::SystemCall => self.on_call(stopped),
            Stop::Group(_) | Stop::Interrupt => self.resume(stopped),
        };
    }

    /// One of our int3s, or a SIGTRAP of the program's own.
    fn on_trap(&mut self, mut stopped: Stopped) -> Result<(), Died> {
        let begun = self.overhead.begin();
        let tid = stopped.tid();
        let mut registers = stopped.registers()?;
        let process = self.target.process();
        if process.is_ambiguous(registers.ip())
            && !is_int3(&stopped)?
            && !process.blocks_sigtrap(&stopped)
        {
            return self.on_signal(stopped);
        }
        let at = registers.ip().wrapping_offset(-1);
        let trap = self.target.trap(tid, &mut registers);
        match trap {
            Trap::Foreign => return self.on_signal(stopped),
            Trap::StepOver | Trap::Wait => stopped.set_registers(&registers)?,
        }
        // A process that only shares the memory has handlers of its own.
        if !self.is_child(tid) {
            let (tracer, target) = (&mut self.tracer, &mut self.target);
            target.keep_sigtrap(tracer, &mut stopped, at, &registers);
        }
        let is_linker = self.target.process().is_linker(at);
        if is_linker && self.is_alone() && trap == Trap::StepOver {
            return self.on_linked(stopped);
        }
        if is_linker {
            self.target.modules_changed();
        }
        if trap == Trap::Wait {
            self.parked.push(stopped);
            self.interrupt_holders();
            return Ok(());
        }
        self.look_at_end_of(&stopped);
        let running = stopped.resume_without()?;
        self.running(running);
        // What the linker has loaded is read once, and counts no call.
        self.overhead.add(begun.filter(|_| !is_linker));
        Ok(())
    }

    /// The only thread of a program that is being linked makes a system call: perhaps that which
    /// says that it is linked now.
    fn on_call(&mut self, mut stopped: Stopped) -> Result<(), Died> {
        if !self.target.process().is_linked_at(&stopped.registers()?) {
            return self.resume(stopped);
        }
        self.tracer.swallow(&mut stopped)?;
        self.target.return_from_link(&stopped)?;
        self.target.end_linking();
        match self.is_alone() {
            true => self.target.inject(&mut self.tracer, &mut stopped),
            false => self.target.modules_changed(),
        }
        self.on_stop(stopped);
        Ok(())
    }

    /// Whether it has one thread alone, as it has to for an agent while it runs.
    fn is_alone(&self) -> bool {
        self.tasks.len() == 1 && self.unborn.is_empty() && self.expected.is_empty()
    }

    /// The only thread has been moved on from an int3, and its program may be linked now. It waits
    /// for the agent where it goes on by itself should we be killed.
    fn on_linked(&mut self, mut stopped: Stopped) -> Result<(), Died> {
        self.tracer.swallow(&mut stopped)?;
        self.target.inject(&mut self.tracer, &mut stopped);
        self.on_stop(stopped);
        Ok(())
    }

    /// A signal about to be delivered: its frame must not hold an address of a slot, or of the
    /// agent.
    fn on_signal(&mut self, mut stopped: Stopped) -> Result<(), Died> {
        self.target.leave_for_signal(&mut self.tracer, &mut stopped);
        let mut registers = stopped.registers()?;
        if self.target.leave_slot(stopped.tid(), &mut registers) {
            stopped.set_registers(&registers)?;
        }
        self.resume(stopped)
    }

    fn on_new(&mut self, stopped: Stopped, child: Tid, kind: Child) -> Result<(), Died> {
        let kind = self.kind(&stopped, child, kind)?;
        match kind {
            Child::Copy => self.target.copy_begins(&stopped, child),
            Child::Thread | Child::SharesMemory => self.target.arm_unlinked(),
        }
        self.target.inherits_mask(child, stopped.tid());
        if let Some(first_stop) = self.unborn.remove(&child) {
            self.born(first_stop, kind);
        } else if !self.tasks.contains_key(&child) && self.tracer.has(child) {
            self.expected.insert(child, kind);
        }
        self.resume(stopped)
    }

    /// What `child` is, which its parent announces in a stop named after the signal that tells of
    /// its end: clone(2) can make others than fork, vfork and a thread.
    pub(crate) fn kind(
        &mut self,
        parent: &Stopped,
        child: Tid,
        named: Child,
    ) -> Result<Child, Died> {
        let flags = clone_flags(&parent.registers()?, self.target.process().memory());
        // The parent of a vfork(2) waits for its child.
        let fs_shared = |flags: u64| flags & (CLONE_VM | CLONE_VFORK | CLONE_SETTLS) == CLONE_VM;
        if flags.is_some_and(fs_shared) {
            self.fs_shared.insert(child);
        }
        Ok(match flags {
            Some(_) if named == Child::Thread && self.is_beside(child, parent.tid()) => {
                Child::Thread
            }
            Some(flags) if flags & CLONE_VM != 0 => Child::SharesMemory,
            Some(_) => Child::Copy,
            None => named,
        })
    }

    /// Whether `child` is a thread of the process of `parent`.
    fn is_beside(&self, child: Tid, parent: Tid) -> bool {
        match self.is_child(parent) {
            false => child.is_of(self.target.tid()),
            true => parent.process().is_some_and(|process| child.is_of(process)),
        }
    }

    /// A new thread or process at its first stop, before it has run.
    fn born(&mut self, stopped: Stopped, child: Child) {
        let tid = stopped.tid();
        if child == Child::Copy {
            self.target.release_copy(&mut self.tracer, stopped);
            return;
        }
        self.add(tid, child == Child::SharesMemory);
        self.begins(&stopped);
        if self.fs_shared.remove(&tid) {
            self.target.share_fs_base(tid);
        }
        self.on_stop(stopped);
    }

    /// A new thread is at its first stop.
    pub(crate) fn begins(&mut self, stopped: &Stopped) {
        let _ = self.tracer.is_born(stopped); // fails if it has been killed
        self.target.thread_begins(stopped);
    }

    fn on_exec(&mut self, mut stopped: Stopped) -> Result<(), Died> {
        let tid = stopped.tid();
        if self.is_child(tid) {
            self.tasks.remove(&tid);
            self.target.release_replaced(stopped);
            return Ok(());
        }
        self.leave_former_memory();
        self.add(tid, false);
        self.target.exec(&mut self.tracer, &mut stopped);
        self.set_end_of(&stopped);
        self.target
            .ask_sigtrap(&mut self.tracer, &mut [&mut stopped]);
        self.resume(stopped)
    }

    fn gone(&mut self, tid: Tid, exit: Exit) {
        self.expected.remove(&tid);
        self.unborn.remove(&tid);
        self.fs_shared.remove(&tid);
        self.parked.retain(|stopped| stopped.tid() != tid);
        let was_task = self.tasks.remove(&tid).is_some();
        if was_task {
            self.target.thread_gone(tid);
        }
        // Of a leader that had ended before the trace nothing is reported.
        let lives = !self.expected.is_empty() || self.tasks.values().any(|task| !task.child);
        if tid == self.target.tid() || was_task && !lives {
            self.target.exit = Some(exit);
        }
    }

    fn retry_parked(&mut self) {
        for stopped in std::mem::take(&mut self.parked) {
            let Ok(mut registers) = stopped.registers() else {
                continue;
            };
            if self.target.retry(stopped.tid(), &mut registers) == Trap::Wait {
                self.parked.push(stopped);
            } else if stopped.set_registers(&registers).is_ok()
                && let Ok(running) = stopped.resume_without()
            {
                self.running(running);
            }
        }
    }

    fn interrupt_holders(&mut self) {
        for tid in self.target.process().holders() {
            if let Some(running) = self.tasks.get(&tid).and_then(|task| task.running.as_ref()) {
                let _ = running.interrupt(); // fails for one that has died: it holds nothing
            }
        }
    }

    pub(crate) fn is_child(&self, tid: Tid) -> bool {
        self.tasks.get(&tid).is_some_and(|task| task.child)
    }

    pub(crate) fn resume(&mut self, stopped: Stopped) -> Result<(), Died> {
        self.look_at_end_of(&stopped);
        // Whoever stops is out of its slot now, or is moved out: others may wait for it.
        if !self.parked.is_empty() {
            let mut registers = stopped.registers()?;
            if self.target.leave_slot(stopped.tid(), &mut registers) {
                stopped.set_registers(&registers)?;
            }
        }
        let running = self.go_on(stopped)?;
        self.running(running);
        Ok(())
    }

    /// Lets it go on, while its program is linked from system call to system call.
    pub(crate) fn go_on(&self, stopped: Stopped) -> Result<Running, Died> {
        let is_linking = self.target.process().is_linking();
        match is_linking && stopped.tid() == self.target.tid() {
            true => stopped.resume_to_call(),
            false => stopped.resume(),
        }
    }

    /// A thread has stopped that was not waited for any longer.
    pub(crate) fn is_awake(&mut self, tid: Tid) {
        if let Some(task) = self.tasks.get_mut(&tid).filter(|task| task.asleep) {
            (task.asleep, task.unstoppable) = (false, false);
        }
    }

    pub(crate) fn add(&mut self, tid: Tid, child: bool) {
        self.tasks.insert(
            tid,
            Task {
                running: None,
                unstoppable: false,
                asleep: false,
                child,
            },
        );
    }

    fn running(&mut self, running: Running) {
        if let Some(task) = self.tasks.get_mut(&running.tid()) {
            task.running = Some(running);
        }
    }
}

/// True if an int3 raised the SIGTRAP of this stop, rather than kill(2) or the program's own
/// single steps.
pub(crate) fn is_int3(stopped: &Stopped) -> Result<bool, Died> {
    Ok(stopped.signal_info()?.is_int3())
}

/// The flags of the clone(2) or clone3(2) that the thread of `registers` is in.
fn clone_flags(registers: &Registers, memory: &Memory) -> Option<u64> {
    match registers.system_call()? {
        SYS_CLONE => Some(registers.argument(0)),
        SYS_CLONE3 => memory.read_u64(Addr::new(registers.argument(0))).ok(),
        _ => None,
    }
}
