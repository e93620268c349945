//! A thread that sleeps until the agent tells of something, and wakes the tracer then, which sleeps
//! in waitpid(2).
//!
//! The agent could send no signal: the target may be another user's, or in another pid namespace.
//! What it shares with us is memory, so it is a futex that this waits for.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use leaktap_agent::Shared;
use leaktap_tracee::Sleeper;
use rustix::thread::futex;

/// How soon the tracer is woken again: a signal that comes just before waitpid(2) wakes nobody.
const AGAIN: Duration = Duration::from_millis(2);

/// That thread.
#[derive(Debug)]
pub(super) struct Waker {
    shared: Arc<Shared>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Waker {
    /// Starts it, to wake this one. Nothing if there can be no thread: the tracer wakes by itself, only
    /// later.
    pub(super) fn start(shared: &Arc<Shared>) -> Option<Waker> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (told, ends, tracer) = (Arc::clone(shared), Arc::clone(&is_over), Sleeper::this());
        let run = move || {
            while !ends.load(Acquire) {
                pass_on(&told, tracer);
            }
        };
        let thread = Builder::new().spawn(run).ok()?;
        Some(Waker {
            shared: Arc::clone(shared),
            is_over,
            thread: Some(thread),
        })
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.is_over.store(true, Release);
        // Whatever it is about to wait for has changed then.
        let changes = &self.shared.told().changes;
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
