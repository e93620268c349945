//! Who frees whose blocks, and frees that no block was found for.

use core::sync::atomic::Ordering::Relaxed;

use crate::agent::{Agent, stripe};
use crate::layout::{ALL_SEEN, FREE_STACKS, NO_FUNCTION, PAIRS, Thread};
use crate::record::{Allocated, Sought};
use leaktap_ledger::{Freed, Key, Misfree, Pair, StackId};
use leaktap_memory::GOLDEN;

/// A call that frees.
#[derive(Clone, Copy)]
pub(crate) struct Freeing {
    /// What.
    pub(crate) key: Key,
    /// Stack pointer at the function's entry.
    pub(crate) sp: u64,
    /// rbp there.
    pub(crate) bp: u64,
}

impl Freeing {
    #[inline(always)]
    fn ret(&self) -> u64 {
        // SAFETY: the call instruction has just written the return address there.
        unsafe { *(self.sp as *const u64) }
    }

    /// Who frees, where stacks are not kept: the lower half of the return address.
    #[inline(always)]
    pub(crate) fn who(&self) -> u32 {
        self.ret() as u32
    }
}

impl Agent {
    /// What the tracer wants to know of frees: [`PAIRS`] and its kin.
    #[inline(always)]
    pub(crate) fn wants(self, what: u32) -> bool {
        self.control.live.wanted.load(Relaxed) & what != 0
    }

    /// Tells who frees a block of `stack`, unless the thread has told that lately.
    #[inline(always)]
    pub(crate) fn look_at_pair(self, state: &Thread, free: &Freeing, stack: StackId) {
        if !self.wants(PAIRS) {
            return;
        }
        let ret = free.ret();
        let key = ret ^ u64::from(stack.0) << 40;
        let hash = key.wrapping_mul(GOLDEN) >> 32;
        if let Some([last, other]) = state.pairs.get(hash as usize % state.pairs.len())
            && last.load(Relaxed) != key
            && other.load(Relaxed) != key
        {
            // Of two that are in turns, neither drives the other one out.
            other.store(last.load(Relaxed), Relaxed);
            last.store(key, Relaxed);
            self.new_pair(Pair { stack, ret });
        }
    }

    #[cold]
    #[inline(never)]
    fn new_pair(self, pair: Pair) {
        self.ledger().pair(pair);
    }

    /// Takes a block out of the ledger, if it is there, and has a look at whether that is right.
    /// `state` is for this call alone.
    pub(crate) fn freed_closely(self, state: *mut Thread, free: &Freeing) -> Freed {
        if self.ledger().is_passed_on(free.key) {
            return Freed::PassedOn;
        }
        let stack = match self.wants(FREE_STACKS) {
            true => self.stack_of_free(state, free),
            false => None,
        };
        let by = stack.map_or(free.who(), |stack| stack.0.wrapping_add(1));
        let block = self.ledger().freed_by(stripe(state), free.key, by);
        match &block {
            // SAFETY: the state of this thread, or one that is for this call.
            Some(block) => self.look_at_pair(unsafe { &*state }, free, block.stack),
            None => self.misfreed(state, free, stack),
        }
        Freed::new(free.key.family(), block)
    }

    /// Where not all was seen, only what was freed before is known not to be a block from before.
    #[cold]
    fn misfreed(self, state: *mut Thread, free: &Freeing, stack: Option<StackId>) {
        let ledger = self.ledger();
        let earlier = ledger.freed_before(free.key);
        if earlier.is_none() && !self.wants(ALL_SEEN) {
            return;
        }
        let stack = match stack {
            None if ledger.keeps_misfrees() => self.stack_of_free(state, free),
            stack => stack,
        };
        let misfree = stack.map(|stack| Misfree {
            key: free.key,
            stack,
            time: self.control.live.clock.load(Relaxed),
            earlier,
        });
        ledger.misfreed(misfree.as_ref());
    }

    fn stack_of_free(self, state: *mut Thread, free: &Freeing) -> Option<StackId> {
        let call = Allocated {
            key: free.key,
            size: 0,
            kind: NO_FUNCTION.into(),
            sp: free.sp,
            bp: free.bp,
        };
        self.stack(state, &call, Sought::NotYet)
    }
}
