//! The record of calls that have not returned, but for the one that [`Thread::outer`] names.
//!
//! The original that the agent has called returns to the agent, so the tracer must know of each
//! such return address before it takes the agent away, wherever that lies: on a stack that was left
//! for another one, too. A call goes on record when another one begins in its thread, and is struck
//! off when it returns. One that was left by longjmp(3) never does: it is struck off when its place
//! is needed and it is seen to be over.
//!
//! A thread writes to its own record alone, but its signal handlers may interrupt that: so places
//! are taken by exchanges.

use core::cell::Cell;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use crate::agent::Agent;
use crate::layout::{Call, MAYBE_OVER, Thread, Unreturned};
use crate::stack::stack_below;

impl Agent {
    /// A call begins in `thread`, with its return address at `sp`, before the one that was entered
    /// with its own at `earlier` has returned. That never will if it `is_over` by a walk, and
    /// popped: one of the two alone need not mean it, for a handler's stack may lie in a frame.
    #[cold]
    pub(crate) fn put_on_record(self, thread: *mut Thread, earlier: u64, sp: u64, is_over: bool) {
        let record = record(thread);
        let entry = if is_over { earlier | MAYBE_OVER } else { earlier };
        let is_same = |call: &AtomicU64| call.load(Relaxed) & !MAYBE_OVER == earlier;
        if is_over && is_popped(self, earlier, sp)
            || record.calls.iter().any(is_same)
            || record.put(entry)
        {
            return;
        }
        for call in &record.calls {
            let entry = call.load(Relaxed);
            let call = entry & !MAYBE_OVER;
            let is_popped = entry & MAYBE_OVER != 0 && is_popped(self, call, sp);
            if is_popped || self.is_overwritten(call) {
                record.strike(call);
            }
        }
        if !record.put(entry) {
            record.is_incomplete.store(1, Relaxed);
        }
    }

    /// Whether a call of `thread` that was entered with its return address at `sp` is on record.
    pub(crate) fn is_on_record(self, thread: *mut Thread, sp: u64) -> bool {
        let record = record(thread);
        let is_it = |call: &AtomicU64| call.load(Relaxed) & !MAYBE_OVER == sp;
        record.len.load(Relaxed) != 0 && record.calls.iter().any(is_it)
    }

    /// Whether the agent's return address of a call, entered with its own at `entry_sp`, is there
    /// no more.
    fn is_overwritten(self, entry_sp: u64) -> bool {
        let word = Cell::new(0);
        let words = core::slice::from_ref(&word);
        self.copy(Call::return_slot(entry_sp), words) == 1 && !self.owns(word.get())
    }
}

/// The call of `thread` that was entered with its return address at `sp` returns.
#[inline(always)]
pub(crate) fn returns(thread: *mut Thread, sp: u64) {
    let record = record(thread);
    if record.len.load(Relaxed) != 0 {
        record.strike(sp);
    }
}

#[inline(always)]
fn record(thread: *mut Thread) -> &'static Unreturned {
    // SAFETY: the state of this thread, which exists while the agent is present; all of the record
    // is atomic.
    unsafe { &(*thread).unreturned }
}

impl Unreturned {
    /// False if there is no place. The count is raised first: whoever leaves this by a jump leaves
    /// one that is too high, and no entry behind that nobody would strike off.
    fn put(&self, entry_sp: u64) -> bool {
        let take = |call: &&AtomicU64| {
            call.compare_exchange(0, entry_sp, Relaxed, Relaxed).is_ok()
        };
        self.len.fetch_add(1, Relaxed);
        let is_put = self.calls.iter().any(|call| take(&call));
        if !is_put {
            self.len.fetch_sub(1, Relaxed);
        }
        is_put
    }

    #[cold]
    fn strike(&self, entry_sp: u64) {
        for call in &self.calls {
            let entry = call.load(Relaxed);
            let is_its = entry != 0 && entry & !MAYBE_OVER == entry_sp;
            if is_its && call.compare_exchange(entry, 0, Relaxed, Relaxed).is_ok() {
                self.len.fetch_sub(1, Relaxed);
            }
        }
    }
}

/// Whether a frame at `earlier` is popped, since the stack pointer is at `sp`: on the stack of the
/// same thread, above it.
fn is_popped(agent: Agent, earlier: u64, sp: u64) -> bool {
    earlier < sp
        && stack_below(agent, sp).is_some_and(|stack| stack.contains(sp) && stack.contains(earlier))
}
