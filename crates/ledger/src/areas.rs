//! In which tables the blocks of an area may be: 64 KiB of addresses.
//!
//! A heap that grows goes from area to area, so most areas have their blocks in one table, however
//! many there are, and a look-up looks into one. An area whose table is full goes on with another
//! one, and keeps in mind from which to which they are.
//!
//! The map has room for 256 GiB of heap, and what it knows it never forgets. Eight areas in a row
//! share a cache line.

use core::sync::atomic::Ordering::{AcqRel, Acquire};

use leaktap_memory::GOLDEN;

use crate::Ledger;
use crate::primitive::{AREA_LINES, AtomicU64};

/// Binary logarithm of an area's length.
pub const AREA_BITS: u32 = 16;

/// Binary logarithm of the number of cache lines.
const LINE_BITS: u32 = AREA_LINES;

/// Slots of the map: 0, or an area.
pub(crate) const SLOTS: u32 = 8 << LINE_BITS;

/// Slots in which an area may be.
const PROBES: u32 = 8;

/// Most tables that there may be.
pub(crate) const MOST_TABLES: u32 = 1 << TABLE_BITS;
const TABLE_BITS: u32 = 7;

/// Which tables have blocks of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    /// The first of them.
    low: u32,
    /// The last one.
    high: u32,
    /// The one for blocks to come, from `low` to `high`.
    pub(crate) into: u32,
}

impl Area {
    /// Of blocks to come in `table`.
    fn new(table: u32) -> Area {
        Area {
            low: table,
            high: table,
            into: table,
        }
    }

    /// With blocks to come in `table`.
    fn widened(self, table: u32) -> Area {
        Area {
            low: self.low.min(table),
            high: self.high.max(table),
            into: table,
        }
    }

    /// The only one.
    #[inline(always)]
    pub(crate) fn is_one_table(self) -> bool {
        self.low == self.high
    }

    /// All of them, the likeliest first.
    pub(crate) fn tables(self) -> impl Iterator<Item = u32> {
        let others = (self.low..=self.high).rev();
        [self.into]
            .into_iter()
            .chain(others.filter(move |&table| table != self.into))
    }

    fn pack(self, addr: u64) -> u64 {
        let fields = [self.low, self.high, self.into].into_iter();
        fields.fold(name(addr), |word, table| {
            word << TABLE_BITS | u64::from(table % MOST_TABLES)
        })
    }

    /// The area of `addr`, if the word is about that.
    #[inline(always)]
    fn unpack(word: u64, addr: u64) -> Option<Area> {
        let table = |field: u32| (word >> (field * TABLE_BITS)) as u32 % MOST_TABLES;
        (word >> (3 * TABLE_BITS) == name(addr)).then(|| Area {
            low: table(2),
            high: table(1),
            into: table(0),
        })
    }
}

/// Not 0; below 2 to the power of 42, as addresses have 57 bits at most. Without its family: two
/// that share a slot look into more tables than they need.
fn name(addr: u64) -> u64 {
    (addr << 7 >> 7 >> AREA_BITS).wrapping_add(1)
}

impl Ledger<'_> {
    #[inline(always)]
    fn areas(&self, addr: u64) -> impl Iterator<Item = &AtomicU64> {
        let area = addr >> AREA_BITS;
        let line = (area >> 3)
            .wrapping_mul(GOLDEN)
            .wrapping_shr(64 - LINE_BITS) as u32;
        (0..PROBES).map(move |probe| {
            let line = line.wrapping_add(probe) & (SLOTS / 8 - 1);
            self.area(line << 3 | area as u32 & 7)
        })
    }

    /// The area of `addr`; nothing if no block was ever there.
    #[inline(always)]
    pub(crate) fn area_of(&self, addr: u64) -> Option<Area> {
        for slot in self.areas(addr) {
            let word = slot.load(Acquire);
            if word == 0 {
                return None;
            }
            if let Some(area) = Area::unpack(word, addr) {
                return Some(area);
            }
        }
        Some(self.anywhere())
    }

    /// From now on blocks of the area of `addr` are put into `table`, unless another thread, at the
    /// same time, says that they no longer are put into `full`, and where they go.
    pub(crate) fn turn_area(&self, addr: u64, full: Option<u32>, table: u32) -> Area {
        for slot in self.areas(addr) {
            let mut word = slot.load(Acquire);
            loop {
                let new = match Area::unpack(word, addr) {
                    Some(area) if Some(area.into) != full => return area,
                    Some(area) => area.widened(table),
                    None if word == 0 => Area::new(table),
                    None => break,
                };
                match slot.compare_exchange(word, new.pack(addr), AcqRel, Acquire) {
                    Ok(_) => return new,
                    Err(now) => word = now,
                }
            }
        }
        self.anywhere().widened(table)
    }

    /// An area for which the map has no room.
    fn anywhere(&self) -> Area {
        let newest = self.newest();
        Area::new(0).widened(newest)
    }
}
