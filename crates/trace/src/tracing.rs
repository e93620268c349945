//! The event loop: waits for the stops of all threads, hands them to the target, lets them go on.

use leaktap_arch::breakpoint_before;
use leaktap_probe::Trap;
use leaktap_tracee::{AllStopped, Attached, Died, Event, Running, Signal, Stop, Stopped, Tid};

use crate::common::Common;
use crate::target::Exit;

mod births;
mod end;
mod traced;

pub(crate) use traced::Traced;

/// The handling of one process of a session.
pub(crate) struct Tracing<'a> {
    pub(crate) common: &'a mut Common,
    pub(crate) traced: &'a mut Traced,
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
    pub(crate) fn start(
        common: &'a mut Common,
        traced: &'a mut Traced,
        attached: Attached,
    ) -> Tracing<'a> {
        let mut tracing = Tracing { common, traced };
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

    /// What a thread of this process reports. The ends of others are kept for whom they concern.
    pub(crate) fn on_event(&mut self, event: Event) {
        match event {
            Event::Stopped(stopped) => self.on_stop(stopped),
            Event::Exited { tid, .. } | Event::Killed { tid, .. } if !self.traced.is_of(tid) => {
                self.common.ends.push(event);
            }
            Event::Exited { tid, code } => self.gone(tid, Exit::Code(code)),
            Event::Killed { tid, signal, .. } => self.gone(tid, Exit::Signal(signal.number())),
            Event::Interrupted | Event::NoChildren => {}
        }
        self.retry_parked();
    }

    fn on_stop(&mut self, stopped: Stopped) {
        let tid = stopped.tid();
        if !self.traced.tasks.contains_key(&tid) {
            match self.traced.expected.remove(&tid) {
                Some(child) => self.born(stopped, child),
                None => {
                    self.common.strays.insert(tid, stopped);
                }
            }
            return;
        }
        self.is_awake(tid);
        if !self.is_child(tid) {
            self.traced.is_stopped = matches!(stopped.stop(), Stop::Group(_));
        }
        // What fails here is that the thread has been killed, which wait() reports next.
        let _ = match stopped.stop() {
            Stop::Signal(Signal::TRAP) => self.on_trap(stopped),
            Stop::Signal(_) => self.on_signal(stopped),
            Stop::Clone(child) => self.on_new(stopped, child, Child::Thread),
            Stop::Fork(child) => self.on_new(stopped, child, Child::Copy),
            Stop::Vfork(child) => {
                if let Some(task) = self.traced.tasks.get_mut(&tid) {
                    task.unstoppable = true;
                }
                self.on_new(stopped, child, Child::SharesMemory)
            }
            Stop::VforkDone(_) => {
                if let Some(task) = self.traced.tasks.get_mut(&tid) {
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
        let begun = self.traced.overhead.begin();
        let tid = stopped.tid();
        let mut registers = stopped.registers()?;
        let process = self.traced.target.process();
        if process.is_ambiguous(registers.ip())
            && !is_int3(&stopped)?
            && !process.blocks_sigtrap(&stopped)
        {
            return self.on_signal(stopped);
        }
        let at = breakpoint_before(registers.ip());
        let trap = self.traced.target.trap(tid, &mut registers);
        match trap {
            Trap::Foreign => return self.on_signal(stopped),
            Trap::StepOver | Trap::Wait => stopped.set_registers(&registers)?,
        }
        // A process that only shares the memory has handlers of its own.
        if !self.is_child(tid) {
            let (tracer, target) = (&mut self.common.tracer, &mut self.traced.target);
            target.keep_sigtrap(tracer, &mut stopped, at, &registers);
        }
        let is_linker = self.traced.target.process().is_linker(at);
        if is_linker && self.is_alone() && trap == Trap::StepOver {
            return self.on_linked(stopped);
        }
        if is_linker {
            self.traced.target.modules_changed(&mut self.common.files);
        }
        if trap == Trap::Wait {
            self.traced.parked.push(stopped);
            self.interrupt_holders();
            return Ok(());
        }
        self.look_at_end_of(&stopped);
        let running = stopped.resume_without()?;
        self.running(running);
        // What the linker has loaded is read once, and counts no call.
        self.traced.overhead.add(begun.filter(|_| !is_linker));
        Ok(())
    }

    /// The only thread of a program that is being linked makes a system call: perhaps that which
    /// says that it is linked now.
    fn on_call(&mut self, mut stopped: Stopped) -> Result<(), Died> {
        if !self
            .traced
            .target
            .process()
            .is_linked_at(&stopped.registers()?)
        {
            return self.resume(stopped);
        }
        self.common.tracer.swallow(&mut stopped)?;
        self.traced.target.return_from_link(&stopped)?;
        let target = &mut self.traced.target;
        target.end_linking(&AllStopped::only(&mut stopped));
        match self.is_alone() {
            true => self.traced.target.inject(self.common, &mut stopped),
            false => self.traced.target.modules_changed(&mut self.common.files),
        }
        self.on_stop(stopped);
        Ok(())
    }

    /// Whether it has one thread alone, as it has to for an agent while it runs.
    fn is_alone(&self) -> bool {
        self.traced.tasks.len() == 1 && self.traced.expected.is_empty()
    }

    /// The only thread has been moved on from an int3, and its program may be linked now. It waits
    /// for the agent where it goes on by itself should we be killed.
    fn on_linked(&mut self, mut stopped: Stopped) -> Result<(), Died> {
        self.common.tracer.swallow(&mut stopped)?;
        self.traced.target.inject(self.common, &mut stopped);
        self.on_stop(stopped);
        Ok(())
    }

    /// A signal about to be delivered: its frame must not hold an address of a slot, or of the
    /// agent.
    fn on_signal(&mut self, mut stopped: Stopped) -> Result<(), Died> {
        self.traced
            .target
            .leave_for_signal(self.common, &mut stopped);
        let mut registers = stopped.registers()?;
        if self.traced.target.leave_slot(stopped.tid(), &mut registers) {
            stopped.set_registers(&registers)?;
        }
        self.resume(stopped)
    }

    fn on_exec(&mut self, mut stopped: Stopped) -> Result<(), Died> {
        let tid = stopped.tid();
        if self.is_child(tid) {
            self.child_leaves(stopped);
            return Ok(());
        }
        self.leave_former_memory();
        self.nobody_has_ended();
        self.add(tid, false);
        self.common.execed.push(tid);
        self.traced.target.exec(self.common, &mut stopped);
        self.set_end_of(&stopped);
        self.traced
            .target
            .ask_sigtrap(&mut self.common.tracer, &mut AllStopped::only(&mut stopped));
        self.resume(stopped)
    }

    fn gone(&mut self, tid: Tid, exit: Exit) {
        self.traced.expected.remove(&tid);
        self.common.strays.remove(&tid);
        self.traced.fs_shared.remove(&tid);
        self.traced.parked.retain(|stopped| stopped.tid() != tid);
        let was_task = self.traced.tasks.remove(&tid).is_some();
        if was_task {
            self.traced.target.thread_gone(tid);
        }
        // Of a leader that had ended before the trace nothing is reported.
        let lives =
            !self.traced.expected.is_empty() || self.traced.tasks.values().any(|task| !task.child);
        if tid == self.traced.target.tid() || was_task && !lives {
            self.traced.target.exit = Some(exit);
        }
    }

    fn retry_parked(&mut self) {
        for stopped in std::mem::take(&mut self.traced.parked) {
            let Ok(mut registers) = stopped.registers() else {
                continue;
            };
            if self.traced.target.retry(stopped.tid(), &mut registers) == Trap::Wait {
                self.traced.parked.push(stopped);
            } else if stopped.set_registers(&registers).is_ok()
                && let Ok(running) = stopped.resume_without()
            {
                self.running(running);
            }
        }
    }

    fn interrupt_holders(&mut self) {
        for tid in self.traced.target.process().holders() {
            if let Some(running) = self
                .traced
                .tasks
                .get(&tid)
                .and_then(|task| task.running.as_ref())
            {
                let _ = running.interrupt(); // fails for one that has died: it holds nothing
            }
        }
    }

    pub(crate) fn is_child(&self, tid: Tid) -> bool {
        self.traced.tasks.get(&tid).is_some_and(|task| task.child)
    }

    pub(crate) fn resume(&mut self, stopped: Stopped) -> Result<(), Died> {
        self.look_at_end_of(&stopped);
        // Whoever stops is out of its slot now, or is moved out: others may wait for it.
        if !self.traced.parked.is_empty() {
            let mut registers = stopped.registers()?;
            if self.traced.target.leave_slot(stopped.tid(), &mut registers) {
                stopped.set_registers(&registers)?;
            }
        }
        let running = self.go_on(stopped)?;
        self.running(running);
        Ok(())
    }

    /// Lets it go on, while its program is linked from system call to system call.
    pub(crate) fn go_on(&self, stopped: Stopped) -> Result<Running, Died> {
        let is_linking = self.traced.target.process().is_linking();
        match is_linking && stopped.tid() == self.traced.target.tid() {
            true => stopped.resume_to_call(),
            false => stopped.resume(),
        }
    }

    /// A thread has stopped that was not waited for any longer.
    pub(crate) fn is_awake(&mut self, tid: Tid) {
        if let Some(task) = self.traced.tasks.get_mut(&tid).filter(|task| task.asleep) {
            (task.asleep, task.unstoppable) = (false, false);
        }
    }

    pub(crate) fn add(&mut self, tid: Tid, child: bool) {
        self.traced.tasks.insert(
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
        if let Some(task) = self.traced.tasks.get_mut(&running.tid()) {
            task.running = Some(running);
        }
    }
}

/// True if an int3 raised the SIGTRAP of this stop, rather than kill(2) or the program's own
/// single steps.
pub(crate) fn is_int3(stopped: &Stopped) -> Result<bool, Died> {
    Ok(stopped.signal_info()?.is_int3())
}
