//! Enters blocks into the ledger.

use core::sync::atomic::Ordering::{Acquire, Relaxed};

use leaktap_memory::{Addr, ReadMemory};
use leaktap_unwind::{Frame, Lookup, Memo, Miss, Remembered, RuleCache, Start};

use crate::agent::{Agent, stripe};
use crate::layout::{Loss, MEMO_QUADS, Thread};
use crate::rules::{AllRows, CachedRows};
use crate::stack::Stack;
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

impl Agent {
    /// Enters a block with the stack of the function's caller. `state` is for this call alone.
    #[inline(always)]
    pub(crate) fn allocated(self, state: *mut Thread, call: &Allocated) {
        let time = self.control.live.clock.load(Relaxed);
        let stack = self.stack(state, call);
        let entered = stack.and_then(|stack| {
            let block = Block {
                addr: call.at,
                size: call.size,
                stack,
                time,
            };
            self.ledger().allocated(stripe(state), &block).ok()
        });
        if entered.is_none() {
            self.lose(Loss::Full);
        }
    }

    #[inline(always)]
    fn stack(self, state: *mut Thread, call: &Allocated) -> Option<StackId> {
        let Allocated { kind, sp, bp, .. } = *call;
        // SAFETY: the caller says that nobody else uses `state`.
        let state = unsafe { &mut *state };
        let memory = Stack::new(self, state.stack, sp);
        let ip = memory.read_u64(Addr::new(sp)).unwrap_or(0);
        let start = Start {
            ip: Addr::new(ip),
            sp: Addr::new(sp.wrapping_add(8)),
            bp,
        };
        let generation = self.control.live.generation.load(Acquire);
        // The function is part of the stack that is remembered, so it is part of the key: a call
        // through a pointer may be of one function or another.
        let key = generation << 8 | u32::from(kind);
        let mut memo = Memo::over(&mut state.walks);
        let id = match memo.find(start, key, memory.words(start.sp), &memory) {
            Lookup::Hit(id) => Some(StackId(id)),
            Lookup::Miss(miss) => {
                if state.generation != generation {
                    forget(&mut state.rules);
                    state.generation = generation;
                }
                let mut rows = CachedRows {
                    all: AllRows::new(self),
                    cache: RuleCache::over(&mut state.rules),
                };
                self.walk(miss, &memory, &mut rows, &mut state.frames, kind)
            }
        };
        state.stack = memory.known();
        id
    }

    #[cold]
    #[inline(never)]
    fn walk(
        self,
        miss: Miss<'_, MEMO_QUADS>,
        memory: &Stack,
        rows: &mut CachedRows<'_>,
        frames: &mut [Frame],
        kind: u8,
    ) -> Option<StackId> {
        let frames = frames
            .get_mut(..self.control.depth as usize)
            .unwrap_or_default();
        let (walk, keep) = miss.walk(memory, rows, frames);
        let frames = frames.get_mut(..walk.depth).unwrap_or_default();
        let kept = self.without_own(frames);
        let raw = frames.get(..kept).unwrap_or_default();
        // SAFETY: a Frame is a transparent u64.
        let raw = unsafe { core::slice::from_raw_parts(raw.as_ptr().cast::<u64>(), raw.len()) };
        let id = self.ledger().intern(
            raw,
            Kept {
                end: walk.end as u8,
                kind,
            },
        )?;
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

/// A loop of plain stores would become a call of memset.
fn forget(rules: &mut [Remembered]) {
    for rule in rules {
        // SAFETY: a valid reference.
        unsafe { core::ptr::write_volatile(rule, Remembered::EMPTY) };
    }
}
