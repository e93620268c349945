//! Is a call one of its own, or part of one that is under way?
//!
//! Only a walk of the stack can tell: the call before may have been left by longjmp(3) or an
//! exception, and this one may be a signal handler's, on whatever stack.

use core::ops::ControlFlow;

use crate::nested::{Nested, Passed};

/// Deepest stack of a thread, for a guess where a walk breaks off: Linux's default limit.
const STACK_SPAN: u64 = 8 << 20;

/// A call that is being entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Where its return address is.
    pub place: Place,
    /// Code calls it that is neither the allocator's nor the C library's: so it is the program's,
    /// though an allocator function may be among the callers (of a handler of operator new, say).
    pub by_program: bool,
}

/// Where a call was entered, which tells it from all others that are under way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Stack pointer, at its first instruction.
    pub sp: u64,
    /// The return address there.
    pub ret: u64,
}

/// The last call that was found to be of its own and is not known to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Innermost {
    /// Where it was entered.
    pub place: Place,
    /// What it does.
    pub state: State,
    /// It is a call of another function than the one that is entered, and may have ended with a
    /// jump there.
    pub may_jump: bool,
    /// It is a call to another allocator, of which the one that is entered is no part.
    pub is_foreign: bool,
}

/// What a call is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs, if it was not left: its return would have been seen.
    Runs,
    /// The agent was at work for it: as that calls nobody, a signal handler has interrupted it.
    Busy,
    /// As `Runs`, made by a signal handler that has interrupted the agent.
    Under,
    /// It may have returned. Where a walk breaks off, it has, unless it frees the same block as the
    /// one that is entered.
    MayBeOver {
        /// They free the same.
        same_block: bool,
    },
}

/// A frame among the callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Where the call was entered that returns to it.
    pub place: Place,
    /// A signal has interrupted it, and what came before is called by the handler.
    pub signal: bool,
}

/// How far a walk has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It was told to stop.
    Stopped,
    /// To the root, by call frame information.
    Root,
    /// It broke off.
    BrokeOff,
}

/// The stack of a thread that is entering a call.
pub trait Stack {
    /// The word at `at`; nothing if that cannot be read.
    fn word(&self, at: u64) -> Option<u64>;

    /// Shows the callers, innermost first, until `visit` breaks.
    fn walk(&mut self, visit: impl FnMut(Caller) -> ControlFlow<()>) -> Reach;
}

/// What a call is. Calls are named by the stack pointers at their entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Part of this call. Any that began later and has not returned is over.
    PartOf(u64),
    /// The program's own, while this one is under way: a signal handler's, most likely. Any that
    /// began later and has not returned is over.
    Within(u64),
    /// The program's own, and the innermost call is over.
    Alone {
        /// A walk has met none: so are all the others.
        is_certain: bool,
    },
}

/// Decides what a call is. `is_call` tells where a call was entered that is under way, `innermost`
/// among them; `nested` is what is remembered of calls that were part of it.
#[inline]
pub fn standing<const N: usize>(
    entered: Entered,
    innermost: Innermost,
    is_call: impl Fn(Place) -> bool,
    mut nested: Option<&mut Nested<N>>,
    stack: &mut impl Stack,
) -> Standing {
    let Place { sp, .. } = entered.place;
    let earlier = innermost.place.sp;
    if entered.place == innermost.place && innermost.may_jump {
        return match innermost.is_foreign {
            true => Standing::Within(earlier),
            false => Standing::PartOf(earlier),
        };
    }
    if let Some(nested) = nested.as_deref_mut() {
        nested.begin(earlier, sp);
    }
    let mut found = search(entered, &is_call, nested.as_deref_mut(), stack);
    if let Some(nested) = nested.as_deref_mut()
        && let Found::Nested = found.met
        && stack.word(nested.of().sp) != Some(nested.of().ret)
    {
        nested.forget();
        found = search(entered, &is_call, Some(nested), stack);
    }
    let call = match found.met {
        Found::Call(place) => {
            if let Some(nested) = nested.as_deref_mut() {
                nested.belong_to(place);
            }
            place.sp
        }
        Found::Nested => earlier,
        Found::Nothing if found.reach == Reach::Root => {
            return Standing::Alone { is_certain: true };
        }
        Found::Nothing => return guessed(sp, innermost),
    };
    if found.own || call == earlier && innermost.state == State::Busy {
        return Standing::Within(call);
    }
    if let Some(nested) = nested {
        nested.keep(found.passed);
        nested.push(entered.place);
    }
    Standing::PartOf(call)
}

/// What a walk has found.
struct Search {
    met: Found,
    /// The program has made the call, or a signal handler.
    own: bool,
    reach: Reach,
    passed: Passed,
}

enum Found {
    Nothing,
    /// The innermost of the calls that are under way and among the callers.
    Call(Place),
    /// One that was part of it.
    Nested,
}

#[inline]
fn search<const N: usize>(
    entered: Entered,
    is_call: impl Fn(Place) -> bool,
    mut nested: Option<&mut Nested<N>>,
    stack: &mut impl Stack,
) -> Search {
    let mut own = entered.by_program;
    let mut met = Found::Nothing;
    let mut passed = nested
        .as_deref()
        .map_or(Passed::default(), Nested::none_passed);
    let reach = stack.walk(|caller| {
        // What was entered at the same place is over: its return address is overwritten.
        if caller.place.sp != entered.place.sp {
            if is_call(caller.place) {
                met = Found::Call(caller.place);
                return ControlFlow::Break(());
            }
            if let Some(nested) = nested.as_deref_mut() {
                if nested.has(caller.place) {
                    met = Found::Nested;
                    return ControlFlow::Break(());
                }
                nested.pass(caller.place, &mut passed);
            }
        }
        own |= caller.signal;
        ControlFlow::Continue(())
    });
    Search {
        met,
        own,
        reach,
        passed,
    }
}

/// Where a walk broke off, and met no call.
#[cold]
fn guessed(sp: u64, innermost: Innermost) -> Standing {
    let earlier = innermost.place.sp;
    let is_below = earlier.wrapping_sub(sp).wrapping_sub(1) < STACK_SPAN;
    match innermost.state {
        State::Busy | State::Under if !is_below => Standing::Within(earlier),
        State::Busy => Standing::Within(earlier),
        State::Runs | State::Under | State::MayBeOver { same_block: true } if is_below => {
            Standing::PartOf(earlier)
        }
        // On another stack, from which no way is known, or left.
        _ => Standing::Alone { is_certain: false },
    }
}

#[cfg(test)]
#[path = "nesting_tests.rs"]
mod tests;
