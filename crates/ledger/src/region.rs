//! Where everything is. The only place that makes references from addresses.

use core::marker::PhantomData;
use core::ops::Range;

use crate::areas;
use crate::counters::Stripe;
use crate::frees::Frees;
use crate::key::{FamilyId, Key};
use crate::live::{self, Block, Bucket};
use crate::near::Near;
use crate::primitive::{AtomicU32, AtomicU64};
use crate::stacks::{self, StackId};

/// Sets of counters: one for each thread that the agent knows of, a few to spare, and the tracer's.
pub const STRIPES: usize = (8 << 10) + 8;

/// The head's page.
const HEAD_LEN: usize = 4096;

const STRIPES_AT: usize = HEAD_LEN;
const STRIPES_LEN: usize = FamilyId::MOST * STRIPES * size_of::<Stripe>();
const FRAMES_AT: usize = (STRIPES_AT + STRIPES_LEN).next_multiple_of(4096);
const NODES_AT: usize = FRAMES_AT + 8 * stacks::FRAMES.slots() as usize;
const AREAS_AT: usize = (NODES_AT + 8 * stacks::NODES.slots() as usize).next_multiple_of(4096);
const FREES_AT: usize = AREAS_AT + 8 * areas::SLOTS as usize;
const BUCKETS_AT: usize = (FREES_AT + size_of::<Frees>()).next_multiple_of(4096);

/// The first page: what is true of the whole.
#[repr(C)]
pub(crate) struct Head {
    /// The newest table of blocks.
    pub(crate) tables: AtomicU32,
    /// The one for the blocks of areas to come.
    pub(crate) roomy: AtomicU32,
    /// The newest table of frames.
    pub(crate) frames: AtomicU32,
    /// The newest table of nodes.
    pub(crate) nodes: AtomicU32,
    /// Families that hand on what others have allocated: a bit each.
    pub(crate) forwarders: AtomicU32,
}

const _: () = assert!(size_of::<Bucket>() == 64 && FREES_AT.is_multiple_of(64));

/// Bytes to reserve for a ledger of `tables` tables of blocks, 1 to 28, which take 170 million
/// blocks.
pub const fn reserved(tables: u32) -> usize {
    BUCKETS_AT + live::first_bucket(tables) as usize * size_of::<Bucket>()
}

/// Number of the bucket at an offset of the region, or of the first one.
pub(crate) const fn bucket_at(offset: usize) -> u64 {
    (offset.saturating_sub(BUCKETS_AT) / size_of::<Bucket>()) as u64
}

/// A handle on a ledger in memory that stays mapped for `'m`.
#[derive(Clone, Copy, Debug)]
pub struct Ledger<'m> {
    base: *const u8,
    /// Tables of blocks that are reserved, 1 or more.
    pub(crate) tables: u32,
    memory: PhantomData<&'m AtomicU64>,
}

// SAFETY: all of a ledger is atomic.
unsafe impl Send for Ledger<'_> {}
// SAFETY: as above.
unsafe impl Sync for Ledger<'_> {}

impl<'m> Ledger<'m> {
    /// The ledger at `base`; zeroed memory is an empty one.
    ///
    /// # Safety
    /// `tables` is 1 to 28. [`reserved`]`(tables)` bytes there are mapped, aligned to a page, and
    /// stay so for `'m`. (A file that is shorter than its mapping faults: it has to be
    /// as long from the start, ftruncate(2).)
    #[inline]
    pub unsafe fn at(base: *mut u8, tables: u32) -> Ledger<'m> {
        Ledger {
            base,
            tables,
            memory: PhantomData,
        }
    }

    /// Where in the region the blocks are that have been used, from the first byte to behind the
    /// last: nearly all of its memory.
    pub fn used(&self) -> Range<usize> {
        let buckets = live::first_bucket(self.newest() + 1);
        BUCKETS_AT..BUCKETS_AT + buckets as usize * size_of::<Bucket>()
    }

    #[inline]
    pub(crate) fn head(&self) -> &Head {
        // SAFETY: the first page is mapped; any bits are a Head.
        unsafe { &*self.base.cast() }
    }

    #[inline]
    pub(crate) fn stripe(&self, family: FamilyId, index: usize) -> &Stripe {
        let index = if index < STRIPES { index } else { 0 };
        let index = family.number() * STRIPES + index;
        // SAFETY: `index` is one of them.
        unsafe { &*self.base.add(STRIPES_AT).cast::<Stripe>().add(index) }
    }

    #[inline]
    pub(crate) fn frees(&self) -> &'m Frees {
        // SAFETY: reserved; any bits are a Frees.
        unsafe { &*self.base.add(FREES_AT).cast() }
    }

    /// Slot `index` of the frames, below [`stacks::FRAMES`]'s number.
    #[inline]
    pub(crate) fn frame(&self, index: u32) -> &AtomicU64 {
        let index = if index < stacks::FRAMES.slots() {
            index
        } else {
            0
        };
        // SAFETY: `index` is one of them.
        unsafe {
            &*self
                .base
                .add(FRAMES_AT)
                .cast::<AtomicU64>()
                .add(index as usize)
        }
    }

    /// Slot `index` of the nodes.
    #[inline]
    pub(crate) fn node(&self, index: u32) -> &AtomicU64 {
        let index = if index < stacks::NODES.slots() {
            index
        } else {
            0
        };
        // SAFETY: `index` is one of them.
        unsafe {
            &*self
                .base
                .add(NODES_AT)
                .cast::<AtomicU64>()
                .add(index as usize)
        }
    }

    /// Slot `index` of the map of areas.
    #[inline(always)]
    pub(crate) fn area(&self, index: u32) -> &AtomicU64 {
        let index = if index < areas::SLOTS { index } else { 0 };
        // SAFETY: `index` is one of them.
        unsafe {
            &*self
                .base
                .add(AREAS_AT)
                .cast::<AtomicU64>()
                .add(index as usize)
        }
    }

    /// The bucket with that number, counted over all tables.
    #[inline(always)]
    pub(crate) fn bucket(&self, number: u64) -> &Bucket {
        let end = live::first_bucket(self.tables);
        let index = if number < end { number } else { 0 };
        // SAFETY: `index` is one of those that are reserved.
        unsafe {
            &*self
                .base
                .add(BUCKETS_AT)
                .cast::<Bucket>()
                .add(index as usize)
        }
    }

    /// [`Ledger::allocated`], if the block belongs where `near` says, there is room, and nothing
    /// else has to be looked at. False, and nothing has changed, if not.
    ///
    /// # Safety
    /// `near` is what this ledger's [`Ledger::near`] returned, and it is of the area of the block.
    #[inline(always)]
    pub unsafe fn allocated_near(&self, stripe: usize, near: &Near, block: &Block) -> bool {
        // SAFETY: as the caller says.
        let is_entered = unsafe { self.bucket_near(near, block.key) }.enter(block);
        if is_entered {
            let stripe = self.stripe(block.key.family(), stripe);
            stripe.allocated(block.size, None);
        }
        is_entered
    }

    /// [`Ledger::freed_by`], if the block is where `near` says: the stack that allocated it.
    /// Nothing has changed if there is none.
    ///
    /// # Safety
    /// As for [`Ledger::allocated_near`].
    #[inline(always)]
    pub unsafe fn freed_near(
        &self,
        stripe: usize,
        near: &Near,
        key: Key,
        by: u32,
    ) -> Option<StackId> {
        // SAFETY: as the caller says.
        let (size, stack) = unsafe { self.bucket_near(near, key) }.take(key.0, by)?;
        self.stripe(key.family(), stripe).freed(Some(size));
        Some(stack)
    }

    /// # Safety
    /// As for [`Ledger::allocated_near`].
    #[inline(always)]
    unsafe fn bucket_near(&self, near: &Near, key: Key) -> &Bucket {
        let index = near.home(key.0) as usize;
        // SAFETY: a home is a bucket of its table, which was opened: it is one of those that are
        // reserved. (A program that writes over what its agent remembers harms itself, as by
        // writing over the agent's other addresses: the tracer has no use for this.)
        unsafe { &*self.base.add(BUCKETS_AT).cast::<Bucket>().add(index) }
    }
}
