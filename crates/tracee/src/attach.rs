use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::diagnosis::{self, AttachError};
use crate::procfs::{self, Status};
use crate::reaper::Reaper;
use crate::sharers::share;
use crate::{Event, Options, Running, Stop, Stopped, Tid, Tracer, sys};

/// How many threads are asked for stops, without a pause, before /proc is asked why there are none:
/// most threads stop within microseconds.
const POLLS_PER_PAUSE: usize = 64;

/// Of more threads than that, /proc is asked seldom: it takes some 10 µs for each.
const PAUSES_PER_LOOK: u32 = 64;

/// The pause after that. It leaves the processor to threads that have to run in order to stop.
/// Not a wait for their events, because there may be none: a leader that ends before its threads
/// reports nothing, nor does a thread that sleeps uninterruptibly.
const PAUSE: Duration = Duration::from_micros(20);

/// How long threads may sleep uninterruptibly (a page from disk) before they are left for later.
const PATIENCE: Duration = Duration::from_millis(50);

/// The same for threads that should stop, and do not: none gets a processor.
const LONG_PATIENCE: Duration = Duration::from_secs(1);

/// How often a refusal is doubted.
const TRIES: u32 = 5;

/// How long new threads are run after.
const CHASE: Duration = Duration::from_secs(2);

/// How long the child of a process that is let go may take to its first stop.
const FIRST_STOP: Duration = Duration::from_secs(1);

/// All threads of a process that has just been attached to.
#[derive(Debug)]
pub struct Attached {
    /// Those that have stopped, `sharers` last, each once, by whatever came first: the interrupt,
    /// or a signal or event of its own. A [`Stop::Clone`] among them names a thread that is here,
    /// too; the child of a [`Stop::Fork`] reports its first stop to [`Tracer::wait`].
    pub stopped: Vec<Stopped>,
    /// Those asleep in the kernel beyond interruption (a parent in vfork(2), a network file). They
    /// cannot return to the program before they have reported a stop to [`Tracer::wait`].
    pub late: Vec<Running>,
    /// Those of both that belong to other processes, which run in the same memory: clone(2) with
    /// `CLONE_VM`, vfork(2).
    pub sharers: BTreeSet<Tid>,
}

impl Attached {
    /// A process whose only thread is `stopped`.
    pub fn only(stopped: Stopped) -> Attached {
        Attached {
            stopped: vec![stopped],
            late: Vec::new(),
            sharers: BTreeSet::new(),
        }
    }

    /// Lets all go that have stopped. Returns the others.
    pub fn let_go(self, tracer: &mut Tracer) -> Vec<Running> {
        let_go(tracer, self.stopped.into_iter());
        self.late
    }
}

/// Threads that have just been attached to, and children of theirs, are no longer traced.
fn let_go(tracer: &mut Tracer, threads: impl Iterator<Item = Stopped>) {
    for stopped in threads {
        let child = match stopped.stop() {
            Stop::Fork(child) | Stop::Vfork(child) => Some(child),
            _ => None,
        };
        // Died is as good.
        let _ = stopped.detach();
        let deadline = Instant::now() + FIRST_STOP;
        if let Some(Ok(Some(child))) = child.map(|child| tracer.wait_until(child, deadline)) {
            let _ = child.detach();
        }
    }
}

/// A process half attached to.
struct Attaching<'a> {
    tracer: &'a mut Tracer,
    /// What its threads are to be traced with.
    options: Options,
    reaper: Reaper,
    process: Tid,
    /// Every thread that is traced; none for one that has not stopped yet.
    threads: BTreeMap<Tid, Option<Stopped>>,
    late: Vec<Tid>,
    /// Threads of the kernel's in the process, which run nothing of it.
    workers: BTreeSet<Tid>,
    /// Those that had ended when they were looked at.
    ended: BTreeSet<Tid>,
    /// All processes that were there when others in the same memory were looked for.
    seen: BTreeSet<Tid>,
    /// Other processes in the same memory.
    others: Vec<Tid>,
    /// The threads of these.
    sharers: BTreeSet<Tid>,
}

/// What came of one thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seized {
    /// It is traced from now on.
    Now,
    /// It was traced from its beginning.
    Before,
    /// It has ended.
    Not,
}

impl Tracer {
    /// Attaches to all threads of `process` and stops them, without a signal that they could see.
    ///
    /// Processes that run in its memory are attached to with it: [`Attached::sharers`]. Threads
    /// that the kernel has made in it for its own ends (io_uring(7)) are not: they run nothing of
    /// it, and a stop would end the system calls that they make.
    ///
    /// Threads that begin meanwhile are traced from their beginning (`Options::follow`). Those that
    /// end meanwhile report that to [`Tracer::wait`]. A thread that stopped for a reason of its own
    /// may report a [`Stop::Interrupt`] after it has been resumed (see [`Running::interrupt`]).
    ///
    /// # Errors
    /// [`AttachError`]. Nothing is traced then, and what was stopped runs on.
    pub fn attach(&mut self, process: Tid, options: Options) -> Result<Attached, AttachError> {
        diagnosis::examine(process)?;
        let mut attaching = Attaching {
            tracer: self,
            options,
            reaper: Reaper::start(process),
            process,
            threads: BTreeMap::new(),
            late: Vec::new(),
            workers: BTreeSet::new(),
            ended: BTreeSet::new(),
            seen: BTreeSet::new(),
            others: Vec::new(),
            sharers: BTreeSet::new(),
        };
        match attaching.all() {
            Ok(()) => attaching.attached(),
            Err(error) => {
                attaching.release();
                Err(error)
            }
        }
    }
}

impl Attaching<'_> {
    /// Until a look at the stopped process finds no thread that is not ours.
    fn all(&mut self) -> Result<(), AttachError> {
        let begun = Instant::now();
        loop {
            // All are seized before the first is stopped: the stop of the process is the shorter.
            while begun.elapsed() < CHASE && (self.seize_new()? || self.find_sharers()) {}
            self.stop_all();
            // A clone(2) that was under way when its thread was seized has begun one untraced;
            // those begun by a traced thread have yet to stop.
            let is_ours = self.has_leader();
            if is_ours && !self.seize_new()? && !self.find_sharers() && self.missing().is_empty() {
                return Ok(());
            }
            if begun.elapsed() > CHASE {
                let process = self.process;
                return Err(AttachError::Restless { process });
            }
        }
    }

    /// False if a thread that was not traced has executed a program, and so has the number of the
    /// leader by now, which was: nothing tells of that.
    fn has_leader(&mut self) -> bool {
        let process = self.process;
        let is_known = self.threads.contains_key(&process) || self.late.contains(&process);
        let is_ours = |status: Status| status.is_dead() || diagnosis::is_ours(&status);
        if !is_known || Status::of(process).is_none_or(is_ours) {
            return true;
        }
        self.threads.remove(&process);
        self.late.retain(|late| *late != process);
        false
    }

    /// One pass over /proc/PID/task; true if there was a thread that was not traced, or one that
    /// ended meanwhile: the kernel's list breaks off there, and it may have begun another one.
    fn seize_new(&mut self) -> Result<bool, AttachError> {
        let process = self.process;
        let gone = |_| AttachError::NoSuchProcess { process };
        let mut all = procfs::threads(process).map_err(gone)?;
        for &other in &self.others {
            let threads = procfs::threads(other).unwrap_or_default(); // it may have ended
            self.sharers.extend(&threads);
            all.extend(threads);
        }
        let mut found = false;
        for tid in all {
            let is_known = self.threads.contains_key(&tid)
                || self.late.contains(&tid)
                || self.workers.contains(&tid);
            if !is_known && procfs::is_kernel_worker(tid) {
                self.workers.insert(tid);
            } else if !is_known {
                found |= self.take(tid)?;
            }
        }
        Ok(found)
    }

    /// Takes charge of a thread; true if it was not traced, or has just ended.
    fn take(&mut self, tid: Tid) -> Result<bool, AttachError> {
        let seized = self.seize(tid)?;
        if seized == Seized::Not {
            return Ok(self.ended.insert(tid));
        }
        // One traced from its beginning may have reported already.
        let stopped = self.tracer.take_stop(tid);
        self.threads.insert(tid, stopped);
        Ok(seized == Seized::Now)
    }

    /// Looks for other processes in the same memory; true if there is a new one. Nobody comes to
    /// share it but by its birth: those seen before are not compared again.
    fn find_sharers(&mut self) -> bool {
        let mut new = procfs::processes();
        new.retain(|other| self.seen.insert(*other));
        let thread = procfs::living_thread(self.process);
        new.retain(|other| *other != self.process && share(thread, *other));
        new.iter().for_each(|other| self.reaper.watch(*other));
        self.others.extend(&new);
        !new.is_empty()
    }

    fn seize(&mut self, tid: Tid) -> Result<Seized, AttachError> {
        let mut seized = self.try_to_seize(tid);
        for _ in 0..TRIES {
            // Or it was an ended leader, whose number a thread that executes a program has by now.
            let Err(AttachError::Denied { .. }) = seized else {
                break;
            };
            thread::sleep(PAUSE);
            seized = self.try_to_seize(tid);
        }
        seized
    }

    fn try_to_seize(&mut self, tid: Tid) -> Result<Seized, AttachError> {
        self.tracer.note_options(tid, self.options);
        let options = self.tracer.options_of(tid).bits();
        let seize = || sys::seize(tid.get(), options);
        let (seized, ended) = self.reaper.during(seize);
        ended.into_iter().for_each(|end| self.enter(end));
        match seized {
            Ok(()) => Ok(Seized::Now),
            Err(Errno::ESRCH) => Ok(Seized::Not),
            // Ended, not reaped; or traced from its beginning; or really refused.
            Err(errno) => match Status::of(tid) {
                Some(status) if status.is_dead() => Ok(Seized::Not),
                Some(status) if diagnosis::is_ours(&status) => Ok(Seized::Before),
                Some(_) if self.sharers.contains(&tid) => Err(AttachError::Shared {
                    process: self.process,
                    with: tid,
                }),
                Some(_) => Err(diagnosis::refused(self.process, tid, errno)),
                None => Ok(Seized::Not),
            },
        }
    }

    /// Interrupts what runs and collects its stops. Reaps what has ended, even if nothing has to be
    /// waited for: an exec(2) may wait for that.
    fn stop_all(&mut self) {
        self.enter_all();
        for tid in self.missing() {
            // One that has ended is found out below.
            let _ = sys::interrupt(tid.get());
        }
        let since = Instant::now();
        let (mut polls, mut pauses) = (0, 0);
        loop {
            let missing = self.missing();
            if missing.is_empty() {
                return;
            }
            if self.poll(&missing) || self.enter_all() {
                continue;
            }
            polls += missing.len();
            if polls < POLLS_PER_PAUSE {
                continue;
            }
            (polls, pauses) = (0, pauses + 1);
            if missing.len() <= POLLS_PER_PAUSE || pauses % PAUSES_PER_LOOK == 0 {
                self.look(&missing, since.elapsed());
            }
            // There may be no event to wait for: see PAUSE.
            thread::sleep(PAUSE);
        }
    }

    /// Each by itself: the kernel goes through all tracees for one that asks for any. True if one
    /// had something to report.
    fn poll(&mut self, threads: &[Tid]) -> bool {
        let mut found = false;
        for &tid in threads {
            if let Some(event) = self.tracer.poll_of(tid) {
                found = true;
                self.enter(event);
            }
        }
        found
    }

    /// What is there of any thread; true if there was something.
    fn enter_all(&mut self) -> bool {
        let mut found = false;
        while let Some(event) = self.tracer.poll_kernel() {
            found = true;
            let is_last = matches!(event, Event::NoChildren);
            self.enter(event);
            if is_last {
                break;
            }
        }
        found
    }

    fn missing(&self) -> Vec<Tid> {
        let missing = self.threads.iter().filter(|(_, stopped)| stopped.is_none());
        missing.map(|(&tid, _)| tid).collect()
    }

    fn enter(&mut self, event: Event) {
        match event {
            Event::Stopped(stopped) if self.threads.contains_key(&stopped.tid()) => {
                // After an exec, the leader's earlier stop is void.
                self.threads.insert(stopped.tid(), Some(stopped));
            }
            Event::Interrupted => {}
            Event::NoChildren => self.threads.clear(),
            Event::Exited { tid, .. } | Event::Killed { tid, .. } => {
                self.threads.remove(&tid);
                self.tracer.keep(event);
            }
            Event::Stopped(_) => self.tracer.keep(event),
        }
    }

    /// Gives up those that cannot report: the ended, the renamed by an exec, a leader that ended
    /// before its threads; and, after `waited`, those that sleep uninterruptibly or do not run.
    fn look(&mut self, missing: &[Tid], waited: Duration) {
        for &tid in missing {
            let state = procfs::state(tid).map_or('?', |state| state.unwrap_or('X'));
            let has_ended = matches!(state, 'Z' | 'X');
            let is_late = waited > LONG_PATIENCE || state == 'D' && waited > PATIENCE;
            if is_late && !has_ended {
                self.late.push(tid);
            }
            if is_late || has_ended {
                self.threads.remove(&tid);
            }
        }
    }

    fn attached(mut self) -> Result<Attached, AttachError> {
        self.let_strangers_go();
        let mut stopped: Vec<Stopped> = self.threads.into_values().flatten().collect();
        stopped.sort_by_key(|thread| self.sharers.contains(&thread.tid()));
        let late: Vec<Running> = self.late.into_iter().map(Running::new).collect();
        if stopped.is_empty() && late.is_empty() {
            return Err(AttachError::NoSuchProcess {
                process: self.process,
            });
        }
        let here = |tid: &Tid| {
            stopped.iter().any(|thread| thread.tid() == *tid)
                || late.iter().any(|thread| thread.tid() == *tid)
        };
        self.sharers.retain(here);
        Ok(Attached {
            sharers: self.sharers,
            stopped,
            late,
        })
    }

    /// Some of those that shared the memory may run another program by now.
    fn let_strangers_go(&mut self) {
        let thread = procfs::living_thread(self.process);
        let is_stranger = |tid: &Tid| !share(thread, *tid);
        let strangers: Vec<Tid> = self.sharers.iter().copied().filter(is_stranger).collect();
        for tid in strangers {
            if let Some(Some(stopped)) = self.threads.remove(&tid) {
                let_go(self.tracer, std::iter::once(stopped));
            }
        }
    }

    /// Lets everything go. Those asleep beyond interruption cannot be detached from.
    fn release(mut self) {
        self.stop_all();
        let_go(self.tracer, self.threads.into_values().flatten());
    }
}
