//! What was freed wrongly: a bounded log of frees that found no live block, and the pairs of who
//! allocated a block and who freed it.
//!
//! Both are for the tracer to judge. When the log or the set of pairs is full, what comes next is
//! only counted.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use leaktap_memory::GOLDEN;

use crate::primitive::{AtomicU32, AtomicU64};
use crate::{Former, Key, Ledger, StackId};

/// Misfrees that are kept.
pub(crate) const MISFREES: usize = 4096;

/// Places for pairs.
const PAIRS: usize = 64 << 10;

/// Places that are looked at for a pair.
const PROBES: u64 = 16;

/// A free that found no live block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misfree {
    /// What was freed.
    pub key: Key,
    /// The stack of the free.
    pub stack: StackId,
    /// Milliseconds since the ledger's epoch.
    pub time: u32,
    /// The block that was there, if it is remembered that it was freed.
    pub earlier: Option<Former>,
}

/// A block of this stack was freed by a call that returned to `ret`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    /// The stack that had allocated it.
    pub stack: StackId,
    /// Where the free returned to.
    pub ret: u64,
}

/// Both, in memory.
#[repr(C, align(64))]
pub(crate) struct Frees {
    /// Misfrees so far, also those that are not kept.
    misfrees: AtomicU64,
    /// Pairs that found no place.
    unplaced: AtomicU64,
    log: [Entry; MISFREES],
    pairs: [Place; PAIRS],
}

#[repr(C)]
struct Entry {
    /// 0 until the entry is whole.
    key: AtomicU64,
    stack: AtomicU32,
    time: AtomicU32,
    /// One more than the stack of the block that was there; 0 if there is none.
    block: AtomicU32,
    /// Who had freed that.
    by: AtomicU32,
}

#[repr(C)]
struct Place {
    ret: AtomicU64,
    /// One more than the stack's number; 0 until the place is filled.
    stack: AtomicU32,
}

impl Entry {
    fn fill(&self, misfree: &Misfree) {
        let block = |freed: Former| freed.stack.0.wrapping_add(1);
        self.stack.store(misfree.stack.0, Relaxed);
        self.time.store(misfree.time, Relaxed);
        self.block.store(misfree.earlier.map_or(0, block), Relaxed);
        let by = misfree.earlier.map_or(0, |freed| freed.by);
        self.by.store(by, Relaxed);
        self.key.store(misfree.key.0, Release);
    }

    fn read(&self) -> Option<Misfree> {
        let key = self.key.load(Acquire);
        let block = self.block.load(Relaxed).checked_sub(1);
        let by = self.by.load(Relaxed);
        (key != 0).then_some(Misfree {
            key: Key(key),
            stack: StackId(self.stack.load(Relaxed)),
            time: self.time.load(Relaxed),
            earlier: block.map(|stack| Former {
                stack: StackId(stack),
                by,
            }),
        })
    }
}

impl<'m> Ledger<'m> {
    /// Whether one more misfree would be kept.
    pub fn keeps_misfrees(&self) -> bool {
        self.frees().misfrees.load(Relaxed) < MISFREES as u64
    }

    /// Counts a misfree. Keeps it, unless there is nothing to be kept, or no room.
    pub fn misfreed(&self, misfree: Option<&Misfree>) {
        let index = self.frees().misfrees.fetch_add(1, Relaxed);
        if let Some(misfree) = misfree
            && let Some(entry) = self.frees().log.get(index as usize)
        {
            entry.fill(misfree);
        }
    }

    /// The misfrees that were kept, and how many there were in all.
    pub fn misfrees(self) -> (impl Iterator<Item = Misfree> + use<'m>, u64) {
        let count = self.frees().misfrees.load(Acquire);
        let log = (0..MISFREES).filter_map(move |index| self.frees().log.get(index)?.read());
        (log, count)
    }

    /// Enters a pair, unless it is there.
    pub fn pair(&self, pair: Pair) {
        let home = (pair.ret ^ u64::from(pair.stack.0) << 40).wrapping_mul(GOLDEN);
        let stack = pair.stack.0.wrapping_add(1);
        for probe in 0..PROBES {
            let index = (home >> 40).wrapping_add(probe) as usize % PAIRS;
            let Some(place) = self.frees().pairs.get(index) else {
                return;
            };
            let found = match place.ret.load(Acquire) {
                0 => place.ret.compare_exchange(0, pair.ret, Acquire, Acquire),
                ret => Err(ret),
            };
            match found {
                Ok(_) => return place.stack.store(stack, Release),
                Err(ret) if ret == pair.ret && place.stack.load(Acquire) == stack => return,
                Err(_) => {}
            }
        }
        self.frees().unplaced.fetch_add(1, Relaxed);
    }

    /// The pairs, some perhaps twice, and how often there was no place for one.
    pub fn pairs(self) -> (impl Iterator<Item = Pair> + use<'m>, u64) {
        let unplaced = self.frees().unplaced.load(Relaxed);
        let pairs = (0..PAIRS).filter_map(move |index| {
            let place = self.frees().pairs.get(index)?;
            let stack = place.stack.load(Acquire).checked_sub(1)?;
            Some(Pair {
                stack: StackId(stack),
                ret: place.ret.load(Acquire),
            })
        });
        (pairs, unplaced)
    }
}
