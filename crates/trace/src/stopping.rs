//! All threads stopped at a time: to lead functions to the agent, and at the end of a trace.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use leaktap_tracee::{AllStopped, Event, Signal, Stop, Stopped, Tid};

use crate::target;
use crate::tracing::{Child, Task, Tracing};

/// How often events are looked for while threads run for a moment. None need come: a timer of ours
/// would be one more signal to be told apart.
pub(crate) const LOOK: Duration = Duration::from_micros(100);

/// How long threads that are asleep may take to wake up, before breakpoints have to do.
const ASLEEP: Duration = Duration::from_millis(500);

/// How long threads that do not sleep are waited for when all are being stopped.
const STARVED: Duration = Duration::from_secs(2);

/// How long those are that get no processor. One that is given up may stand in a slot, and dies
/// when that is emptied.
pub(crate) const RUNNABLE: Duration = Duration::from_secs(10);

/// So many threads that have yet to stop are waited for together. For that the kernel goes through
/// all tracees, and again for each stop: more are asked for one by one.
const FEW: usize = 8;

/// A thread stopped for good.
pub(crate) struct Halted {
    pub(crate) stopped: Stopped,
    /// Its SIGTRAP is ours, and not for the program.
    pub(crate) our_trap: bool,
}

impl Halted {
    pub(crate) fn let_go(self) {
        // Fails for one that has been killed.
        let _ = match self.our_trap {
            true => self.stopped.detach_without(),
            false => self.stopped.detach(),
        };
    }
}

/// Threads that have stopped, while others may run.
pub(crate) type SomeHalted = HashMap<Tid, Halted>;

/// All threads of the target. Only [`Tracing::stop_all`] makes one; to let any of them run takes it
/// apart.
pub(crate) struct AllHalted {
    threads: SomeHalted,
    asleep: Vec<Tid>,
}

impl AllHalted {
    /// What may be done to the target's code asks for that.
    pub(crate) fn all_stopped(&mut self) -> AllStopped<'_> {
        let threads = self.threads.values_mut().map(|thread| &mut thread.stopped);
        AllStopped::of(threads.collect(), self.asleep.clone())
    }

    /// Each of them.
    pub(crate) fn each(&mut self) -> impl Iterator<Item = &mut Halted> {
        self.threads.values_mut()
    }

    /// They are to run, one after another.
    pub(crate) fn take_apart(self) -> SomeHalted {
        self.threads
    }
}

impl Tracing<'_> {
    /// Stops all threads, arms the probes, leads functions to the agent, and lets all run. Returns
    /// how long they were stopped.
    pub(crate) fn arm(&mut self) -> Duration {
        let (mut begun, mut halt) = (Instant::now(), Duration::ZERO);
        let deadline = begun + ASLEEP;
        let mut all = self.stop_all(SomeHalted::new());
        while self.asleep().next().is_some() && Instant::now() < deadline {
            self.let_run(all.take_apart());
            halt += begun.elapsed();
            self.let_wake_up(deadline);
            begun = Instant::now();
            all = self.stop_all(SomeHalted::new());
        }
        let target = &mut self.traced.target;
        if target.exit.is_none() && target.is_replaced {
            if let Some(leader) = all.threads.get_mut(&target.tid()) {
                target.exec(self.common, &mut leader.stopped);
            }
        } else if target.exit.is_none() {
            let mut stopped = all.all_stopped();
            target.arm(&mut self.common.files, &stopped);
            target.lead_to_agent(&mut self.common.tracer, &mut stopped);
        }
        self.let_run(all.take_apart());
        halt + begun.elapsed()
    }

    /// Stops all threads that have not `halted`.
    pub(crate) fn stop_all(&mut self, halted: SomeHalted) -> AllHalted {
        let threads = self.halt_all(halted);
        let asleep = self.asleep().collect();
        AllHalted { threads, asleep }
    }

    fn halt_all(&mut self, mut halted: SomeHalted) -> SomeHalted {
        let parked = std::mem::take(&mut self.traced.parked);
        let halt = |stopped: Stopped| {
            (
                stopped.tid(),
                Halted {
                    stopped,
                    our_trap: true,
                },
            )
        };
        halted.extend(parked.into_iter().map(halt));
        for task in self.traced.tasks.values_mut() {
            if let Some(running) = task.running.take() {
                let _ = running.interrupt(); // fails for one that has died: wait() says so
            }
        }
        self.halt_strays(&mut halted);
        let begun = Instant::now();
        loop {
            let awaited = self.awaited(&halted);
            let Some(one) = awaited.get(awaited.len() / 2) else {
                return halted;
            };
            let event = if awaited.len() <= FEW {
                self.common.tracer.wait(0)
            } else if self.halt_some(&awaited, &mut halted) {
                continue;
            } else {
                // Half of the others have stopped by then, more or less.
                self.common.tracer.wait_of(*one)
            };
            match event {
                Event::Interrupted => {
                    self.halt_any(&mut halted);
                    self.give_up(&halted, begun.elapsed());
                }
                Event::NoChildren => return halted,
                event => self.on_halting(event, &mut halted),
            }
        }
    }

    /// One of `awaited` has stopped, or another thread, or has ended.
    fn on_halting(&mut self, event: Event, halted: &mut SomeHalted) {
        match event {
            Event::Stopped(stopped) => self.halt(stopped, halted),
            ended => {
                self.on_event(ended);
                halted.retain(|tid, _| self.traced.tasks.contains_key(tid));
            }
        }
    }

    /// What was seen of this process while others were waited for.
    fn halt_strays(&mut self, halted: &mut SomeHalted) {
        let traced = &self.traced;
        let is_own = |event: &mut Event| event.tid().is_some_and(|tid| traced.is_of(tid));
        let mut own: Vec<_> = self.common.ends.extract_if(.., is_own).collect();
        let strays = &mut self.common.strays;
        let stopped = strays.extract_if(|tid, _| traced.is_of(*tid));
        own.extend(stopped.map(|(_, stopped)| Event::Stopped(stopped)));
        for event in own {
            self.on_halting(event, halted);
        }
    }

    /// What there is by now of any thread: an exec(2) waits until the ends of all others have been
    /// taken.
    fn halt_any(&mut self, halted: &mut SomeHalted) {
        while let Some(event) = self.common.tracer.poll() {
            if let Event::NoChildren = event {
                return;
            }
            self.on_halting(event, halted);
        }
    }

    /// Those of `awaited` that have stopped by now. True if there was one.
    fn halt_some(&mut self, awaited: &[Tid], halted: &mut SomeHalted) -> bool {
        let mut found = false;
        for tid in awaited {
            if let Some(event) = self.common.tracer.poll_of(*tid) {
                found = true;
                self.on_halting(event, halted);
            }
        }
        found
    }

    /// Until none of those that are asleep is so any longer: to stop all others costs as long as
    /// one is waited for, each time.
    fn let_wake_up(&mut self, deadline: Instant) {
        let sleeps = |tid: Tid| target::sleeps_uninterruptibly(tid);
        while self.asleep().any(sleeps) && Instant::now() < deadline {
            self.traced.target.pass_time(&mut self.common.files);
            match self.common.tracer.poll() {
                Some(Event::NoChildren) => return,
                Some(event) => self.on_event(event),
                None => std::thread::sleep(LOOK),
            }
        }
    }

    pub(crate) fn let_run(&mut self, halted: SomeHalted) {
        for (tid, mut thread) in halted {
            if let Stop::Signal(_) = thread.stopped.stop()
                && !thread.our_trap
            {
                self.traced
                    .target
                    .leave_for_signal(self.common, &mut thread.stopped);
            }
            self.look_at_end_of(&thread.stopped);
            let running = match thread.our_trap {
                true => thread.stopped.resume_without(),
                false => self.go_on(thread.stopped),
            };
            if let (Ok(running), Some(task)) = (running, self.traced.tasks.get_mut(&tid)) {
                task.running = Some(running);
            }
        }
    }

    /// Threads that were not waited for any longer.
    pub(crate) fn asleep(&self) -> impl Iterator<Item = Tid> + '_ {
        let asleep = self.traced.tasks.iter().filter(|(_, task)| task.asleep);
        asleep.map(|(tid, _)| *tid)
    }

    /// The threads that have yet to stop.
    fn awaited(&self, halted: &SomeHalted) -> Vec<Tid> {
        let has_to = |(tid, task): &(&Tid, &Task)| !task.unstoppable && !halted.contains_key(*tid);
        let tasks = self.traced.tasks.iter().filter(has_to).map(|(tid, _)| tid);
        tasks.chain(self.traced.expected.keys()).copied().collect()
    }

    fn halt(&mut self, mut stopped: Stopped, halted: &mut SomeHalted) {
        let tid = stopped.tid();
        if !self.traced.tasks.contains_key(&tid) {
            match self.traced.expected.remove(&tid) {
                None => {
                    self.common.strays.insert(tid, stopped);
                    return;
                }
                Some(Child::Copy) => return self.copy_leaves(stopped),
                Some(child) => {
                    self.add(tid, child == Child::SharesMemory);
                    self.begins(&stopped);
                }
            }
        }
        self.is_awake(tid);
        match stopped.stop() {
            Stop::Clone(child) => self.announced(&stopped, child, Child::Thread, halted),
            Stop::Fork(child) => self.announced(&stopped, child, Child::Copy, halted),
            Stop::Vfork(child) => self.announced(&stopped, child, Child::SharesMemory, halted),
            Stop::Exec { .. } if self.is_child(tid) => {
                return self.child_leaves(stopped);
            }
            Stop::Exec { .. } => {
                self.traced
                    .tasks
                    .retain(|&other, task| task.child || other == tid);
                self.add(tid, false);
                self.traced.target.replaced();
                self.set_end_of(&stopped);
            }
            Stop::Exit { .. } => {
                let _ = self.on_end(stopped); // its end is reported next
                return;
            }
            Stop::Interrupt if has_pending_trap(&stopped) => {
                let _ = self.resume(stopped); // its int3 is reported next, or its death
                return;
            }
            // As long as it stays there, nothing is.
            Stop::Group(_) => {
                while has_pending_trap(&stopped) {
                    if self.common.tracer.take_signal(&mut stopped).is_err() {
                        return; // killed, which is reported next
                    }
                }
            }
            _ => {}
        }
        halted.insert(
            tid,
            Halted {
                stopped,
                our_trap: false,
            },
        );
    }

    fn announced(&mut self, parent: &Stopped, child: Tid, kind: Child, halted: &mut SomeHalted) {
        let Ok(kind) = self.kind(parent, child, kind) else {
            return; // the parent has been killed, its threads with it
        };
        self.traced.target.inherits_mask(child, parent.tid());
        if self.traced.tasks.contains_key(&child) {
            return;
        }
        if kind == Child::Copy {
            self.traced.target.copy_begins(parent, child);
        }
        let first_stop = self.common.strays.remove(&child);
        if first_stop.is_some() || self.common.tracer.has(child) {
            self.traced.expected.insert(child, kind);
        }
        if let Some(stopped) = first_stop {
            self.halt(stopped, halted);
        }
    }

    /// Some threads will not stop soon, or never will.
    fn give_up(&mut self, halted: &SomeHalted, waited: Duration) {
        self.give_up_on_sleepers(halted);
        if waited > STARVED {
            self.give_up_on_all_but(halted, waited > RUNNABLE);
        }
    }

    /// Threads that sleep where no signal reaches them do not stop until they wake up. And of a
    /// leader that has ended before other threads, the kernel says nothing until they have.
    fn give_up_on_sleepers(&mut self, halted: &SomeHalted) {
        let leader = self.traced.target.tid();
        let has_ended_first = !halted.contains_key(&leader) && target::has_ended(leader) && {
            let mut others = self.traced.tasks.keys().filter(|tid| **tid != leader);
            others.any(|tid| !target::has_ended(*tid))
        };
        for (tid, task) in &mut self.traced.tasks {
            let is_awaited = !task.unstoppable && !halted.contains_key(tid);
            task.asleep |= is_awaited && target::sleeps_uninterruptibly(*tid);
            task.unstoppable |= task.asleep || *tid == leader && has_ended_first;
        }
    }

    /// Threads that do not run are interrupted, and so will stop before they run anything of the
    /// program, if they are still traced then: so not those that get no processor, or only
    /// `at_last`.
    fn give_up_on_all_but(&mut self, halted: &SomeHalted, at_last: bool) {
        for (tid, task) in &mut self.traced.tasks {
            let is_given_up = at_last || !target::is_runnable(*tid);
            task.asleep |= is_given_up && !task.unstoppable && !halted.contains_key(tid);
            task.unstoppable |= task.asleep;
        }
    }
}

/// True of a thread that has hit an int3 whose SIGTRAP has not been reported.
fn has_pending_trap(stopped: &Stopped) -> bool {
    // That of an int3 is not blocked: the kernel opens the mask for it. One that is may wait for
    // ever.
    let is_open = |mask: u64| mask & (1 << (Signal::TRAP.number() - 1)) == 0;
    stopped.has_pending(Signal::TRAP) == Ok(true) && stopped.signal_mask().is_ok_and(is_open)
}
