//! The end of a trace: every byte is put back, and all threads are let go.

use std::time::{Duration, Instant};

use leaktap_arch::breakpoint_before;
use leaktap_probe::{Held, Remains, Trap};
use leaktap_tracee::{Died, Event, Options, Running, Signal, Stop, Stopped, Tid};
use nix::time::ClockId;
use nix::unistd::Pid;

use crate::stopping::{AllHalted, Halted, LOOK, RUNNABLE, SomeHalted};
use crate::target;
use crate::tracing::{Tracing, is_int3};

/// How long threads may take to get out of the agent, and those that are asleep to wake up.
const LEAVING: Duration = Duration::from_secs(5);

/// How long the threads run before all are stopped again: at first, and at most. It doubles.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// What threads need to get out of the agent's own code, on a processor.
const WORK: Duration = Duration::from_micros(20);

/// How long they run alone, and how long in all, before all others do, too.
const WORKING: Duration = Duration::from_millis(300);

/// How long one thread is waited for while all others run.
const PATIENCE: Duration = Duration::from_secs(1);

impl Tracing<'_> {
    /// Lets the target go as if it had never been traced. Threads that wait in vfork(2), or in an
    /// uninterruptible system call, cannot run code of the program meanwhile: the kernel lets
    /// these go when leaktap ends.
    pub(crate) fn detach(&mut self) {
        let (all, begun) = self.take_out();
        let (halted, last) = self.unmap_agent(all);
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
    /// are let go there as at the end of a trace.
    pub(crate) fn leave_former_memory(&mut self) {
        self.traced.tasks.retain(|_, task| task.child);
        if self.traced.tasks.is_empty() {
            return;
        }
        let (mut all, _) = self.take_out();
        let mut stopped = all.all_stopped();
        while !self
            .traced
            .target
            .unmap_agent(&mut self.common.tracer, stopped.threads_mut())
        {}
        all.take_apart().into_values().for_each(Halted::let_go);
        self.traced.tasks.clear();
    }

    /// Stops all threads where they would be if there were no probes, and takes these out. Returns
    /// the threads, and since when they are stopped.
    fn take_out(&mut self) -> (AllHalted, Instant) {
        let mut begun = Instant::now();
        let (deadline, mut pause) = (begun + LEAVING, FIRST_PAUSE);
        let mut all = self.stop_all(SomeHalted::new());
        loop {
            self.traced.target.pass_little_time(&mut self.common.files);
            for thread in all.each() {
                // What fails here is that the thread has been killed: nothing to put right in it.
                let _ = self.settle(thread);
            }
            let Err(why) = self.withdraw(&mut all) else {
                break;
            };
            if Instant::now() >= deadline {
                self.traced.target.leave_agent(why, &all.all_stopped());
                break;
            }
            if why == Held::AtWork && begun.elapsed() < WORKING {
                all = self.let_work(all);
                continue;
            }
            self.let_run_for(pause, all, begun);
            pause = (pause * 2).min(LAST_PAUSE);
            begun = Instant::now();
            all = self.stop_all(SomeHalted::new());
        }
        self.traced.target.disarm(&all.all_stopped());
        (all, begun)
    }

    /// Takes all threads out of the agent, unless one may come back to it that is asleep.
    fn withdraw(&mut self, all: &mut AllHalted) -> Result<(), Held> {
        let (tracer, target) = (&mut self.common.tracer, &mut self.traced.target);
        let mut stopped = all.all_stopped();
        let mut asleep = stopped.asleep().iter();
        match asleep.any(|tid| target.may_be_in_agent(*tid)) {
            true => Err(Held::Asleep),
            false => target.withdraw(tracer, &mut stopped),
        }
    }

    /// Takes the agent's code away, and returns the threads, and that which is to do the same to
    /// the rest of its memory while the others run: one that sleeps in the kernel, if there is one,
    /// since that misses nothing.
    fn unmap_agent(&mut self, all: AllHalted) -> (Vec<Halted>, Option<Stopped>) {
        let mut halted: Vec<_> = all.take_apart().into_values().collect();
        loop {
            let mut threads: Vec<_> = halted.iter_mut().map(|h| &mut h.stopped).collect();
            if self
                .traced
                .target
                .unmap_agent(&mut self.common.tracer, &mut threads)
            {
                return (halted, None);
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
                let last = halted.swap_remove(index).stopped;
                return (halted, Some(last));
            }
        }
    }

    /// While the target runs, so that there is little to unmap. Returns `thread` if it is still
    /// there, in the same program. Where the target has ended, the books stay where they are.
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
    /// another program, and others, which are none of our business any more.
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
    /// other threads, or whose place another one takes that executes a program, ends without a
    /// word.
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

    /// Lets those run that are in the agent's own code, and no other thread, to its exits: until
    /// one has had a processor, lest it is stopped again where it was.
    fn let_work(&mut self, mut all: AllHalted) -> AllHalted {
        for thread in all.each() {
            // Neither runs to an exit: it handles a signal, or stays stopped.
            if let Stop::Group(_) | Stop::Signal(_) = thread.stopped.stop() {
                let target = &mut self.traced.target;
                target.leave_for_signal(self.common, &mut thread.stopped);
            }
        }
        self.traced.target.open_exits(false, &all.all_stopped());
        let mut halted = all.take_apart();
        let target = &self.traced.target;
        let is_at_work = |thread: &Halted| target.process().is_at_work(&thread.stopped);
        let at_work = halted.extract_if(|_, thread| is_at_work(thread)).collect();
        let (begun, before) = (Instant::now(), cpu_time(self.traced.target.tid()));
        self.let_run(at_work);
        while begun.elapsed() < WORKING {
            std::thread::sleep(WORK);
            let worked = cpu_time(self.traced.target.tid()).saturating_sub(before);
            if worked >= WORK {
                break;
            }
        }
        let mut all = self.stop_all(halted);
        self.traced.target.open_exits(true, &all.all_stopped());
        all
    }

    /// Lets all run for so long that those get on who have to. They have been stopped since
    /// `begun`.
    fn let_run_for(&mut self, pause: Duration, all: AllHalted, begun: Instant) {
        self.let_run(all.take_apart());
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
            let at = breakpoint_before(registers.ip());
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

/// How long the threads of `process` have had a processor.
fn cpu_time(process: Tid) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(process.get()));
    let now = clock.and_then(ClockId::now);
    now.map_or(Duration::MAX, Duration::from) // it has ended
}
