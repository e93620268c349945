//! The calls of one thread that have been entered and have not returned.
//!
//! Pure: it is told of entries and returns, and answers what they mean. Nothing here trusts that a
//! call returns: it may be left by `longjmp(3)` or an exception, or its thread may die.

use leaktap_api::{
    Action, Entered, FunctionId, Innermost, Nested, Place, Stack, Standing, State, standing,
};
use leaktap_arch::RETURN_LEN;
use leaktap_ledger::FamilyId;
use leaktap_memory::Addr;

use crate::record::Allocator;

/// Nested calls that a thread remembers.
const NESTED: usize = 128;

/// A call of a probed function. The return of one that frees is not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call<U> {
    /// The function.
    pub(crate) function: FunctionId,
    /// Whose heap its block is in.
    pub(crate) family: FamilyId,
    /// A user has told of that one: what it calls of another is no part of it.
    pub(crate) is_told: bool,
    /// Stack pointer at its first instruction, where the return address is.
    pub(crate) entry_sp: Addr,
    /// Where it returns to.
    pub(crate) ret: Addr,
    /// What it does.
    pub(crate) action: Action,
    /// Its integer arguments; of brk(2), the old end is put for argument 1.
    pub(crate) arguments: [u64; 6],
    /// How many calls had mapped something when it began.
    pub(crate) begun: u64,
    /// What has to be undone if the call fails or never returns.
    pub(crate) undo: U,
}

/// What a call being entered is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// One of its own.
    Own,
    /// Made by one that is under way.
    Nested,
}

/// The calls of a thread, innermost last.
#[derive(Debug)]
pub(crate) struct Calls<U> {
    stack: Vec<Call<U>>,
    nested: Nested<NESTED>,
}

impl<U> Default for Calls<U> {
    fn default() -> Calls<U> {
        Calls {
            stack: Vec::new(),
            nested: Nested::default(),
        }
    }
}

impl<U> Call<U> {
    /// What has allocated the block that it returns.
    pub(crate) fn allocator(&self) -> Allocator {
        Allocator {
            function: self.function,
            family: self.family,
        }
    }

    fn place(&self) -> Place {
        Place {
            sp: self.entry_sp.get(),
            ret: self.ret.get(),
        }
    }

    /// The block that it frees.
    fn block(&self) -> Option<u64> {
        self.action.block(&self.arguments)
    }

    /// Whether they are calls of the same function: several families have one of that name.
    fn is_same(&self, other: &Call<U>) -> bool {
        self.function == other.function && self.family == other.family
    }

    /// How it stands to another one.
    fn innermost(&self, next: &Call<U>) -> Innermost {
        let is_other = !self.is_same(next);
        let same_block = is_other && next.block().is_some() && next.block() == self.block();
        Innermost {
            place: self.place(),
            state: match self.action.is_free() {
                true => State::MayBeOver { same_block },
                false => State::Runs,
            },
            may_jump: is_other,
            is_foreign: next.family != self.family,
        }
    }
}

impl<U: Copy> Calls<U> {
    /// Decides what `next` is. `stack` is walked for that; `dead` takes every call found to be over
    /// without a return.
    pub(crate) fn enter(
        &mut self,
        entered: Entered,
        next: &Call<U>,
        stack: &mut impl Stack,
        mut dead: impl FnMut(Call<U>),
    ) -> Entry {
        self.leave_from(next, &mut dead);
        while let Some(call) = self.stack.last() {
            let place = call.place();
            // A free's return is not seen. Its return address may be there once more: a function in
            // a loop that ends with a jump to free. Nothing but another free is part of one.
            let is_over = || stack.word(place.sp) != Some(place.ret);
            if call.action.is_free() && (!next.action.is_free() || is_over()) {
                self.stack.pop();
                continue;
            }
            let innermost = call.innermost(next);
            let is_call = |place| self.stack.iter().any(|call| call.place() == place);
            let nested = Some(&mut self.nested);
            match standing(entered, innermost, is_call, nested, stack) {
                Standing::PartOf(call) => {
                    self.leave_above(Some(call), dead);
                    // What it maps is its own, too.
                    let is_own =
                        |outer: &Call<U>| outer.family == next.family || next.action.is_mapping();
                    let is_part = |outer: &Call<U>| !outer.is_told || is_own(outer);
                    return match self.stack.last().is_none_or(is_part) {
                        true => Entry::Nested,
                        false => Entry::Own,
                    };
                }
                Standing::Within(call) => {
                    self.leave_above(Some(call), dead);
                    return Entry::Own;
                }
                Standing::Alone { is_certain: true } => self.leave_above(None, &mut dead),
                Standing::Alone { is_certain: false } => {
                    self.stack.pop().into_iter().for_each(&mut dead)
                }
            }
        }
        Entry::Own
    }

    /// A call of the same function that was entered where `next` is, is over, and so are all that
    /// began later: those to which it has jumped, too.
    fn leave_from(&mut self, next: &Call<U>, dead: impl FnMut(Call<U>)) {
        let mut calls = self.stack.iter();
        let elsewhere = calls.rposition(|call| call.place() != next.place());
        let first = elsewhere.map_or(0, |at| at + 1);
        let mut there = self.stack.iter().skip(first);
        if let Some(at) = there.position(|call| call.is_same(next)) {
            self.stack.drain(first + at..).rev().for_each(dead);
        }
    }

    /// All calls are over that began after the one entered at `sp`.
    fn leave_above(&mut self, sp: Option<u64>, dead: impl FnMut(Call<U>)) {
        let at = self
            .stack
            .iter()
            .rposition(|call| Some(call.entry_sp.get()) == sp);
        self.stack
            .drain(at.map_or(0, |at| at + 1)..)
            .rev()
            .for_each(dead);
    }

    /// Notes a call that [`Calls::enter`] found to be of its own.
    pub(crate) fn push(&mut self, call: Call<U>) {
        self.stack.push(call);
    }

    /// The call that returns when the thread is at `ret` with `sp`, or nothing if this is not the
    /// return of a noted call. Calls that it had made itself are over, too: `dead` takes them. One
    /// that has ended with a jump to another one returns with it, and is the next answer.
    pub(crate) fn returned(
        &mut self,
        ret: Addr,
        sp: Addr,
        mut dead: impl FnMut(Call<U>),
    ) -> Option<Call<U>> {
        let is_there =
            |call: &Call<U>| call.ret == ret && call.entry_sp.checked_add(RETURN_LEN) == Some(sp);
        let returns = |call: &Call<U>| is_there(call) && !call.action.is_free();
        let position = self.stack.iter().rposition(returns)?;
        for call in self.stack.drain(position + 1..) {
            dead(call);
        }
        self.stack.pop()
    }

    /// Whether no call is under way, as far as is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.stack.is_empty()
    }

    /// Takes all calls: the thread or the trace ends.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Call<U>> + '_ {
        self.stack.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leaktap_api::{Caller, Reach};
    use std::ops::ControlFlow;

    const MALLOC: FunctionId = FunctionId(0);
    const CALLOC: FunctionId = FunctionId(1);
    const DELETE: FunctionId = FunctionId(2);

    /// Places of the callers, whose return addresses are there, and how far a walk gets.
    struct Known(Vec<Caller>, Reach);

    impl Stack for Known {
        fn word(&self, at: u64) -> Option<u64> {
            let place = self.0.iter().find(|caller| caller.place.sp == at);
            Some(place?.place.ret)
        }

        fn walk(&mut self, mut visit: impl FnMut(Caller) -> ControlFlow<()>) -> Reach {
            let is_met = self.0.iter().any(|caller| visit(*caller).is_break());
            if is_met { Reach::Stopped } else { self.1 }
        }
    }

    fn called_by(calls: &[Call<u32>]) -> Known {
        let caller = |call: &Call<u32>| Caller {
            place: call.place(),
            signal: false,
        };
        Known(calls.iter().map(caller).collect(), Reach::Root)
    }

    fn call(function: FunctionId, sp: u64, ret: u64) -> Call<u32> {
        let action = if function == DELETE {
            Action::FREE
        } else {
            Action::ALLOCATE
        };
        Call {
            function,
            family: FamilyId::FIRST,
            is_told: false,
            entry_sp: Addr::new(sp),
            ret: Addr::new(ret),
            action,
            arguments: [1; 6],
            begun: 0,
            undo: sp as u32,
        }
    }

    fn enter(calls: &mut Calls<u32>, next: Call<u32>, mut stack: Known) -> (Entry, Vec<u32>) {
        let mut over = Vec::new();
        let entered = Entered {
            place: next.place(),
            by_program: false,
        };
        let dead = |call: Call<u32>| over.push(call.undo);
        let entry = calls.enter(entered, &next, &mut stack, dead);
        if entry == Entry::Own {
            calls.push(next);
        }
        (entry, over)
    }

    #[test]
    fn calls_left_by_longjmp_are_over_and_those_around_them_are_not() {
        let outer = call(CALLOC, 0x1000, 0x40);
        let left = call(MALLOC, 0x800, 0x50);
        let mut by_handler = called_by(&[outer]);
        by_handler.0.insert(
            0,
            Caller {
                place: Place {
                    sp: 0x900,
                    ret: 0x60,
                },
                signal: true,
            },
        );
        let mut calls = Calls::default();
        assert_eq!(
            enter(&mut calls, outer, called_by(&[])),
            (Entry::Own, vec![])
        );
        assert_eq!(enter(&mut calls, left, by_handler), (Entry::Own, vec![]));
        let next = call(MALLOC, 0xf00, 0x70);
        assert_eq!(
            enter(&mut calls, next, called_by(&[outer])),
            (Entry::Nested, vec![0x800])
        );
        assert_eq!(
            enter(&mut calls, next, called_by(&[])),
            (Entry::Own, vec![0x1000])
        );
    }

    #[test]
    fn what_a_delete_frees_is_one_free_until_it_has_returned() {
        let delete = call(DELETE, 0x1000, 0x40);
        let free = |sp| Call {
            arguments: [2; 6],
            function: CALLOC,
            ..call(DELETE, sp, 0x50)
        };
        let mut calls = Calls::default();
        enter(&mut calls, delete, called_by(&[]));
        let inside = enter(&mut calls, free(0xf00), called_by(&[delete]));
        assert_eq!(inside, (Entry::Nested, vec![]));
        let jumped = Call {
            ret: delete.ret,
            ..free(0x1000)
        };
        assert_eq!(
            enter(&mut calls, jumped, called_by(&[delete])).0,
            Entry::Nested
        );
        assert_eq!(enter(&mut calls, free(0xf00), called_by(&[])).0, Entry::Own);
        assert_eq!(calls.stack.len(), 1);
    }

    #[test]
    fn a_jump_to_another_allocator_is_a_call_of_its_own() {
        let of_pool = |function| Call {
            family: FamilyId::new(1),
            ..call(function, 0x1000, 0x40)
        };
        let mut calls = Calls::default();
        for _ in 0..2 {
            let entries = [of_pool(MALLOC), call(MALLOC, 0x1000, 0x40)];
            let entries = entries.map(|next| enter(&mut calls, next, called_by(&[])).0);
            assert_eq!(entries, [Entry::Own, Entry::Own]);
            assert_eq!(calls.stack.len(), 2, "those from before are over");
        }
        let mut back = || calls.returned(Addr::new(0x40), Addr::new(0x1008), |_| {});
        let families = [back(), back(), back()].map(|call| Some(call?.family.number()));
        assert_eq!(families, [Some(0), Some(1), None]);
    }

    /// `void f() { free(malloc(1)); }`, again and again, where all lies in one module.
    #[test]
    fn an_allocation_is_no_part_of_the_free_before_it() {
        let free = call(DELETE, 0x1000, 0x40);
        let mut calls = Calls::default();
        enter(&mut calls, free, called_by(&[]));
        let next = call(MALLOC, 0xff0, 0x50);
        let found = enter(&mut calls, next, called_by(&[free]));
        assert_eq!(found, (Entry::Own, vec![]));
    }

    #[test]
    fn a_return_is_told_by_address_and_stack_pointer() {
        let outer = call(CALLOC, 0x1000, 0x40);
        let mut calls = Calls::default();
        calls.push(outer);
        calls.push(call(MALLOC, 0xf00, 0x50));
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
