//! A thread that sleeps until the agent tells of something, and wakes the tracer then, which sleeps
//! in waitpid(2).
//!
//! The agent could send no signal: the target may be another user's, or in another pid namespace.
//! What it shares with us is memory, so it is a futex that this waits for.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use leaktap_agent::Shared;
use leaktap_tracee::{Sleeper, stand_by};
use rustix::thread::futex;

/// How soon the tracer is woken again: a signal that comes just before waitpid(2) wakes nobody.
const AGAIN: Duration = Duration::from_millis(2);

/// That thread.
#[derive(Debug)]
pub(crate) struct Waker {
    is_over: Arc<AtomicBool>,
    /// What it is to watch, and for whom.
    asks: Sender<(Arc<Shared>, Sleeper)>,
    watched: Option<Arc<Shared>>,
    thread: Option<JoinHandle<()>>,
}

impl Waker {
    /// Has it stand by, before anything is stopped. Nothing if there can be no thread: the tracer
    /// wakes by itself, only later.
    pub(crate) fn stand_by() -> Option<Waker> {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let (asks, asked) = channel::<(Arc<Shared>, Sleeper)>();
        let run = move || {
            if let Ok((told, tracer)) = asked.recv() {
                while !ends.load(Acquire) {
                    pass_on(&told, tracer);
                }
            }
        };
        let thread = stand_by(run).ok()?;
        Some(Waker {
            is_over,
            asks,
            watched: None,
            thread: Some(thread),
        })
    }

    /// From now on it wakes this thread.
    pub(super) fn watch(&mut self, shared: &Arc<Shared>) {
        self.watched = Some(Arc::clone(shared));
        let asked = (Arc::clone(shared), Sleeper::this());
        let _ = self.asks.send(asked); // it stands by until it is asked
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.is_over.store(true, Release);
        let Some(shared) = &self.watched else {
            return; // it ends with the channel
        };
        // Whatever it is about to wait for has changed then.
        let changes = &shared.told().changes;
        changes.fetch_add(1, AcqRel);
        wake(changes);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it does not panic
        }
    }
}

/// Waits for a change, or wakes `tracer`, which has one to look at.
fn pass_on(shared: &Shared, tracer: Sleeper) {
    let (told, seen) = (&shared.told().changes, &shared.live().seen);
    let (change, last) = (told.load(Acquire), seen.load(Acquire));
    // Both return at once where the word has changed, and else a little too early at worst.
    let _ = if change == last {
        futex::wait(told, futex::Flags::empty(), change, None)
    } else {
        tracer.wake();
        let again = AGAIN.try_into().ok();
        futex::wait(seen, futex::Flags::empty(), last, again.as_ref())
    };
}

/// Wakes whoever waits for `word`, in whatever process.
pub(super) fn wake(word: &AtomicU32) {
    /// All.
    const MOST: u32 = i32::MAX.cast_unsigned();
    let _ = futex::wake(word, futex::Flags::empty(), MOST); // none may wait
}
