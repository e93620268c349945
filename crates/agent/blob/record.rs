//! Enters blocks into the ledger.

use core::sync::atomic::Ordering::{Acquire, Relaxed};

use leaktap_memory::{Addr, ReadMemory};
use leaktap_unwind::{Frame, RuleCache, Start};

use crate::agent::{Agent, stripe};
use crate::layout::{Loss, Thread};
use crate::rules::{AllRows, CachedRows};
use crate::stack::{Stack, Words};
use leaktap_ledger::{Block, Kept, StackId};

/// A call that returned a block.
#[derive(Clone, Copy)]
pub(crate) struct Allocated {
    /// The block.
    pub(crate) at: u64,
    /// Bytes that were asked for.
    pub(crate) size: u64,
    /// The function.
    pub(crate) kind: u8,
    /// Stack pointer at its entry.
    pub(crate) sp: u64,
    /// rbp there.
    pub(crate) bp: u64,
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

    /// The function is part of the stack that is remembered, so it is part of the key: a call
    /// through a pointer may be of one function or another.
    #[inline]
    fn key(&self, generation: u32) -> u32 {
        generation << 8 | u32::from(self.kind)
    }
}

impl Agent {
    /// Enters a block with the stack of the function's caller. `state` is for this call alone.
    #[inline(always)]
    pub(crate) fn allocated(self, state: *mut Thread, call: &Allocated) {
        let time = self.control.live.clock.load(Relaxed);
        let Some(stack) = self.stack(state, call) else {
            return self.lose(Loss::Full);
        };
        let block = Block {
            addr: call.at,
            size: call.size,
            stack,
            time,
        };
        if self.ledger().allocated(stripe(state), &block).is_err() {
            self.lose(Loss::Full);
        }
    }

    #[inline(always)]
    fn stack(self, state: *mut Thread, call: &Allocated) -> Option<StackId> {
        let generation = self.control.live.generation.load(Acquire);
        // SAFETY: the caller says that nobody else uses `state`.
        let state = unsafe { &mut *state };
        if let Some(words) = Words::known(self, &state.stack, call.sp) {
            // SAFETY: there is at least this one: the return address.
            let start = call.start(unsafe { words.get(0) });
            let above = words.len - 1;
            // SAFETY: the memo asks for none but the first `above` words behind it.
            let word = |index: u32| unsafe { words.get(u64::from(index) + 1) };
            let found = state.walks.find(start, call.key(generation), above, word);
            if let Some(id) = found {
                return Some(StackId(id));
            }
        }
        self.walk(state, *call, generation)
    }

    /// Where the stack is not known well enough, or the walk is not remembered.
    #[cold]
    #[inline(never)]
    fn walk(self, state: &mut Thread, call: Allocated, generation: u32) -> Option<StackId> {
        let memory = Stack::new(self, state.stack, call.sp);
        let ip = memory.read_u64(Addr::new(call.sp)).unwrap_or(0);
        let (start, key) = (call.start(ip), call.key(generation));
        let id = match state.walks.find_in(start, key, &memory) {
            Some(id) => Some(StackId(id)),
            None => self.walk_anew(state, (start, key), &memory, generation, call.kind),
        };
        state.stack = memory.known();
        id
    }

    fn walk_anew(
        self,
        state: &mut Thread,
        (start, key): (Start, u32),
        memory: &Stack,
        generation: u32,
        kind: u8,
    ) -> Option<StackId> {
        let mut rows = CachedRows {
            all: AllRows::new(self),
            cache: RuleCache::over(&mut state.rules, generation),
        };
        let frames = state.frames.get_mut(..self.control.depth as usize);
        let frames = frames.unwrap_or_default();
        let (walk, keep) = state.walks.walk(start, key, memory, &mut rows, frames);
        let frames = frames.get_mut(..walk.depth).unwrap_or_default();
        let kept = self.without_own(frames);
        let raw = frames.get(..kept).unwrap_or_default();
        // SAFETY: a Frame is a transparent u64.
        let raw = unsafe { core::slice::from_raw_parts(raw.as_ptr().cast::<u64>(), raw.len()) };
        let kept = Kept {
            end: walk.end as u8,
            kind,
        };
        let id = self.ledger().intern_along(raw, kept, &mut state.trail)?;
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
