//! All threads stopped at a time: to lead them to the agent, and at the end of a trace, when every
//! byte is
//! put back and all are let go.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use leaktap_probe::{Held, Remains, Trap};
use leaktap_tracee::{Died, Event, Options, Running, Signal, Stop, Stopped, Tid};
use nix::time::ClockId;
use nix::unistd::Pid;

use crate::target;
use crate::tracing::{Child, Task, Tracing, is_int3};

/// How long threads may take to get out of the agent, and those that are asleep to wake up.
const LEAVING: Duration = Duration::from_secs(5);

/// How long the threads run before all are stopped again: at first, and at most. It doubles.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// What threads need to get out of the agent's own code, on a processor.
const WORK: Duration = Duration::from_micros(20);

/// How long they run alone, and how long in all, before all others do, too.
const WORKING: Duration = Duration::from_millis(300);

/// How often events are looked for in such a pause. None need come: a timer of ours would be one
/// more signal to be told apart.
pub(crate) const LOOK: Duration = Duration::from_micros(100);

/// How long threads that are asleep may take to wake up, before breakpoints have to do.
const ASLEEP: Duration = Duration::from_millis(500);

/// How long threads that do not sleep are waited for when all are being stopped.
const STARVED: Duration = Duration::from_secs(2);

/// How long those are that get no processor. One that is given up may stand in a slot, and dies
/// when that is emptied.
const RUNNABLE: Duration = Duration::from_secs(10);

/// So many threads that have yet to stop are waited for together. For that the kernel goes through
/// all tracees, and again for each stop: more are asked for one by one.
const FEW: usize = 8;

/// How long one thread is waited for while all others run.
const PATIENCE: Duration = Duration::from_secs(1);

/// A thread stopped for good.
struct Halted {
    stopped: Stopped,
    /// Its SIGTRAP is ours, and not for the program.
    our_trap: bool,
}

impl Halted {
    fn let_go(self) {
        // Fails for one that has been killed.
        let _ = match self.our_trap {
            true => self.stopped.detach_without(),
            false => self.stopped.detach(),
        };
    }
}

impl Tracing<'_> {
    /// Lets the target go as if it had never been traced. Threads that wait in vfork(2), or in an
    /// uninterruptible system call, cannot run code of the program meanwhile: the kernel lets
    /// these go when leaktap ends.
    pub(crate) fn detach(&mut self) {
        let (mut halted, begun) = self.take_out();
        let last = self.unmap_agent(&mut halted);
        for thread in halted {
            thread.let_go();
        }
        let last = last.map(|thread| {
            // New threads and children are none of our business any more; a new program has nothing
            // of ours.
            let _ = self
                .common
                .tracer
                .set_options(&thread, Options::only_exec());
            thread.resume().ok()
        });
        self.traced.target.halted(begun.elapsed());
        self.traced.target.detached();
        let is_mapped = last.is_some();
        let running = self.bring_books_home(last.flatten());
        if is_mapped {
            self.unmap_rest(running);
        }
    }

    /// The target has executed a program. Other processes may live on in its former memory: they
    /// are let go
    /// there as at the end of a trace.
    pub(crate) fn leave_former_memory(&mut self) {
        self.traced.tasks.retain(|_, task| task.child);
        if self.traced.tasks.is_empty() {
            return;
        }
        let (mut halted, _) = self.take_out();
        let mut threads: Vec<_> = halted.iter_mut().map(|h| &mut h.stopped).collect();
        while !self
            .traced
            .target
            .unmap_agent(&mut self.common.tracer, &mut threads)
        {}
        for thread in halted {
            thread.let_go();
        }
        self.traced.tasks.clear();
    }

    /// Stops all threads where they would be if there were no probes, and takes these out. Returns
    /// the threads, and since when they are stopped.
    fn take_out(&mut self) -> (Vec<Halted>, Instant) {
        let mut begun = Instant::now();
        let (deadline, mut pause) = (begun + LEAVING, FIRST_PAUSE);
        let mut halted = self.stop_all(HashMap::new());
        loop {
            self.traced.target.pass_time(&mut self.common.files);
            for thread in halted.values_mut() {
                // What fails here is that the thread has been killed: nothing to put right in it.
                let _ = self.settle(thread);
            }
            let mut threads: Vec<_> = halted.values_mut().map(|h| &mut h.stopped).collect();
            let is_asleep = self
                .asleep()
                .any(|tid| self.traced.target.may_be_in_agent(tid));
            let held = match is_asleep {
                true => Err(Held::Asleep),
                false => self
                    .traced
                    .target
                    .withdraw(&mut self.common.tracer, &mut threads),
            };
            let Err(why) = held else { break };
            if Instant::now() >= deadline {
                self.traced.target.leave_agent(why);
                break;
            }
            if why == Held::AtWork && begun.elapsed() < WORKING {
                halted = self.let_work(halted);
                continue;
            }
            self.let_run_for(pause, halted, begun);
            pause = (pause * 2).min(LAST_PAUSE);
            begun = Instant::now();
            halted = self.stop_all(HashMap::new());
        }
        self.traced.target.disarm();
        (halted.into_values().collect(), begun)
    }

    /// Takes the agent's code away, and returns the thread that is to do the same to the rest of
    /// its memory while
    /// others run: one that sleeps in the kernel, if there is one, since that misses nothing.
    fn unmap_agent(&mut self, halted: &mut Vec<Halted>) -> Option<Stopped> {
        loop {
            let mut threads: Vec<_> = halted.iter_mut().map(|h| &mut h.stopped).collect();
            if self
                .traced
                .target
                .unmap_agent(&mut self.common.tracer, &mut threads)
            {
                return None;
            }
            // Nothing may be there when it does what it has to be let go for.
            if self.traced.target.process().departure().is_some() {
                continue;
            }
            let can_go_on = |thread: &Halted| {
                let stop = thread.stopped.stop();
                !thread.our_trap && matches!(stop, Stop::Interrupt | Stop::Signal(_))
            };
            let sleeps = |thread: &Halted| {
                let registers = thread.stopped.registers();
                can_go_on(thread) && registers.is_ok_and(|now| now.system_call().is_some())
            };
            let index = halted.iter().position(sleeps);
            if let Some(index) = index.or_else(|| halted.iter().position(can_go_on)) {
                return Some(halted.swap_remove(index).stopped);
            }
        }
    }

    /// While the target runs, so that there is little to unmap. Returns `thread` if it is still
    /// there, in the same program. Where the
    /// target has ended, the books stay where they are.
    fn bring_books_home(&mut self, mut thread: Option<Running>) -> Option<Running> {
        if self.traced.target.exit.is_some() || !self.traced.target.can_bring_home() {
            return thread;
        }
        let mut at = Some(0);
        while let Some(from) = at {
            at = self.traced.target.bring_home(from);
            thread = self.let_all_go_on(thread);
        }
        self.traced.target.books.mark_home();
        thread
    }

    /// Lets whatever has stopped go on: `thread`, which is returned unless it has ended or runs
    /// another program, and others, which
    /// are none of our business any more.
    fn let_all_go_on(&mut self, mut thread: Option<Running>) -> Option<Running> {
        while let Some(event) = self.common.tracer.poll() {
            if let Event::NoChildren | Event::Interrupted = event {
                break;
            }
            thread = self.goes_on(thread, event);
        }
        thread
    }

    /// Whatever `event` has stopped goes on. Returns `thread`, unless it has ended, or runs another
    /// program.
    pub(crate) fn goes_on(&mut self, thread: Option<Running>, event: Event) -> Option<Running> {
        let is_it = |tid: Tid| thread.as_ref().is_some_and(|thread| thread.tid() == tid);
        match event {
            Event::Stopped(stopped) => {
                let replaced = matches!(stopped.stop(), Stop::Exec { .. });
                if is_it(stopped.tid()) && !replaced {
                    return stopped.resume().ok();
                }
                // Others may be of processes that are still traced.
                if self.common.is_shared && !self.traced.is_of(stopped.tid()) {
                    self.common.strays.insert(stopped.tid(), stopped);
                    return thread;
                }
                let _ = stopped.detach(); // fails if it has been killed
                thread.filter(|_| !replaced)
            }
            Event::Exited { tid, .. } | Event::Killed { tid, .. } => {
                let lives = !is_it(tid);
                self.on_event(event);
                thread.filter(|_| lives)
            }
            Event::Interrupted | Event::NoChildren => thread,
        }
    }

    /// Stops `thread`, or another one if that has ended, to have it unmap what is left.
    fn unmap_rest(&mut self, thread: Option<Running>) {
        let stopped = thread.and_then(|thread| {
            thread.interrupt().ok()?; // it has ended
            self.stop_of(thread.tid())
        });
        let begun = Instant::now();
        let Some(mut last) = stopped.or_else(|| self.another_thread()) else {
            return self.traced.target.leave_rest();
        };
        if !matches!(last.stop(), Stop::Exec { .. }) {
            while !self
                .traced
                .target
                .unmap_agent(&mut self.common.tracer, &mut [&mut last])
            {}
        }
        let _ = last.detach(); // fails if it has been killed
        self.traced.target.halted(begun.elapsed());
        self.let_all_go_on(None);
    }

    /// The next stop of a thread; nothing if there is none for long. A leader that ends before
    /// other threads, or whose place
    /// another one takes that executes a program, ends without a word.
    fn stop_of(&mut self, tid: Tid) -> Option<Stopped> {
        let begun = Instant::now();
        let is_patient =
            |waited| waited < PATIENCE || waited < RUNNABLE && target::is_runnable(tid);
        while is_patient(begun.elapsed()) {
            match self.common.tracer.poll() {
                Some(Event::Stopped(stopped)) if stopped.tid() == tid => return Some(stopped),
                Some(event) => drop(self.goes_on(None, event)),
                None if target::has_ended(tid) => return None,
                None => std::thread::yield_now(),
            }
        }
        None
    }

    /// A thread of the process, if that lives on with the agent's memory although the thread that
    /// we had has ended.
    fn another_thread(&mut self) -> Option<Stopped> {
        let process = self.traced.target.tid();
        let attached = self
            .common
            .tracer
            .attach(process, Options::only_exec())
            .ok()?;
        let mut one = None;
        for thread in attached.stopped {
            // Not in another program, which was executed meanwhile.
            let remains = self.traced.target.process().remains_seen_by(thread.tid());
            if one.is_none() && remains != Remains::None {
                one = Some(thread);
            } else {
                let _ = thread.detach(); // fails for one that has been killed
            }
        }
        one
    }

    /// Stops all threads, arms the probes, leads functions to the agent, and lets all run. Returns
    /// how long
    /// they were stopped.
    pub(crate) fn arm(&mut self) -> Duration {
        let (mut begun, mut halt) = (Instant::now(), Duration::ZERO);
        let deadline = begun + ASLEEP;
        let mut halted = self.stop_all(HashMap::new());
        while self.asleep().next().is_some() && Instant::now() < deadline {
            self.let_run(halted);
            halt += begun.elapsed();
            self.let_wake_up(deadline);
            begun = Instant::now();
            halted = self.stop_all(HashMap::new());
        }
        if self.traced.target.exit.is_none() && self.traced.target.is_replaced {
            if let Some(leader) = halted.get_mut(&self.traced.target.tid()) {
                self.traced.target.exec(self.common, &mut leader.stopped);
            }
        } else if self.traced.target.exit.is_none() {
            self.traced.target.arm(&mut self.common.files);
            let mut threads: Vec<_> = halted.values_mut().map(|h| &mut h.stopped).collect();
            let asleep: Vec<_> = self.asleep().collect();
            self.traced
                .target
                .lead_to_agent(&mut self.common.tracer, &mut threads, &asleep);
        }
        self.let_run(halted);
        halt + begun.elapsed()
    }

    /// Lets those run that are in the agent's own code, and no other thread, to its exits: until
    /// one has had a processor, lest it is stopped again where it was.
    fn let_work(&mut self, mut halted: HashMap<Tid, Halted>) -> HashMap<Tid, Halted> {
        for thread in halted.values_mut() {
            // Neither runs to an exit: it handles a signal, or stays stopped.
            if let Stop::Group(_) | Stop::Signal(_) = thread.stopped.stop() {
                let target = &mut self.traced.target;
                target.leave_for_signal(self.common, &mut thread.stopped);
            }
        }
        let target = &self.traced.target;
        let is_at_work = |thread: &Halted| target.process().is_at_work(&thread.stopped);
        let at_work = halted.extract_if(|_, thread| is_at_work(thread)).collect();
        let (begun, before) = (Instant::now(), cpu_time(self.traced.target.tid()));
        self.traced.target.open_exits(false);
        self.let_run(at_work);
        while begun.elapsed() < WORKING {
            std::thread::sleep(WORK);
            let worked = cpu_time(self.traced.target.tid()).saturating_sub(before);
            if worked >= WORK {
                break;
            }
        }
        let halted = self.stop_all(halted);
        self.traced.target.open_exits(true);
        halted
    }

    /// Stops all threads that have not `halted`.
    fn stop_all(&mut self, mut halted: HashMap<Tid, Halted>) -> HashMap<Tid, Halted> {
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
    fn on_halting(&mut self, event: Event, halted: &mut HashMap<Tid, Halted>) {
        match event {
            Event::Stopped(stopped) => self.halt(stopped, halted),
            ended => {
                self.on_event(ended);
                halted.retain(|tid, _| self.traced.tasks.contains_key(tid));
            }
        }
    }

    /// What was seen of this process while others were waited for.
    fn halt_strays(&mut self, halted: &mut HashMap<Tid, Halted>) {
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
    fn halt_any(&mut self, halted: &mut HashMap<Tid, Halted>) {
        while let Some(event) = self.common.tracer.poll() {
            if let Event::NoChildren = event {
                return;
            }
            self.on_halting(event, halted);
        }
    }

    /// Those of `awaited` that have stopped by now. True if there was one.
    fn halt_some(&mut self, awaited: &[Tid], halted: &mut HashMap<Tid, Halted>) -> bool {
        let mut found = false;
        for tid in awaited {
            if let Some(event) = self.common.tracer.poll_of(*tid) {
                found = true;
                self.on_halting(event, halted);
            }
        }
        found
    }

    /// Lets all run for so long that those get on who have to. They have been stopped since
    /// `begun`.
    fn let_run_for(&mut self, pause: Duration, halted: HashMap<Tid, Halted>, begun: Instant) {
        self.let_run(halted);
        self.traced.target.halted(begun.elapsed());
        let until = Instant::now() + pause;
        while Instant::now() < until {
            self.traced.target.pass_time(&mut self.common.files);
            match self.common.tracer.poll() {
                Some(Event::NoChildren) => return,
                Some(event) => self.on_event(event),
                None => std::thread::sleep(LOOK),
            }
        }
    }

    /// Until none of those that are asleep is so any longer: to stop all others costs as long as one
    /// is waited for, each time.
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

    fn let_run(&mut self, halted: HashMap<Tid, Halted>) {
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
    fn asleep(&self) -> impl Iterator<Item = Tid> + '_ {
        let asleep = self.traced.tasks.iter().filter(|(_, task)| task.asleep);
        asleep.map(|(tid, _)| *tid)
    }

    /// The threads that have yet to stop.
    fn awaited(&self, halted: &HashMap<Tid, Halted>) -> Vec<Tid> {
        let has_to = |(tid, task): &(&Tid, &Task)| !task.unstoppable && !halted.contains_key(*tid);
        let tasks = self.traced.tasks.iter().filter(has_to).map(|(tid, _)| tid);
        tasks.chain(self.traced.expected.keys()).copied().collect()
    }

    fn halt(&mut self, mut stopped: Stopped, halted: &mut HashMap<Tid, Halted>) {
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

    fn announced(
        &mut self,
        parent: &Stopped,
        child: Tid,
        kind: Child,
        halted: &mut HashMap<Tid, Halted>,
    ) {
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
    fn give_up(&mut self, halted: &HashMap<Tid, Halted>, waited: Duration) {
        self.give_up_on_sleepers(halted);
        if waited > STARVED {
            self.give_up_on_all_but(halted, waited > RUNNABLE);
        }
    }

    /// Threads that sleep where no signal reaches them do not stop until they wake up. And of a
    /// leader that has ended before other
    /// threads, the kernel says nothing until they have.
    fn give_up_on_sleepers(&mut self, halted: &HashMap<Tid, Halted>) {
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
    fn give_up_on_all_but(&mut self, halted: &HashMap<Tid, Halted>, at_last: bool) {
        for (tid, task) in &mut self.traced.tasks {
            let is_given_up = at_last || !target::is_runnable(*tid);
            task.asleep |= is_given_up && !task.unstoppable && !halted.contains_key(tid);
            task.unstoppable |= task.asleep;
        }
    }

    /// Puts a stopped thread where it would be without breakpoints.
    fn settle(&mut self, thread: &mut Halted) -> Result<(), Died> {
        let tid = thread.stopped.tid();
        let mut registers = thread.stopped.registers()?;
        if thread.stopped.stop() == Stop::Signal(Signal::TRAP)
            && !thread.our_trap
            && (is_int3(&thread.stopped)?
                || self.traced.target.process().blocks_sigtrap(&thread.stopped))
        {
            // An allocation that has just returned counts; what is only entered is taken back.
            let at = registers.ip().wrapping_offset(-1);
            thread.our_trap = self.traced.target.trap(tid, &mut registers) != Trap::Foreign;
            if thread.our_trap && !self.is_child(tid) {
                let (tracer, target) = (&mut self.common.tracer, &mut self.traced.target);
                target.keep_sigtrap(tracer, &mut thread.stopped, at, &registers);
            }
        }
        if self.traced.target.leave_slot(tid, &mut registers) || thread.our_trap {
            thread.stopped.set_registers(&registers)?;
        }
        Ok(())
    }
}

/// True of a thread that has hit an int3 whose SIGTRAP has not been reported.
fn has_pending_trap(stopped: &Stopped) -> bool {
    // That of an int3 is not blocked: the kernel opens the mask for it. One that is may wait for
    // ever.
    let is_open = |mask: u64| mask & (1 << (Signal::TRAP.number() - 1)) == 0;
    stopped.has_pending(Signal::TRAP) == Ok(true) && stopped.signal_mask().is_ok_and(is_open)
}

/// How long the threads of `process` have had a processor.
fn cpu_time(process: Tid) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(process.get()));
    let now = clock.and_then(ClockId::now);
    now.map_or(Duration::MAX, Duration::from) // it has ended
}
