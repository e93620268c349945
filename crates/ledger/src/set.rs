//! A set of words that grows and never forgets: a word's index is its name.
//!
//! A slot is one word, so a single exchange puts a word in, and there is no state in between.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

/// Slots looked at for a word before the next table is opened.
const PROBES: u32 = 16;

/// Shape of a set: table `t` has `1 << (first_bits + t)` slots.
pub(crate) struct Shape {
    pub(crate) first_bits: u32,
    pub(crate) tables: u32,
}

impl Shape {
    /// Slots of all tables.
    pub(crate) const fn slots(&self) -> u32 {
        self.first_slot(self.tables)
    }

    const fn first_slot(&self, table: u32) -> u32 {
        ((1 << table) - 1) << self.first_bits
    }

    /// The slots in which `word` may be.
    fn probes(&self, table: u32, word: u64) -> impl Iterator<Item = u32> + use<> {
        let bits = self.first_bits.wrapping_add(table);
        let mut hash = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let home = hash.wrapping_shr(64_u32.wrapping_sub(bits)) as u32;
        let (first, mask) = (
            self.first_slot(table),
            1_u32.wrapping_shl(bits).wrapping_sub(1),
        );
        (0..PROBES).map(move |probe| first.wrapping_add(home.wrapping_add(probe) & mask))
    }
}

/// A set, in the memory that `slot` finds.
pub(crate) struct Set<'a, F> {
    pub(crate) shape: &'a Shape,
    pub(crate) newest: &'a AtomicU32,
    pub(crate) slot: F,
}

impl<'a, F: Fn(u32) -> &'a AtomicU64> Set<'a, F> {
    /// The index of `word`, which is not 0 and is put in if need be; nothing if there is no room.
    ///
    /// Two threads may put the same word into two tables at the same time: it then has two
    /// indices, which both mean it.
    pub(crate) fn index_of(&self, word: u64) -> Option<u32> {
        loop {
            let newest = self
                .newest
                .load(Acquire)
                .min(self.shape.tables.wrapping_sub(1));
            let older = (0..newest).rev();
            if let Some(index) = self.put(newest, word, || {
                older.clone().find_map(|table| self.find(table, word))
            }) {
                return Some(index);
            }
            let next = newest.wrapping_add(1);
            if next >= self.shape.tables {
                return None;
            }
            let _ = self.newest.compare_exchange(newest, next, Release, Relaxed);
        }
    }

    fn find(&self, table: u32, word: u64) -> Option<u32> {
        let mut slots = self.shape.probes(table, word);
        slots.find(|&index| (self.slot)(index).load(Acquire) == word)
    }

    /// Finds `word` in the newest table or in what `older` looks through, else puts it in.
    fn put(&self, table: u32, word: u64, older: impl Fn() -> Option<u32>) -> Option<u32> {
        let mut looked = false;
        for index in self.shape.probes(table, word) {
            let slot = (self.slot)(index);
            let mut found = slot.load(Acquire);
            if found == 0 {
                if !looked && let Some(index) = older() {
                    return Some(index);
                }
                looked = true;
                found = match slot.compare_exchange(0, word, AcqRel, Acquire) {
                    Ok(_) => word,
                    Err(other) => other,
                };
            }
            if found == word {
                return Some(index);
            }
        }
        if looked { None } else { older() }
    }
}
