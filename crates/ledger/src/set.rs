//! A set of words that grows and never forgets: a word's index is its name.
//!
//! A slot is one word, so a single exchange puts a word in, and there is no state in between.
//!
//! A word may stem from another one of the set: a node of a tree from its parent. It then lies behind that one, where
//! there is room, so that a path through the tree is in few cache lines and pages, not in one each.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

/// Slots looked at for a word behind the one that it stems from.
const BEHIND: u32 = 8;

/// Places that its hash names, and slots looked at in each, before the next table is opened. Paths fill slots in
/// a row, so one place may well be taken.
const HOMES: u32 = 8;
const HOME: u32 = 4;

/// A word of a set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// Its slot.
    pub(crate) index: u32,
    /// It has just been put in.
    pub(crate) is_new: bool,
}

impl Member {
    /// One that was there.
    pub(crate) const fn old(index: u32) -> Member {
        let is_new = false;
        Member { index, is_new }
    }
}

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

    /// Which table a slot is in.
    fn table_of(&self, slot: u32) -> u32 {
        let tables = (slot >> self.first_bits).wrapping_add(1);
        tables.checked_ilog2().unwrap_or(0)
    }

    /// The slots in which `word` may be, which stems from the one at `parent`.
    fn probes(
        &self,
        table: u32,
        word: u64,
        parent: Option<Member>,
    ) -> impl Iterator<Item = u32> + use<> {
        let bits = self.first_bits.wrapping_add(table);
        let mut hash = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let (first, mask) = (
            self.first_slot(table),
            1_u32.wrapping_shl(bits).wrapping_sub(1),
        );
        let parent = parent.map(|parent| parent.index.wrapping_sub(first));
        let parent = parent.filter(|&offset| offset <= mask);
        let skipped = if parent.is_some() { 0 } else { BEHIND };
        let behind = parent.unwrap_or(0).wrapping_add(1);
        (skipped..BEHIND + HOMES * HOME).map(move |probe| {
            let offset = match probe.checked_sub(BEHIND) {
                None => behind.wrapping_add(probe),
                Some(probe) => {
                    let hash = hash.rotate_left(probe / HOME * 8);
                    let home = hash.wrapping_shr(64_u32.wrapping_sub(bits)) as u32;
                    home.wrapping_add(probe % HOME)
                }
            };
            first.wrapping_add(offset & mask)
        })
    }
}

/// A set, in the memory that `slot` finds.
pub(crate) struct Set<'a, F> {
    pub(crate) shape: &'a Shape,
    pub(crate) newest: &'a AtomicU32,
    pub(crate) slot: F,
}

impl<'a, F: Fn(u32) -> &'a AtomicU64> Set<'a, F> {
    /// `word`, which is not 0 and is put in if need be; nothing if there is no room. Always with the same `parent`, if
    /// with any.
    ///
    /// Two threads may put the same word into two tables at the same time: it then has two
    /// indices, which both mean it.
    pub(crate) fn member(&self, word: u64, parent: Option<Member>) -> Option<Member> {
        loop {
            let newest = self
                .newest
                .load(Acquire)
                .min(self.shape.tables.wrapping_sub(1));
            // What stems from a word that was not there was not there, nor is it in a table that is older than that word.
            let oldest = match parent {
                Some(Member { is_new: true, .. }) => newest,
                Some(Member { index, .. }) => self.shape.table_of(index),
                None => 0,
            };
            let older = (oldest..newest).rev();
            if let Some(member) = self.put(newest, word, parent, || {
                let mut older = older.clone();
                older.find_map(|table| self.find(table, word, parent))
            }) {
                return Some(member);
            }
            let next = newest.wrapping_add(1);
            if next >= self.shape.tables {
                return None;
            }
            let _ = self.newest.compare_exchange(newest, next, Release, Relaxed);
        }
    }

    fn find(&self, table: u32, word: u64, parent: Option<Member>) -> Option<Member> {
        for index in self.shape.probes(table, word, parent) {
            match (self.slot)(index).load(Acquire) {
                // It would be here.
                0 => return None,
                found if found == word => return Some(Member::old(index)),
                _ => {}
            }
        }
        None
    }

    /// Finds `word` in the newest table or in what `older` looks through, else puts it in.
    fn put(
        &self,
        table: u32,
        word: u64,
        parent: Option<Member>,
        older: impl Fn() -> Option<Member>,
    ) -> Option<Member> {
        let mut looked = false;
        for index in self.shape.probes(table, word, parent) {
            let slot = (self.slot)(index);
            let mut found = slot.load(Acquire);
            if found == 0 {
                if !looked && let Some(member) = older() {
                    return Some(member);
                }
                looked = true;
                found = match slot.compare_exchange(0, word, AcqRel, Acquire) {
                    Ok(_) => {
                        let is_new = true;
                        return Some(Member { index, is_new });
                    }
                    Err(other) => other,
                };
            }
            if found == word {
                return Some(Member::old(index));
            }
        }
        if looked { None } else { older() }
    }
}
