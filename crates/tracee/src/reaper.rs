//! Reaps traced threads while the tracer itself cannot.
//!
//! PTRACE_SEIZE waits for an exec(2) of the process that is under way, and that one for the ends of
//! all other threads. A traced thread has ended when its tracer has reaped it: which waits in
//! PTRACE_SEIZE, for ever. wait(2) lets any thread of the tracer's process reap it.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{Event, Tid, procfs, stand_by, sys};

/// Seizing a thread takes microseconds, unless it waits for an exec.
const PERIOD: Duration = Duration::from_millis(5);

/// A thread of ours that stands by.
#[derive(Debug)]
pub(crate) struct Reaper {
    watched: Arc<Mutex<Watched>>,
    /// None if there can be no thread more.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Watched {
    /// Since when a thread is being seized.
    since: Option<Instant>,
    /// The processes whose threads may be traced.
    processes: Vec<Tid>,
    /// Ends that the tracer has not been told of, as from waitpid(2).
    ended: Vec<(Tid, i32)>,
    is_over: bool,
}

impl Reaper {
    /// Reaps threads of `process`, until it is dropped. The thread is at work before anything is
    /// stopped.
    pub(crate) fn start(process: Tid) -> Reaper {
        let watched = Arc::new(Mutex::new(Watched {
            processes: vec![process],
            ..Watched::default()
        }));
        let of_thread = Arc::clone(&watched);
        let thread = stand_by(move || watch(&of_thread)).ok();
        Reaper { watched, thread }
    }

    /// Also reaps the threads of `process`.
    pub(crate) fn watch(&self, process: Tid) {
        lock(&self.watched).processes.push(process);
    }

    /// What `seize` returns, and the ends of threads which were reaped meanwhile.
    pub(crate) fn during<T>(&self, seize: impl FnOnce() -> T) -> (T, Vec<Event>) {
        lock(&self.watched).since = Some(Instant::now());
        let seized = seize();
        let mut watched = lock(&self.watched);
        watched.since = None;
        let ended = mem::take(&mut watched.ended).into_iter();
        let events = ended.filter_map(|(tid, status)| Event::end(tid, status));
        (seized, events.collect())
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        lock(&self.watched).is_over = true;
        // Not waited for: all threads of the target are stopped by now.
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

fn watch(watched: &Mutex<Watched>) {
    loop {
        thread::park_timeout(PERIOD);
        let mut watched = lock(watched);
        if watched.is_over {
            return;
        }
        if watched.since.is_some_and(|since| since.elapsed() >= PERIOD) {
            let ended: Vec<_> = watched.processes.iter().flat_map(|of| reap(*of)).collect();
            watched.ended.extend(ended);
        }
    }
}

/// Of the threads of `process` that are no tracees of ours, waitid(2) says so.
fn reap(process: Tid) -> impl Iterator<Item = (Tid, i32)> {
    let threads = procfs::threads(process).unwrap_or_default();
    let ended = threads.into_iter();
    ended.filter_map(|tid| Some((tid, sys::end_of(tid.get())?)))
}

/// A panic of the other one leaves all whole.
fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}
