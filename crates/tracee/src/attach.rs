use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::diagnosis::{self, AttachError};
use crate::procfs::{self, Status};
use crate::{Event, Options, Running, Stop, Stopped, Tid, Tracer, sys};

/// How often the kernel is asked for stops, without a pause, before /proc is asked why there are
/// none: most threads stop within microseconds.
const POLLS_PER_LOOK: u32 = 64;

/// The pause after that. It leaves the processor to threads that have to run in order to stop.
/// Not a wait for their events, because there may be none: a leader that ends before its threads
/// reports nothing, nor does a thread that sleeps uninterruptibly.
const PAUSE: Duration = Duration::from_micros(20);

/// How long threads may sleep uninterruptibly (a page from disk) before they are left for later.
const PATIENCE: Duration = Duration::from_millis(50);

/// All threads of a process that has just been attached to.
#[derive(Debug)]
pub struct Attached {
    /// Those that have stopped, each once, by whatever came first: the interrupt, or a signal or
    /// event of its own. A [`Stop::Clone`] among them names a thread that is here, too; the child
    /// of a [`Stop::Fork`] reports its first stop to [`Tracer::wait`].
    pub stopped: Vec<Stopped>,
    /// Those asleep in the kernel beyond interruption (a parent in vfork(2), a network file). They
    /// cannot return to the program before they have reported a stop to [`Tracer::wait`].
    /// The child that a vfork(2) waits for runs in the same memory, untraced: a breakpoint would
    /// end it.
    pub late: Vec<Running>,
}

impl Attached {
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
        if let Some(Ok(child)) = child.map(|child| tracer.wait_for(child)) {
            let _ = child.detach();
        }
    }
}

/// A process half attached to.
struct Attaching<'a> {
    tracer: &'a mut Tracer,
    process: Tid,
    /// Every thread that is traced; none for one that has not stopped yet.
    threads: BTreeMap<Tid, Option<Stopped>>,
    late: Vec<Tid>,
}

impl Tracer {
    /// Attaches to all threads of `process` and stops them, without a signal that they could see.
    ///
    /// Threads that begin meanwhile are traced from their beginning (`Options::follow`). Those
    /// that end meanwhile report that to [`Tracer::wait`]. A thread that stopped for a reason of
    /// its own may report a [`Stop::Interrupt`] after it has been resumed
    /// (see [`Running::interrupt`]).
    ///
    /// # Errors
    /// [`AttachError`]. Nothing is traced then, and what was stopped runs on.
    pub fn attach(&mut self, process: Tid, options: Options) -> Result<Attached, AttachError> {
        diagnosis::before(process)?;
        self.options = options;
        let (threads, late) = (BTreeMap::new(), Vec::new());
        let mut attaching = Attaching {
            tracer: self,
            process,
            threads,
            late,
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
        loop {
            let mut found = false;
            // All are seized before the first is stopped: the stop of the process is the shorter.
            while self.seize_new()? {
                found = true;
            }
            if !found {
                return Ok(());
            }
            self.stop_all();
        }
    }

    /// One pass over /proc/PID/task; true if there was a new thread.
    fn seize_new(&mut self) -> Result<bool, AttachError> {
        let process = self.process;
        let gone = |_| AttachError::NoSuchProcess { process };
        let mut found = false;
        for tid in procfs::threads(process).map_err(gone)? {
            if !self.threads.contains_key(&tid) && !self.late.contains(&tid) && self.seize(tid)? {
                // One traced from its beginning may have reported already.
                let stopped = self.tracer.take_stop(tid);
                self.threads.insert(tid, stopped);
                found = true;
            }
        }
        Ok(found)
    }

    /// False if the thread has ended.
    fn seize(&self, tid: Tid) -> Result<bool, AttachError> {
        match sys::seize(tid.get(), self.tracer.options.bits()) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            // Ended, not reaped; or traced from its beginning; or really refused.
            Err(errno) => match Status::of(tid) {
                Some(status) if status.is_dead() => Ok(false),
                Some(status) if diagnosis::is_ours(&status) => Ok(true),
                Some(_) => Err(diagnosis::refused(self.process, tid, errno)),
                None => Ok(false),
            },
        }
    }

    /// Interrupts what runs and collects its stops.
    fn stop_all(&mut self) {
        for tid in self.missing() {
            // One that has ended is found out below.
            let _ = sys::interrupt(tid.get());
        }
        let since = Instant::now();
        let mut polls = 0;
        while self.threads.values().any(Option::is_none) {
            match self.tracer.poll_kernel() {
                Some(event) => self.enter(event),
                None => {
                    polls += 1;
                    if polls % POLLS_PER_LOOK == 0 {
                        self.look(since.elapsed() > PATIENCE);
                        // There may be no event to wait for: see PAUSE.
                        thread::sleep(PAUSE);
                    }
                }
            }
        }
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
    /// before its threads; and, `impatient`, those that sleep uninterruptibly.
    fn look(&mut self, impatient: bool) {
        for tid in self.missing() {
            let state = Status::of(tid).map_or('X', |status| status.state());
            if state == 'D' && impatient {
                self.late.push(tid);
            }
            if matches!(state, 'Z' | 'X') || (state == 'D' && impatient) {
                self.threads.remove(&tid);
            }
        }
    }

    fn attached(self) -> Result<Attached, AttachError> {
        let stopped: Vec<Stopped> = self.threads.into_values().flatten().collect();
        let late: Vec<Running> = self.late.into_iter().map(Running::new).collect();
        if stopped.is_empty() && late.is_empty() {
            return Err(AttachError::NoSuchProcess {
                process: self.process,
            });
        }
        Ok(Attached { stopped, late })
    }

    /// Lets everything go. Those asleep beyond interruption cannot be detached from.
    fn release(mut self) {
        self.stop_all();
        let_go(self.tracer, self.threads.into_values().flatten());
    }
}
