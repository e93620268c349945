//! What a thread remembers of areas, so that it need not look them up.

use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::compiler_fence;

use crate::areas::AREA_BITS;
use crate::live::{bits, first_bucket, home_in};
use crate::{Key, Ledger};

/// Where the blocks of an area belong: a thread that remembers it need not look the area up. Plain
/// integers; zeroed memory remembers nothing.
///
/// It may grow old: the area then goes on in another table, but blocks may be in this one all the
/// same.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Near {
    /// One more than the area's number; 0: of none.
    area: u64,
    /// See [`home_in`].
    first: u32,
    shift: u32,
}

impl Near {
    /// Whether it is of the area of a block.
    #[inline(always)]
    pub fn is_of(&self, key: Key) -> bool {
        self.area == (key.0 >> AREA_BITS).wrapping_add(1)
    }

    /// Remembers `other` from now on. Whoever interrupts this, and looks, or never comes back,
    /// finds none, or a whole one: of an area without its table the number below would be out of
    /// all bounds.
    #[inline]
    pub fn set(&mut self, other: Near) {
        self.area = 0;
        compiler_fence(SeqCst);
        (self.first, self.shift) = (other.first, other.shift);
        compiler_fence(SeqCst);
        self.area = other.area;
    }

    /// Number of the bucket that a block at `addr`, in this area, belongs into.
    #[inline(always)]
    pub(crate) fn home(&self, addr: u64) -> u64 {
        home_in(self.first.into(), self.shift, addr)
    }
}

impl Ledger<'_> {
    /// What to remember of the area of a block; nothing if no block was ever there.
    pub fn near(&self, key: Key) -> Option<Near> {
        let addr = key.0;
        let table = self.area_of(addr)?.into.min(self.newest());
        Some(Near {
            area: (addr >> AREA_BITS).wrapping_add(1),
            first: first_bucket(table) as u32,
            shift: 64_u32.wrapping_sub(bits(table)),
        })
    }
}
