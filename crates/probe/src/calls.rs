//! The calls of one thread that have been entered and have not returned.
//!
//! Pure: it is told of entries and returns, and answers what they mean. Nothing here trusts that a
//! call returns: it may be left by `longjmp(3)` or an exception, or its thread may die.

use leaktap_api::{Action, FunctionId};
use leaktap_memory::Addr;

/// A call of a probed function that has a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call<U> {
    /// The function.
    pub(crate) function: FunctionId,
    /// Stack pointer at its first instruction, where the return address is.
    pub(crate) entry_sp: Addr,
    /// Where it returns to.
    pub(crate) ret: Addr,
    /// What it does.
    pub(crate) action: Action,
    /// Its integer arguments; of brk(2), the old end is put for argument 1.
    pub(crate) arguments: [u64; 6],
    /// What has to be undone if the call fails or never returns.
    pub(crate) undo: U,
}

/// What a call being entered is to those already entered, innermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A call of its own: the outermost, or made by the handler of a signal that interrupted one.
    Outermost,
    /// Made by the innermost call that is still running: not an allocation of its own.
    Nested,
}

/// How the caller of an entered function stands to a call entered before it, told by a walk of
/// the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ancestry {
    /// The earlier call is among the callers.
    Caller,
    /// It is, and a handler of the program's lies between: of a signal, or operator new's.
    CallerOfHandler,
    /// The walk reached the root without meeting it.
    Absent,
    /// The walk broke off before it could tell.
    Unknown,
}

/// Deepest stack of a thread, for a guess where a walk breaks off: Linux's default limit.
const STACK_SPAN: u64 = 8 << 20;

/// The calls of a thread, innermost last.
#[derive(Debug)]
pub(crate) struct Calls<U> {
    stack: Vec<Call<U>>,
}

impl<U> Default for Calls<U> {
    fn default() -> Calls<U> {
        Calls { stack: Vec::new() }
    }
}

impl<U: Copy> Calls<U> {
    /// Decides what the entry of `function` with `entry_sp` and `ret` is. `ancestry` walks the
    /// stack for one earlier call, `dead` takes every call found to be over without a return.
    pub(crate) fn enter(
        &mut self,
        function: FunctionId,
        entry_sp: Addr,
        ret: Addr,
        mut ancestry: impl FnMut(&Call<U>) -> Ancestry,
        mut dead: impl FnMut(Call<U>),
    ) -> Entry {
        while let Some(&call) = self.stack.last() {
            if call.entry_sp == entry_sp && call.ret == ret {
                if call.function != function {
                    return Entry::Nested; // a tail call of the function before
                }
                // Entered again at the same place: a signal interrupted the step into it, or
                // the call before was left by longjmp.
            } else {
                match ancestry(&call) {
                    Ancestry::Caller => return Entry::Nested,
                    Ancestry::CallerOfHandler => return Entry::Outermost,
                    Ancestry::Unknown if is_below(entry_sp, call.entry_sp) => return Entry::Nested,
                    Ancestry::Absent | Ancestry::Unknown => {}
                }
            }
            self.stack.pop();
            dead(call);
        }
        Entry::Outermost
    }

    /// Notes a call that [`Calls::enter`] found to be of its own.
    pub(crate) fn push(&mut self, call: Call<U>) {
        self.stack.push(call);
    }

    /// The call that returns when the thread is at `ret` with `sp`, or nothing if this is not the
    /// return of a noted call. Calls that it had made itself are over, too: `dead` takes them.
    pub(crate) fn returned(
        &mut self,
        ret: Addr,
        sp: Addr,
        mut dead: impl FnMut(Call<U>),
    ) -> Option<Call<U>> {
        let returns = |call: &Call<U>| call.ret == ret && call.entry_sp.checked_add(8) == Some(sp);
        let position = self.stack.iter().rposition(returns)?;
        for call in self.stack.drain(position + 1..) {
            dead(call);
        }
        self.stack.pop()
    }

    /// Takes all calls: the thread or the trace ends.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Call<U>> + '_ {
        self.stack.drain(..)
    }
}

/// True if the call at `inner` may be deeper on the stack than the one at `outer`.
pub(crate) fn is_below(inner: Addr, outer: Addr) -> bool {
    matches!(outer.offset_from(inner), Some(1..=STACK_SPAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MALLOC: FunctionId = FunctionId(0);
    const CALLOC: FunctionId = FunctionId(1);

    fn call(function: FunctionId, sp: u64, ret: u64) -> Call<u32> {
        Call {
            function,
            entry_sp: Addr::new(sp),
            ret: Addr::new(ret),
            action: Action::ALLOCATE,
            arguments: [0; 6],
            undo: sp as u32,
        }
    }

    fn enter(calls: &mut Calls<u32>, next: Call<u32>, found: Ancestry) -> (Entry, Vec<u32>) {
        let mut over = Vec::new();
        let entry = calls.enter(
            next.function,
            next.entry_sp,
            next.ret,
            |_| found,
            |c| over.push(c.undo),
        );
        if entry == Entry::Outermost {
            calls.push(next);
        }
        (entry, over)
    }

    #[test]
    fn what_an_entry_is() {
        use Ancestry::*;
        use Entry::*;
        let outer = call(CALLOC, 0x1000, 0x40);
        let inner = call(MALLOC, 0xf00, 0x50);
        let above = call(MALLOC, 0x1100, 0x50);
        let cases = [
            ("called by it", inner, Caller, Nested, vec![]),
            (
                "by a signal handler",
                inner,
                CallerOfHandler,
                Outermost,
                vec![],
            ),
            ("after a longjmp", inner, Absent, Outermost, vec![0x1000]),
            ("truncated, below", inner, Unknown, Nested, vec![]),
            ("truncated, above", above, Unknown, Outermost, vec![0x1000]),
            (
                "tail call",
                call(MALLOC, 0x1000, 0x40),
                Absent,
                Nested,
                vec![],
            ),
            (
                "again",
                call(CALLOC, 0x1000, 0x40),
                Absent,
                Outermost,
                vec![0x1000],
            ),
        ];
        for (what, next, ancestry, expected, over) in cases {
            let mut calls = Calls::default();
            assert_eq!(enter(&mut calls, outer, Absent), (Outermost, vec![]));
            assert_eq!(
                enter(&mut calls, next, ancestry),
                (expected, over),
                "{what}"
            );
        }
    }

    #[test]
    fn a_return_is_told_by_address_and_stack_pointer() {
        let mut calls = Calls::default();
        enter(&mut calls, call(CALLOC, 0x1000, 0x40), Ancestry::Absent);
        enter(
            &mut calls,
            call(MALLOC, 0xf00, 0x50),
            Ancestry::CallerOfHandler,
        );
        let mut over = Vec::new();
        let mut back = |ret: u64, sp: u64| {
            let call = calls.returned(Addr::new(ret), Addr::new(sp), |c| over.push(c.undo));
            call.map(|c| c.undo)
        };
        assert_eq!(
            back(0x40, 0x1000),
            None,
            "before the return address was popped"
        );
        assert_eq!(back(0x41, 0x1008), None, "elsewhere");
        assert_eq!(back(0x40, 0x1008), Some(0x1000));
        assert_eq!(over, [0xf00], "the handler was left by longjmp");
        assert_eq!(calls.drain().count(), 0);
    }
}
