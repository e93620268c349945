//! Is a call one of its own, or part of one that is running?

use core::cell::Cell;
use core::ops::ControlFlow;

use leaktap_memory::{Addr, ReadMemory};
use leaktap_unwind::{End, Found, Rules, Start, walk_with};

use crate::agent::{Agent, outer, set_outer};
use crate::layout::{BUSY, Known, TAKEN, Thread};
use crate::rules::AllRows;
use crate::stack::{Stack, Window};

/// What a call is.
pub(crate) enum Entry {
    /// The allocator's own, part of a call that is running.
    Nested,
    /// The program's. What the thread was doing is to be restored when the call returns.
    Own {
        /// [`Thread::outer`] as it was, or 0 if that was over.
        before: u64,
    },
}

/// Deepest stack of a thread, for a guess where a walk breaks off: Linux's default limit.
const STACK_SPAN: u64 = 8 << 20;

/// Decides for a call that was entered with its return address at `sp`.
#[inline]
pub(crate) fn entry(agent: Agent, thread: *mut Thread, sp: u64, bp: u64) -> Entry {
    if agent.is_from_allocator(sp) {
        return Entry::Nested;
    }
    match outer(thread) {
        0 => Entry::Own { before: 0 },
        running => among(agent, thread, running, sp, bp),
    }
}

/// There is a call that has not returned: it runs, or was left by longjmp(3) or an exception.
///
/// The same decisions as the breakpoint engine's (`Ancestry` in the probe crate).
#[cold]
fn among(agent: Agent, thread: *mut Thread, running: u64, sp: u64, bp: u64) -> Entry {
    let taken = running & TAKEN != 0;
    // Interrupted while it worked for this thread, the agent's notes may be half written.
    let (known, window) = match taken {
        true => (Known::NOTHING, None),
        false => take(thread, running),
    };
    let stack = Stack::new(agent, known, sp, window);
    let (entry, is_over) = decide(&stack, agent, running, sp, bp);
    if let Entry::Own { .. } = entry {
        agent.put_on_record(thread, running & !TAKEN, sp, is_over);
    }
    if !taken {
        give_back(thread, running, stack.known());
    }
    entry
}

fn take(thread: *mut Thread, running: u64) -> (Known, Option<&'static Window>) {
    set_outer(thread, running | BUSY);
    // SAFETY: the state of this thread, whose signal handlers keep away while it is busy.
    unsafe {
        let window = Cell::from_mut(&mut (*thread).window[..]);
        ((*thread).stack, Some(window.as_slice_of_cells()))
    }
}

fn give_back(thread: *mut Thread, running: u64, known: Known) {
    // SAFETY: as in `take`.
    unsafe { (*thread).stack = known };
    set_outer(thread, running);
}

/// Also true if the walk got to the root, by call frame information, and did not meet the earlier
/// call.
fn decide(stack: &Stack, agent: Agent, running: u64, sp: u64, bp: u64) -> (Entry, bool) {
    let earlier = Addr::new(running & !TAKEN);
    let caller_of_earlier = earlier.wrapping_offset(8);
    let (mut met, mut own) = (false, false);
    let mut rows = AllRows(agent);
    let mut outermost = Addr::default();
    let end = match stack.read_u64(Addr::new(sp)) {
        Ok(ip) => {
            // The program's own code, wherever the stack leads: a handler of operator new, say. A
            // function that the agent has called may end with a jump, so is called by that.
            let mut inside = agent.control.inside.iter();
            own = !agent.owns(ip) && !inside.any(|module| module.contains(ip));
            let start = Start {
                ip: Addr::new(ip),
                sp: Addr::new(sp.wrapping_add(8)),
                bp,
            };
            walk_with(start, stack, &mut rows, |visited| {
                met = visited.sp == caller_of_earlier
                    && stack.read_u64(earlier) == Ok(visited.frame.address().get());
                own |= visited.signal && !met;
                outermost = visited.frame.lookup();
                if met {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
        }
        Err(_) => End::Unreadable,
    };
    let below = earlier.get().wrapping_sub(sp).wrapping_sub(1) < STACK_SPAN;
    // Without call frame information, a frame pointer of 0 need not mean the root: musl's code has
    // neither.
    let is_over = !met && end == End::Root && matches!(rows.rule(outermost), Found::Rule(_));
    let entry = match end {
        // The agent itself calls nobody: a call made while it is busy is a handler's.
        _ if met && (own || running & BUSY != 0) => Entry::Own { before: running },
        _ if met => Entry::Nested,
        _ if is_over => Entry::Own { before: 0 },
        _ if below && running & BUSY != 0 => Entry::Own { before: running },
        _ if below => Entry::Nested,
        // On a stack of its own, from which no way is known.
        _ if running & TAKEN != 0 => Entry::Own { before: running },
        _ => Entry::Own { before: 0 },
    };
    (entry, is_over)
}
