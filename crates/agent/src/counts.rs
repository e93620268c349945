//! What each stack has allocated, as it is read.

use std::collections::HashMap;
use std::mem::offset_of;
use std::ops::Range;
use std::sync::atomic::Ordering::Acquire;

use crate::layout::Thread;
use crate::shared::{LEDGER_AT, SUMS_AT, Shared, THREADS_AT, THREADS_LEN};
use crate::tally::{Count, SETS, Tally, WAYS};

/// Most stacks that are kept, in 200 MB: a target may write more into what it shares with us.
const MOST: usize = 1 << 22;

/// How often what has changed meanwhile is read again.
const ROUNDS: usize = 5;

/// The same for a set of counts, whose thread may have been killed while it changed them.
const TRIES: usize = 100;

/// By stack, how many blocks it has allocated, and their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    of: HashMap<u32, (u64, u64)>,
    /// There were more.
    is_incomplete: bool,
}

impl Counts {
    /// So many more, or less where that wraps.
    pub fn add(&mut self, stack: u32, (blocks, bytes): (u64, u64)) {
        if self.of.len() >= MOST && !self.of.contains_key(&stack) {
            self.is_incomplete = true;
            return;
        }
        let sum = self.of.entry(stack).or_default();
        sum.0 = sum.0.wrapping_add(blocks);
        sum.1 = sum.1.wrapping_add(bytes);
    }

    /// What all stacks have in `other`, too.
    pub fn add_all(&mut self, other: &Counts) {
        self.is_incomplete |= other.is_incomplete;
        for (stack, count) in &other.of {
            self.add(*stack, *count);
        }
    }

    /// What a stack has allocated, if that is known.
    pub fn of(&self, stack: u32) -> Option<(u64, u64)> {
        self.of.get(&stack).copied().filter(|_| !self.is_incomplete)
    }

    /// What all have allocated.
    pub fn sum(&self) -> (u64, u64) {
        let add =
            |sum: (u64, u64), of: &(u64, u64)| (sum.0.wrapping_add(of.0), sum.1.wrapping_add(of.1));
        self.of.values().fold((0, 0), add)
    }
}

impl Shared {
    /// What stacks have allocated, as threads have counted it. Exact, but for calls that are under
    /// way; of a stack whose count goes from thread to thread all the time while this reads, what
    /// was on its way in the last round may be missing.
    pub fn counts(&self) -> Counts {
        let mut settled = Counts::default();
        let mut before = self.sums();
        for round in 1..=ROUNDS {
            let mut both = self.tallied();
            let after = self.sums();
            both.add_all(&before);
            settled.is_incomplete |= both.is_incomplete;
            // Nobody has added to these since before the tallies were read: see `tally`.
            let stays = |stack: &u32| before.of.get(stack) == after.of.get(stack);
            let stays = both
                .of
                .iter()
                .filter(|(stack, _)| round == ROUNDS || stays(stack));
            for (stack, count) in stays {
                settled.of.entry(*stack).or_insert(*count);
            }
            if before == after {
                break;
            }
            before = after;
        }
        settled
    }

    fn sums(&self) -> Counts {
        let mut sums = Counts::default();
        let mut at = SUMS_AT;
        while let Some(range) = self.next_in_use(at).filter(|range| range.start < LEDGER_AT) {
            at = range.end;
            let (first, found) = self.sums_in(&range);
            for (stack, sum) in (first as u32..).zip(found) {
                let sum = (sum.blocks.load(Acquire), sum.bytes.load(Acquire));
                if sum != (0, 0) {
                    sums.add(stack, sum);
                }
            }
        }
        sums
    }

    /// What is in the tallies of all threads.
    fn tallied(&self) -> Counts {
        let mut tallied = Counts::default();
        for (tally, sets) in self.tallies() {
            for set in sets {
                let counts = read(tally, set).into_iter();
                for (stack, blocks, bytes) in counts.filter(|of| (of.1, of.2) != (0, 0)) {
                    tallied.add(stack, (blocks, bytes));
                }
            }
        }
        tallied
    }

    /// The tallies, and which of their sets are in use: reading others would make pages.
    fn tallies(&self) -> impl Iterator<Item = (&Tally, Range<usize>)> {
        let mut at = tally_at(0);
        std::iter::from_fn(move || {
            loop {
                let in_use = self.next_in_use(at)?;
                let of = tally_of(in_use.start)?;
                let end = of + size_of::<Tally>() as u64;
                let (from, to) = (in_use.start.max(of), in_use.end.min(end));
                at = match () {
                    () if from < to && to < end => to,
                    () if in_use.end <= of => of,
                    () => of + size_of::<Thread>() as u64,
                };
                if from < to {
                    let first = of + offset_of!(Tally, counts) as u64;
                    let set =
                        |at: u64| at.saturating_sub(first) as usize / (WAYS * size_of::<Count>());
                    return Some((self.tally(of)?, set(from)..set(to).min(SETS)));
                }
            }
        })
    }
}

/// The set's counts at one moment, if it can be had.
fn read(tally: &Tally, set: usize) -> [(u32, u64, u64); WAYS] {
    let mut counts = tally.read(set);
    for _ in 0..TRIES {
        if counts.1 {
            break;
        }
        std::hint::spin_loop();
        counts = tally.read(set);
    }
    counts.0
}

/// Offset of the tally of a thread, spare ones included.
const fn tally_at(index: usize) -> u64 {
    THREADS_AT + (index * size_of::<Thread>() + offset_of!(Thread, tally)) as u64
}

/// The same of the thread whose state is at offset `at`, if there is one.
fn tally_of(at: u64) -> Option<u64> {
    let index = (at.checked_sub(THREADS_AT)? / size_of::<Thread>() as u64) as usize;
    (index < THREADS_LEN).then(|| tally_at(index))
}

#[cfg(test)]
#[path = "counts_tests.rs"]
mod tests;
