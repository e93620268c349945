//! How many blocks each stack has allocated. Compiled into the agent and into the tracer.
//!
//! A thread counts for itself, in a [`Tally`], whose lines are in its own cache. There is no room
//! for all stacks: a count that has to go is added to the sums of all threads, one [`Sum`] a stack.
//! So what a stack has allocated is its sum and what the tallies hold of it.
//!
//! All is exact while no thread is in the agent. While threads run, a reader that finds a tally's
//! version even, and the same, before and after it reads some counts, knows that no count went to
//! the sums meanwhile; and one that finds a sum to be the same before and after it reads all
//! tallies, that none of them has added to it between: then each call is in one of both, and in one
//! only. A thread that is killed, or whose signal handler leaves by longjmp(3), between the two
//! steps of a count that goes, may have counted what that held twice: a few instructions every some
//! thousand stacks.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64, fence};

/// Stacks that a thread counts by itself.
pub const COUNTED: usize = 1024;

/// Places in which a stack may be.
pub const WAYS: usize = 4;

/// What one thread has counted. Only that thread writes here; zeroed memory is an empty one.
#[repr(C, align(128))]
pub struct Tally {
    /// Odd while a count changes its stack.
    pub version: AtomicU64,
    /// No set is in two pages.
    _padding: [u64; 15],
    /// In sets of [`WAYS`]: by the low bits of the stack's number, or beside that.
    pub counts: [Count; COUNTED],
}

/// Sets of counts, none of which is in two pages.
pub const SETS: usize = COUNTED / WAYS;

/// What one stack has allocated. Without blocks and bytes, it is nobody's.
#[repr(C, align(32))]
pub struct Count {
    /// Which.
    pub stack: AtomicU32,
    /// How many blocks. Wraps: what another count says to be too many is taken off here.
    pub blocks: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
}

/// What all threads have counted of one stack, but for what is in their tallies.
#[repr(C)]
#[derive(Default)]
pub struct Sum {
    /// Blocks; wraps, too.
    pub blocks: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
}

#[inline(always)]
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(value), Relaxed);
}

impl Count {
    #[inline(always)]
    fn is_of(&self, stack: u32) -> bool {
        self.stack.load(Relaxed) == stack
    }

    fn is_nobodys(&self) -> bool {
        self.blocks.load(Relaxed) == 0 && self.bytes.load(Relaxed) == 0
    }

    #[inline(always)]
    fn add(&self, blocks: u64, bytes: u64) {
        add(&self.blocks, blocks);
        add(&self.bytes, bytes);
    }
}

impl Tally {
    /// One more block of `bytes`, if the stack is where it belongs: nearly always. False, and
    /// nothing has changed, if not.
    #[inline(always)]
    pub fn count_again(&self, stack: u32, bytes: u64) -> bool {
        let count = self.counts.get(stack as usize % COUNTED);
        match count.filter(|count| count.is_of(stack)) {
            Some(count) => {
                count.add(1, bytes);
                true
            }
            None => false,
        }
    }

    /// So many more blocks and bytes, less if that wraps. Whose count has to go for it is added to
    /// its sum.
    pub fn count<'s>(
        &self,
        stack: u32,
        (blocks, bytes): (u64, u64),
        sum: impl Fn(u32) -> Option<&'s Sum>,
    ) {
        let place = stack as usize % COUNTED;
        let set = self.set(place / WAYS);
        let mine = set.iter().find(|count| count.is_of(stack));
        if let Some(count) = mine {
            return count.add(blocks, bytes);
        }
        let nobodys = set.iter().find(|count| count.is_nobodys());
        if let Some(count) = nobodys.or(set.get(place % WAYS)) {
            self.replace(count, stack, sum);
            count.add(blocks, bytes);
        }
    }

    fn set(&self, set: usize) -> &[Count] {
        let first = set.wrapping_mul(WAYS);
        let set = self.counts.get(first..first.wrapping_add(WAYS));
        set.unwrap_or_default()
    }

    /// A count is of `stack` from now on.
    fn replace<'s>(&self, count: &Count, stack: u32, sum: impl Fn(u32) -> Option<&'s Sum>) {
        let version = self.version.load(Relaxed) | 1;
        self.version.store(version, Relaxed);
        fence(Release);
        if let Some(sum) = sum(count.stack.load(Relaxed)).filter(|_| !count.is_nobodys()) {
            sum.blocks.fetch_add(count.blocks.load(Relaxed), Relaxed);
            sum.bytes.fetch_add(count.bytes.load(Relaxed), Relaxed);
        }
        count.stack.store(stack, Relaxed);
        count.blocks.store(0, Relaxed);
        count.bytes.store(0, Relaxed);
        self.version.store(version.wrapping_add(1), Release);
    }

    /// What the counts of a set are, and whether that was so at one moment.
    pub fn read(&self, set: usize) -> ([(u32, u64, u64); WAYS], bool) {
        let before = self.version.load(Acquire);
        let set = self.set(set);
        let read = core::array::from_fn(|way| {
            let count = set.get(way);
            count.map_or((0, 0, 0), |count| {
                let (blocks, bytes) = (count.blocks.load(Relaxed), count.bytes.load(Relaxed));
                (count.stack.load(Relaxed), blocks, bytes)
            })
        });
        fence(Acquire);
        let is_same = self.version.load(Relaxed) == before;
        (read, is_same && before & 1 == 0)
    }
}
