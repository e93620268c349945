use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::marker::PhantomData;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;

use crate::status::Status;
use crate::tracee::OfThisThread;
use crate::{Died, Options, OptionsError, Signal, Stop, Stopped, Tid, restart, sys};

/// What [`Tracer::wait`] has seen.
#[derive(Debug)]
pub enum Event {
    /// A tracee has stopped.
    Stopped(Stopped),
    /// A tracee (or another child of this thread) has ended by itself.
    Exited {
        /// The thread; a process when it is the leader, whose end is reported last.
        tid: Tid,
        /// As given to exit(2), 0 to 255.
        code: i32,
    },
    /// A tracee (or another child of this thread) was ended by a signal.
    Killed {
        /// The thread; a process when it is the leader, whose end is reported last.
        tid: Tid,
        /// What killed it.
        signal: Signal,
        /// Whether it left a core.
        core: bool,
    },
    /// A signal handler of ours ran (`EINTR`): time to look at flags and clocks.
    Interrupted,
    /// There is no tracee and no child left.
    NoChildren,
}

/// The tracing side of the calling thread: all that it traces reports here.
///
/// ptrace(2) ties a tracee to the thread that attached, so this cannot be sent to another. There
/// should be one a thread: two of them would take each other's events.
///
/// Waiting for one thread takes what others report from the kernel as well, and keeps it for
/// [`Tracer::wait`]. It has to: the end of a killed leader is reported only after the ends of its
/// other threads have been collected.
#[derive(Debug, Default)]
pub struct Tracer {
    kept: VecDeque<Event>,
    /// Of its tracees: those of the first one.
    options: Option<Options>,
    /// Of those that have others.
    others: BTreeMap<Tid, Options>,
    /// Those that stop before their ends, too.
    ends: BTreeSet<Tid>,
    /// There has been one: what it has made has its options at first.
    has_heirs: bool,
    of_this_thread: OfThisThread,
}

impl Tracer {
    /// A tracer without tracees.
    pub fn new() -> Tracer {
        Tracer {
            kept: VecDeque::new(),
            options: None,
            others: BTreeMap::new(),
            ends: BTreeSet::new(),
            has_heirs: false,
            of_this_thread: PhantomData,
        }
    }

    /// The next event, for which it looks `spins` times before it sleeps: a sleeping tracer wakes
    /// tens of microseconds late.
    pub fn wait(&mut self, spins: u32) -> Event {
        if let Some(event) = self.kept.pop_front() {
            return event;
        }
        for _ in 0..spins {
            if let Some(event) = next(sys::ANY, libc::WNOHANG) {
                return event;
            }
            // Else the signal that came meanwhile would wake nobody.
            if sys::take_wake() {
                return Event::Interrupted;
            }
            // A tracee on the same core runs meanwhile; one on another core is not kept waiting.
            thread::yield_now();
        }
        block()
    }

    /// Replaces the options of `stopped` alone.
    ///
    /// # Errors
    /// [`OptionsError`]; the basic ones are never refused.
    pub fn set_options(&mut self, stopped: &Stopped, options: Options) -> Result<(), OptionsError> {
        self.ends.remove(&stopped.tid());
        self.note_options(stopped.tid(), options);
        stopped.set_options(options)
    }

    /// `tid` is traced with these.
    pub(crate) fn note_options(&mut self, tid: Tid, options: Options) {
        let usual = *self.options.get_or_insert(options);
        match options == usual {
            true => self.others.remove(&tid),
            false => self.others.insert(tid, options),
        };
    }

    /// What `tid` is traced with.
    pub(crate) fn options_of(&self, tid: Tid) -> Options {
        let others = self.others.get(&tid).copied();
        let options = others.or(self.options).unwrap_or_default();
        match self.ends.contains(&tid) {
            true => options.exit_events(),
            false => options,
        }
    }

    /// Whether `stopped` is to stop at its end: [`Stop::Exit`]. What is made by such a one has its
    /// options at first, and must be [told](Tracer::is_born).
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn stop_at_end(&mut self, stopped: &Stopped, stops: bool) -> Result<(), OptionsError> {
        match stops {
            true => self.ends.insert(stopped.tid()),
            false => self.ends.remove(&stopped.tid()),
        };
        self.has_heirs |= stops;
        stopped.set_options(self.options_of(stopped.tid()))
    }

    /// Whether `tid` stops at its end.
    pub fn stops_at_end(&self, tid: Tid) -> bool {
        self.ends.contains(&tid)
    }

    /// A thread is at its first stop: with the options of whatever made it.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn is_born(&mut self, stopped: &Stopped) -> Result<(), OptionsError> {
        // Of an earlier thread of that number.
        self.others.remove(&stopped.tid());
        self.ends.remove(&stopped.tid());
        match self.has_heirs {
            true => stopped.set_options(self.options_of(stopped.tid())),
            false => Ok(()),
        }
    }

    /// Whether more is to come of `tid`, one of its tracees, than what it keeps. A child that is
    /// killed at once may end before its parent tells of it.
    pub fn has(&self, tid: Tid) -> bool {
        sys::is_ours(tid.get())
    }

    /// The next event if there is one by now.
    pub fn poll(&mut self) -> Option<Event> {
        self.kept
            .pop_front()
            .or_else(|| next(sys::ANY, libc::WNOHANG))
    }

    /// What `tid` has reported by now. What others have stays where it is, and is not gone through:
    /// of many threads, each is asked for by itself.
    pub fn poll_of(&mut self, tid: Tid) -> Option<Event> {
        let event = self.take_of(tid);
        let event = event.or_else(|| next(tid.get(), libc::WNOHANG));
        event.filter(|event| !matches!(event, Event::NoChildren))
    }

    /// The next that `tid` reports; of any thread, if that is no tracee any longer.
    pub fn wait_of(&mut self, tid: Tid) -> Event {
        if let Some(event) = self.take_of(tid) {
            return event;
        }
        loop {
            match next(tid.get(), 0) {
                Some(Event::NoChildren) => return self.wait(0),
                Some(event) => return event,
                None => {}
            }
        }
    }

    fn take_of(&mut self, tid: Tid) -> Option<Event> {
        let is_its = |event: &Event| event.tid() == Some(tid);
        let index = self.kept.iter().position(is_its)?;
        self.kept.remove(index)
    }

    /// The next stop of `tid`, for as long as it takes.
    ///
    /// # Errors
    /// [`Died`] if it ends instead, or has become another thread by an exec. What tells of that is
    /// still to come from [`Tracer::wait`], as is all that other threads report meanwhile.
    pub fn wait_for(&mut self, tid: Tid) -> Result<Stopped, Died> {
        loop {
            if let Some(found) = self.kept_of(tid) {
                return found;
            }
            match block() {
                Event::Interrupted => {}
                Event::NoChildren => return Err(Died { tid }),
                event => self.kept.push_back(event),
            }
        }
    }

    /// The next stop of `tid`, or nothing if there is none by `deadline`.
    ///
    /// # Errors
    /// As [`Tracer::wait_for`].
    pub fn wait_until(&mut self, tid: Tid, deadline: Instant) -> Result<Option<Stopped>, Died> {
        let mut polls = 0;
        loop {
            if let Some(found) = self.kept_of(tid) {
                return found.map(Some);
            }
            match next(sys::ANY, libc::WNOHANG) {
                Some(Event::Interrupted) => {}
                Some(Event::NoChildren) => return Err(Died { tid }),
                Some(event) => self.kept.push_back(event),
                None if Instant::now() >= deadline => return Ok(None),
                None => {
                    polls += 1;
                    pause(polls);
                }
            }
        }
    }

    /// What is kept for somebody who waits for `tid`.
    fn kept_of(&mut self, tid: Tid) -> Option<Result<Stopped, Died>> {
        let index = self.kept.iter().position(|event| event.concerns(tid))?;
        Some(self.take(index, tid))
    }

    fn take(&mut self, index: usize, tid: Tid) -> Result<Stopped, Died> {
        match self.kept.remove(index) {
            Some(Event::Stopped(stopped)) if stopped.tid() == tid => Ok(stopped),
            Some(end) => {
                self.kept.insert(index, end);
                Err(Died { tid })
            }
            None => Err(Died { tid }),
        }
    }

    /// The event kept for `tid`, if there is one, else the next that the kernel has by now.
    pub(crate) fn poll_kernel(&mut self) -> Option<Event> {
        next(sys::ANY, libc::WNOHANG)
    }

    /// Takes the end of `child` out of what is kept.
    pub(crate) fn take_end(&mut self, child: Tid) -> Option<Event> {
        let index = self.kept.iter().position(|event| event.is_end_of(child))?;
        self.kept.remove(index)
    }

    /// Takes a stop of `tid` out of what is kept.
    pub(crate) fn take_stop(&mut self, tid: Tid) -> Option<Stopped> {
        let is_it = |event: &Event| matches!(event, Event::Stopped(s) if s.tid() == tid);
        let index = self.kept.iter().position(is_it)?;
        self.take(index, tid).ok()
    }

    /// Leaves an event for [`Tracer::wait`].
    pub fn keep(&mut self, event: Event) {
        self.kept.push_back(event);
    }
}

impl Event {
    /// The end of `tid` that a status of waitpid(2) tells of, if it does.
    pub(crate) fn end(tid: Tid, status: i32) -> Option<Event> {
        match Status::decode(status) {
            Status::Exited { code } => Some(Event::Exited { tid, code }),
            Status::Killed { signal, core } => Some(Event::Killed { tid, signal, core }),
            Status::Stopped { .. } => None,
        }
    }

    /// Of whom it tells; none where it tells of nobody.
    pub fn tid(&self) -> Option<Tid> {
        match self {
            Event::Stopped(stopped) => Some(stopped.tid()),
            Event::Exited { tid, .. } | Event::Killed { tid, .. } => Some(*tid),
            Event::Interrupted | Event::NoChildren => None,
        }
    }

    /// True if somebody who waits for `tid` need not wait longer.
    fn concerns(&self, tid: Tid) -> bool {
        match self {
            Event::Stopped(stopped) => {
                stopped.tid() == tid || stopped.stop() == Stop::Exec { former: tid }
            }
            _ => self.is_end_of(tid),
        }
    }

    fn is_end_of(&self, of: Tid) -> bool {
        match self {
            Event::Exited { tid, .. } | Event::Killed { tid, .. } => *tid == of,
            _ => false,
        }
    }
}

/// Lets tracees run. Most report within microseconds, and those that do not are in no hurry.
fn pause(polls: u32) {
    /// So many looks without a sleep, which takes tens of microseconds.
    const EAGER: u32 = 200;
    match polls {
        ..=EAGER => thread::yield_now(),
        _ => thread::sleep(Duration::from_micros(100)),
    }
}

fn block() -> Event {
    loop {
        if let Some(event) = next(sys::ANY, 0) {
            return event;
        }
    }
}

/// One look at `of`. None with nothing to report, or for a stop that has been overtaken by the
/// thread's end.
fn next(of: i32, flags: i32) -> Option<Event> {
    let (tid, status) = match sys::wait(of, flags) {
        Ok(found) => found?,
        Err(Errno::EINTR) => return Some(Event::Interrupted),
        Err(_) => return Some(Event::NoChildren),
    };
    let tid = Tid::new(tid);
    match Status::decode(status) {
        Status::Stopped { signal, event } => {
            let stop = Stop::of(tid, signal, event).ok()?;
            let stopped = Stopped::new(tid, stop);
            if stop == Stop::Interrupt {
                // At once: nobody would do it later if we died.
                restart::restart_interrupted(&stopped).ok()?;
            }
            Some(Event::Stopped(stopped))
        }
        _ => Event::end(tid, status),
    }
}
