//! Enters blocks into the ledger.

use core::sync::atomic::Ordering::{Acquire, Relaxed};

use leaktap_memory::{Addr, ReadMemory};
use leaktap_unwind::{Frame, Memo, Missed, Remembered, RuleCache, Start};

use crate::agent::{Agent, stripe};
use crate::frees::Freeing;
use crate::layout::{
    CACHED_RULES, FREE_STACKS, KIND_BITS, Loss, MAX_DEPTH, MEMO_QUADS, MEMO_SETS, NEARS, STACKS,
    Thread, function, kind,
};
use crate::rules::{AllRows, CachedRows};
use crate::stack::{Stack, Words};
use crate::tally::{Sum, Tally};
use leaktap_ledger::{AREA_BITS, Block, FamilyId, Full, Kept, Key, Near, StackId, Trail};

/// A call that returned a block.
#[derive(Clone, Copy)]
pub(crate) struct Allocated {
    /// The block.
    pub(crate) key: Key,
    /// Bytes that were asked for.
    pub(crate) size: u64,
    /// The function, and the heap.
    pub(crate) kind: u16,
    /// Stack pointer at its entry.
    pub(crate) sp: u64,
    /// rbp there.
    pub(crate) bp: u64,
}

/// What a walk writes to, of a thread's state.
struct Work<'t> {
    walks: &'t mut Memo<MEMO_SETS, MEMO_QUADS>,
    rules: &'t mut [Remembered; CACHED_RULES],
    frames: &'t mut [Frame; MAX_DEPTH],
    trail: &'t mut Trail<{ MAX_DEPTH + 1 }>,
}

/// What has been done already to know a call's stack.
#[derive(Clone, Copy)]
pub(crate) enum Sought {
    /// Nothing.
    NotYet,
    /// It was not found among those that are remembered.
    InVain(Missed),
    /// All.
    Found(StackId),
}

impl Allocated {
    /// The walk begins in the caller.
    #[inline]
    fn start(&self, ip: u64) -> Start {
        Start {
            ip: Addr::new(ip),
            sp: Addr::new(self.sp.wrapping_add(8)),
            bp: self.bp,
        }
    }

    /// Whether it has returned the block of `inner`, another family's, as its own.
    pub(crate) fn hands_on(&self, inner: Key) -> bool {
        inner.addr() == self.key.addr() && inner.family() != self.key.family()
    }

    /// The function is part of the stack that is remembered, so it is part of the key: a call
    /// through a pointer may be of one function or another.
    #[inline]
    fn key(&self, generation: u32) -> u32 {
        generation << KIND_BITS | u32::from(self.kind)
    }

    /// The same call, which has returned a block of another heap.
    fn of_heap(self, family: FamilyId) -> Allocated {
        Allocated {
            kind: kind(function(self.kind), family),
            ..self
        }
    }
}

impl Agent {
    /// Enters a block whose stack is remembered, and where the blocks of its area are: nearly every
    /// one. `state` is for this call alone.
    ///
    /// # Errors
    /// Nothing has changed.
    #[inline(always)]
    pub(crate) fn allocated_again(
        self,
        state: *mut Thread,
        call: &Allocated,
    ) -> Result<(), Sought> {
        // SAFETY: the caller says that nobody else uses `state`.
        let state = unsafe { &*state };
        let generation = self.control.live.generation.load(Acquire);
        let stack = self.remembered(state, call, generation)?;
        let stripe = state.index.load(Relaxed) as usize;
        let block = self.block(call, stack);
        match near(state, call.key) {
            // SAFETY: `near` says so.
            Some(near) if unsafe { self.ledger().allocated_near(stripe, near, &block) } => {
                if !state.tally.count_again(stack.0, block.size) {
                    self.count(&state.tally, stack, (1, block.size));
                }
                Ok(())
            }
            _ => Err(Sought::Found(stack)),
        }
    }

    /// A stack has allocated so many more blocks and bytes, or fewer, where that wraps. `tally` is
    /// for this call alone.
    #[cold]
    #[inline(never)]
    fn count(self, tally: &Tally, stack: StackId, more: (u64, u64)) {
        let sums = self.control.sums as *const Sum;
        tally.count(stack.0, more, |stack| {
            let is_one = (stack as usize) < STACKS;
            // SAFETY: the tracer maps so many before it arms the first probe, and keeps them mapped
            // while any thread is in the agent; all of one is atomic.
            is_one.then(|| unsafe { &*sums.wrapping_add(stack as usize) })
        });
    }

    #[inline(always)]
    fn block(self, call: &Allocated, stack: StackId) -> Block {
        Block {
            key: call.key,
            size: call.size,
            stack,
            time: self.control.live.clock.load(Relaxed),
        }
    }

    /// Takes a block out of the ledger, before it is really freed, if its area is remembered and it
    /// is where it belongs. False, and nothing has changed, if not. `state` is for this call alone.
    #[inline(always)]
    pub(crate) fn freed_again(self, state: *mut Thread, free: &Freeing) -> bool {
        // SAFETY: as for `allocated_again`.
        let state = unsafe { &*state };
        let Some(near) = near(state, free.key).filter(|_| !self.wants(FREE_STACKS)) else {
            return false;
        };
        let stripe = state.index.load(Relaxed) as usize;
        // SAFETY: `near` says so.
        let Some(stack) = (unsafe { self.ledger().freed_near(stripe, near, free.key, free.who()) })
        else {
            return false;
        };
        self.look_at_pair(state, free, stack);
        true
    }

    /// Remembers where the blocks of the area of one are.
    pub(crate) fn remember_near(self, state: *mut Thread, key: Key) {
        // SAFETY: as for `allocated_again`.
        let nears = unsafe { &mut (*state).nears };
        if let (Some(place), Some(near)) =
            (nears.get_mut(place_of_near(key)), self.ledger().near(key))
        {
            place.set(near);
        }
    }

    /// Enters a block with the stack of the function's caller. `state` is for this call alone.
    pub(crate) fn allocated(self, state: *mut Thread, call: &Allocated, sought: Sought) {
        let Some(stack) = self.stack(state, call, sought) else {
            return self.lose(Loss::Full);
        };
        let block = self.block(call, stack);
        match self.ledger().allocated(stripe(state), &block) {
            // SAFETY: the caller says that nobody else uses `state`.
            Ok(_) => self.count(unsafe { &(*state).tally }, stack, (1, block.size)),
            Err(Full) => self.lose(Loss::Full),
        }
        self.remember_near(state, call.key);
    }

    /// The block of `inner`, which the call has handed on, is known by its stack from now on, and
    /// was allocated there.
    #[cold]
    pub(crate) fn handed_on(self, state: *mut Thread, call: &Allocated, inner: Key) {
        let by = call.key.family();
        let call = call.of_heap(inner.family());
        // Without room for one more, it keeps the stack that it has.
        if let Some(stack) = self.stack(state, &call, Sought::NotYet)
            && let Some((size, before)) = self.ledger().hand_on(by, inner, stack)
        {
            // SAFETY: the caller says that nobody else uses `state`.
            let tally = unsafe { &(*state).tally };
            self.count(tally, before, (1_u64.wrapping_neg(), size.wrapping_neg()));
            self.count(tally, stack, (1, size));
        }
    }

    /// The stack, if it lies in memory that is known and the walk is remembered.
    ///
    /// # Errors
    /// How far it was sought.
    #[inline(always)]
    fn remembered(
        self,
        state: &Thread,
        call: &Allocated,
        generation: u32,
    ) -> Result<StackId, Sought> {
        let words = Words::known(self, &state.stack, call.sp).ok_or(Sought::NotYet)?;
        // SAFETY: there is at least this one: the return address.
        let start = call.start(unsafe { words.get(0) });
        let above = words.len - 1;
        // SAFETY: the memo asks for none but the first `above` words behind it.
        let word = |index: u32| unsafe { words.get(u64::from(index) + 1) };
        let found = state.walks.find(start, call.key(generation), above, word);
        found.map(StackId).map_err(Sought::InVain)
    }

    pub(crate) fn stack(
        self,
        state: *mut Thread,
        call: &Allocated,
        sought: Sought,
    ) -> Option<StackId> {
        let generation = self.control.live.generation.load(Acquire);
        // SAFETY: the caller says that nobody else uses `state`.
        let state = unsafe { &mut *state };
        let sought = match sought {
            Sought::NotYet => match self.remembered(state, call, generation) {
                Ok(stack) => Sought::Found(stack),
                Err(sought) => sought,
            },
            other => other,
        };
        if let Sought::Found(stack) = sought {
            return Some(stack);
        }
        let mut work = Work {
            walks: &mut state.walks,
            rules: &mut state.rules,
            frames: &mut state.frames,
            trail: &mut state.trail,
        };
        let memory = Stack::new(self, state.stack, call.sp, Some(&state.window));
        let ip = memory.read_u64(Addr::new(call.sp)).unwrap_or(0);
        let (start, key) = (call.start(ip), call.key(generation));
        let missed = match sought {
            Sought::InVain(missed) => missed,
            _ => Missed::nothing_yet(start, key),
        };
        let found = match missed.is_out_of_reach() {
            true => work.walks.find_in(start, key, &memory, missed),
            false => Err(missed),
        };
        let id = match found {
            Ok(id) => Some(StackId(id)),
            Err(missed) => {
                let start = (start, key, missed);
                self.walk_anew(&mut work, start, &memory, generation, call.kind)
            }
        };
        state.stack = memory.known();
        id
    }

    fn walk_anew(
        self,
        work: &mut Work<'_>,
        start: (Start, u32, Missed),
        memory: &Stack<'_>,
        generation: u32,
        kind: u16,
    ) -> Option<StackId> {
        let mut rows = CachedRows {
            all: AllRows(self),
            cache: RuleCache::over(work.rules, generation),
        };
        let frames = work.frames.get_mut(..self.control.depth as usize);
        let frames = frames.unwrap_or_default();
        let (walk, keep) = work.walks.walk(start, memory, &mut rows, frames);
        let frames = frames.get_mut(..walk.depth).unwrap_or_default();
        let kept = self.without_own(frames);
        let raw = frames.get(..kept).unwrap_or_default();
        // SAFETY: a Frame is a transparent u64.
        let raw = unsafe { core::slice::from_raw_parts(raw.as_ptr().cast::<u64>(), raw.len()) };
        let kept = Kept {
            end: walk.end as u8,
            kind,
        };
        let id = self.ledger().intern_along(raw, kept, work.trail)?;
        keep.keep(id.0);
        Some(id)
    }

    /// Drops the agent's own frames, which are there if a signal interrupted it. Returns how
    /// many are left.
    fn without_own(self, frames: &mut [Frame]) -> usize {
        let mut kept = 0;
        for i in 0..frames.len() {
            let Some(&frame) = frames.get(i) else { break };
            if !self.owns(frame.lookup().get())
                && let Some(place) = frames.get_mut(kept)
            {
                *place = frame;
                kept += 1;
            }
        }
        kept
    }
}

/// Where a thread remembers the area of a block, or another one.
#[inline(always)]
fn place_of_near(key: Key) -> usize {
    (key.addr() >> AREA_BITS) as usize % NEARS
}

/// What `state` remembers of the area of a block.
#[inline(always)]
fn near(state: &Thread, key: Key) -> Option<&Near> {
    let near = state.nears.get(place_of_near(key))?;
    near.is_of(key).then_some(near)
}
