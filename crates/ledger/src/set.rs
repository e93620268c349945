//! A set of words that grows and never forgets: a word's index is its name.
//!
//! A slot is one word, so a single exchange puts a word in, and there is no state in between.
//!
//! A word may stem from another one of the set: a node of a tree from its parent. It then lies
//! behind that one, as long as there is room, so that a path through the tree is in few cache lines
//! and pages, not in one each. Where there is none, it goes to the newest table, and the parent
//! notes that: a word that is new is looked for where a child of its parent's has gone, and not in
//! every table.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use leaktap_memory::GOLDEN;

use crate::primitive::{AtomicU32, AtomicU64};

/// Slots behind a word for those that stem from it.
const BEHIND: u32 = 8;

/// Places that its hash names, and slots looked at in each, before the next table is opened. Paths
/// fill slots in a row, so one place may well be taken.
const HOMES: u32 = 8;
const HOME: u32 = 4;

/// Shape of a set: table `t` has `1 << (first_bits + t)` slots.
pub(crate) struct Shape {
    pub(crate) first_bits: u32,
    pub(crate) tables: u32,
    /// As many bits of each word as there are tables: which of them have words that stem from this
    /// one. None, if none stem from any.
    pub(crate) notes: u64,
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

    /// The slot `offset` slots into a table, counted in a circle.
    fn slot_in(&self, table: u32, offset: u32) -> u32 {
        let bits = self.first_bits.wrapping_add(table);
        let mask = 1_u32.wrapping_shl(bits).wrapping_sub(1);
        self.first_slot(table).wrapping_add(offset & mask)
    }

    /// The slots behind `parent`.
    fn behind(&self, parent: u32) -> impl Iterator<Item = u32> {
        let table = self.table_of(parent);
        let offset = parent.wrapping_sub(self.first_slot(table));
        (1..=BEHIND).map(move |n| self.slot_in(table, offset.wrapping_add(n)))
    }

    /// The slots in which `word` may be in a table, wherever it stems from.
    fn homes(&self, table: u32, word: u64) -> impl Iterator<Item = u32> {
        let bits = self.first_bits.wrapping_add(table);
        let mut hash = word.wrapping_mul(GOLDEN);
        hash = (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (0..HOMES * HOME).map(move |probe| {
            let hash = hash.rotate_left(probe / HOME * 8);
            let home = hash.wrapping_shr(64_u32.wrapping_sub(bits)) as u32;
            self.slot_in(table, home.wrapping_add(probe % HOME))
        })
    }

    /// The note that words which stem from one are in `table`.
    fn note(&self, table: u32) -> u64 {
        let first = self.notes.trailing_zeros();
        1_u64.wrapping_shl(first.wrapping_add(table)) & self.notes
    }
}

/// A set, in the memory that `slot` finds.
pub(crate) struct Set<'a, F> {
    pub(crate) shape: &'a Shape,
    pub(crate) newest: &'a AtomicU32,
    pub(crate) slot: F,
}

impl<'a, F: Fn(u32) -> &'a AtomicU64> Set<'a, F> {
    /// `word`, which is not 0, has no notes and stems from no other one; it is put in if need be.
    /// Nothing if there is no room.
    ///
    /// Two threads may put the same word into two tables at the same time, or not see what the
    /// other one notes: it then has two indices, which both mean it.
    pub(crate) fn member(&self, word: u64) -> Option<u32> {
        self.in_tables(word, |_| true, |_| {})
    }

    /// The same for a word that stems from `parent`, and always does.
    pub(crate) fn child(&self, word: u64, parent: u32) -> Option<u32> {
        // As long as there is room, none has to go elsewhere.
        let mut behind = self.shape.behind(parent);
        if let Some(index) = behind.find_map(|index| self.at(index, word)) {
            return Some(index);
        }
        let of_parent = (self.slot)(parent);
        let noted = of_parent.load(Acquire);
        self.in_tables(
            word,
            |table| noted & self.shape.note(table) != 0,
            |table| {
                of_parent.fetch_or(self.shape.note(table), AcqRel);
            },
        )
    }

    /// `word` in one of the tables that `may_have` it, else put into the newest one, after `note`.
    fn in_tables(
        &self,
        word: u64,
        may_have: impl Fn(u32) -> bool,
        note: impl Fn(u32),
    ) -> Option<u32> {
        let last = self.shape.tables.wrapping_sub(1);
        let newest = self.newest.load(Acquire).min(last);
        let mut tables = (0..=newest).rev().filter(|&table| may_have(table));
        if let Some(index) = tables.find_map(|table| self.find(table, word)) {
            return Some(index);
        }
        for table in newest..=last {
            note(table);
            let mut homes = self.shape.homes(table, word);
            if let Some(index) = homes.find_map(|index| self.at(index, word)) {
                return Some(index);
            }
            let next = table.wrapping_add(1);
            let _ = self
                .newest
                .compare_exchange(table, next.min(last), Release, Relaxed);
        }
        None
    }

    fn find(&self, table: u32, word: u64) -> Option<u32> {
        for index in self.shape.homes(table, word) {
            match (self.slot)(index).load(Acquire) {
                // It would be here.
                0 => return None,
                found if found & !self.shape.notes == word => return Some(index),
                _ => {}
            }
        }
        None
    }

    /// `word` in this slot, if it is there, or nothing was.
    fn at(&self, index: u32, word: u64) -> Option<u32> {
        let slot = (self.slot)(index);
        let mut found = slot.load(Acquire);
        if found == 0 {
            found = match slot.compare_exchange(0, word, AcqRel, Acquire) {
                Ok(_) => return Some(index),
                Err(other) => other,
            };
        }
        (found & !self.shape.notes == word).then_some(index)
    }
}
