//! The live blocks: address -> (size, stack, time).
//!
//! Buckets of one cache line with three places. A block whose bucket is full goes to another one,
//! and leaves a mark in each bucket that it passed: a count, so that the mark goes with the block
//! and no tombstones remain. Most look-ups read one cache line.
//!
//! *Memory.* The tables are full at 85 to 90 % of their places: 25 bytes a block. The next one is touched all over soon,
//! and is at most a quarter of all once there are eight: 30 bytes a block at most. A look-up that
//! finds nothing looks into each table; their number grows with the logarithm of that of blocks (20
//! for 10 million), and these looks do not wait for each other.
//!
//! *Ordering.* A block is taken out before it is really freed and entered after it was really
//! allocated, so two threads work on one address only if the allocator hands it from one to the
//! other, which orders them. What threads share is the places: a place is claimed by an exchange,
//! filled, and published by a store of the address (release); whoever reads an address (acquire)
//! so reads what belongs to it, or something newer. That is told by the address, which is not the same any more
//! for whoever has read (acquire) what was stored (release) after the place was claimed anew.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::{Full, Ledger, StackId};

/// Binary logarithm of the number of buckets of the first table. Under Miri it is full soon.
const FIRST_BITS: u32 = if cfg!(miri) { 6 } else { 14 };

/// Tables of one size before there are some of twice the size.
const ALIKE: u32 = 4;

/// Places in a bucket.
const PLACES: usize = 3;

/// Buckets of a table that a block may be in: its own and others.
const PROBES: usize = 48;

/// Of these, those that are tried before other tables, and in other tables.
const FIRST_PROBES: usize = 8;

/// The address of a place that has been claimed and is not filled yet. No block is there.
const CLAIMED: u64 = 1;

/// Three blocks in a cache line.
#[repr(C, align(64))]
pub(crate) struct Bucket {
    /// Address of each block, 0 or [`CLAIMED`].
    addrs: [AtomicU64; PLACES],
    /// Size and stack of each.
    what: [AtomicU64; PLACES],
    /// Milliseconds of each.
    times: [AtomicU32; PLACES],
    /// Blocks that found this bucket full and are in another one.
    passed: AtomicU32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// A block that was allocated and has not been freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its address.
    pub addr: u64,
    /// Bytes that were asked for; from 512 GiB on, rounded up to 64 KiB.
    pub size: u64,
    /// The stack that allocated it.
    pub stack: StackId,
    /// Milliseconds since the ledger's epoch.
    pub time: u32,
}

/// Binary logarithm of the number of a table's buckets.
#[inline(always)]
const fn bits(table: u32) -> u32 {
    FIRST_BITS.wrapping_add(table / ALIKE)
}

/// Number of a table's first bucket, counted over all tables.
#[inline(always)]
pub(crate) const fn first_bucket(table: u32) -> u64 {
    // Smaller tables, and those before it of its size: `ALIKE` for each of 1, 2, 4 ... up to half its size.
    let of_its_size = (ALIKE + table % ALIKE) as u64;
    (of_its_size << bits(table)) - ((ALIKE as u64) << FIRST_BITS)
}

/// Number of the bucket that a block belongs into.
///
/// 64 bytes of the heap have a bucket, and 4 KiB of it a page of buckets, in the same order but for a shuffle: the
/// ledger is touched as the heap is, and where that is near in memory, or in a cache, so is this.
/// Which page is a matter of the top bits of a hash; the bits below shuffle, or blocks that are alike in all
/// pages would be after the same buckets.
#[inline(always)]
fn home(table: u32, addr: u64) -> u64 {
    let page = hash(addr >> 12).wrapping_shr(64_u32.wrapping_sub(bits(table)));
    first_bucket(table).wrapping_add(page ^ (addr >> 6 & 63))
}

#[inline(always)]
fn hash(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Sizes from here on are kept in [`COARSE`] units.
const LARGE: u64 = 1 << 39;
const COARSE: u64 = 64 << 10;

fn pack(size: u64, StackId(stack): StackId) -> u64 {
    let size = match size {
        0..LARGE => size,
        _ => LARGE | (size.div_ceil(COARSE)).min(LARGE - 1),
    };
    size << 24 | u64::from(stack & 0xff_ffff)
}

fn unpack(what: u64) -> (u64, StackId) {
    let size = what >> 24;
    let size = if size < LARGE {
        size
    } else {
        (size & (LARGE - 1)).wrapping_mul(COARSE)
    };
    (size, StackId((what & 0xff_ffff) as u32))
}

impl Bucket {
    #[inline]
    fn place_of(&self, addr: u64) -> Option<usize> {
        self.addrs
            .iter()
            .position(|place| place.load(Acquire) == addr)
    }

    #[inline]
    fn claim(&self) -> Option<usize> {
        self.addrs.iter().position(|place| {
            place.load(Relaxed) == 0 && place.compare_exchange(0, CLAIMED, Acquire, Relaxed).is_ok()
        })
    }

    #[inline]
    fn fill(&self, place: usize, block: &Block) {
        if let (Some(addr), Some(what), Some(time)) = (
            self.addrs.get(place),
            self.what.get(place),
            self.times.get(place),
        ) {
            what.store(pack(block.size, block.stack), Release);
            time.store(block.time, Release);
            addr.store(block.addr, Release);
        }
    }

    /// What is in a place that holds a block, of which the thread knows that it stays there.
    #[inline]
    fn block(&self, place: usize) -> Option<Block> {
        let addr = self.addrs.get(place)?.load(Acquire);
        let (size, stack) = unpack(self.what.get(place)?.load(Acquire));
        let time = self.times.get(place)?.load(Acquire);
        (addr > CLAIMED).then_some(Block {
            addr,
            size,
            stack,
            time,
        })
    }

    /// The same while it may go and another one come.
    fn passing_block(&self, place: usize) -> Option<Block> {
        let block = self.block(place)?;
        (self.addrs.get(place)?.load(Relaxed) == block.addr).then_some(block)
    }
}

impl Ledger {
    #[inline(always)]
    pub(crate) fn newest(&self) -> u32 {
        self.head()
            .tables
            .load(Acquire)
            .min(self.tables.wrapping_sub(1))
    }

    /// The buckets in which `addr` may be, its own first.
    fn buckets(&self, table: u32, addr: u64) -> impl Iterator<Item = &Bucket> {
        let first = first_bucket(table);
        let home = home(table, addr).wrapping_sub(first);
        let mask = 1_u64.wrapping_shl(bits(table)).wrapping_sub(1);
        // Steps of different lengths, so that full neighbours do not become full neighbourhoods.
        let step = hash(addr >> 3) >> 16 | 1;
        (0..PROBES).map(move |probe| {
            let further = home.wrapping_add((probe as u64).wrapping_mul(step)) & mask;
            self.bucket(first.wrapping_add(further))
        })
    }

    /// Enters a block. Returns the size of one that was at the same address: it was freed unseen.
    ///
    /// # Errors
    /// [`Full`] if the last table is.
    #[inline(always)]
    pub fn allocated(&self, stripe: usize, block: &Block) -> Result<Option<u64>, Full> {
        let replaced = self.enter(block)?;
        self.stripe(stripe).allocated(block.size, replaced);
        Ok(replaced)
    }

    /// Takes the block at `addr` out; nothing if it is not there.
    #[inline(always)]
    pub fn freed(&self, stripe: usize, addr: u64) -> Option<Block> {
        let found = self.remove(addr);
        self.stripe(stripe).freed(found.map(|block| block.size));
        found
    }

    /// Undoes a [`Ledger::freed`] that returned `block`.
    ///
    /// # Errors
    /// [`Full`] if the last table is.
    pub fn restore(&self, stripe: usize, block: Option<Block>) -> Result<(), Full> {
        if let Some(block) = &block {
            self.enter(block)?;
        }
        self.stripe(stripe).restored(block.map(|block| block.size));
        Ok(())
    }

    /// Returns the size of the block that was at the same address.
    #[inline(always)]
    fn enter(&self, block: &Block) -> Result<Option<u64>, Full> {
        let home = self.bucket(home(self.newest(), block.addr));
        if home.place_of(block.addr).is_none()
            && home.passed.load(Relaxed) == 0
            && let Some(place) = home.claim()
        {
            home.fill(place, block);
            return Ok(None);
        }
        self.enter_anywhere(*block)
    }

    /// The first table that is tried is the newest: it has most room. The older ones come before its last
    /// buckets, so that what has become free there is used before another table is opened.
    #[cold]
    #[inline(never)]
    fn enter_anywhere(self, block: Block) -> Result<Option<u64>, Full> {
        let mut replaced = None;
        loop {
            let newest = self.newest();
            let remove = |table| self.remove_from(table, block.addr).map(|old| old.size);
            let enter = |table, probes| self.enter_into(table, probes, &block);
            replaced = remove(newest).or(replaced);
            if enter(newest, FIRST_PROBES) {
                return Ok(replaced);
            }
            // Only what is in the newest table may be there twice: see `live`.
            for table in 0..newest {
                replaced = remove(table).or(replaced);
            }
            let mut older = (0..newest).rev();
            if older.any(|table| enter(table, FIRST_PROBES)) || enter(newest, PROBES) {
                return Ok(replaced);
            }
            self.open_after(newest)?;
        }
    }

    /// Enters a block into one of the first `probes` buckets in which it may be in `table`. False if they are full.
    fn enter_into(&self, table: u32, probes: usize, block: &Block) -> bool {
        for bucket in self.buckets(table, block.addr).take(probes) {
            if let Some(place) = bucket.claim() {
                bucket.fill(place, block);
                return true;
            }
            bucket.passed.fetch_add(1, Relaxed);
        }
        self.unpass(table, block.addr, probes);
        false
    }

    /// Opens the table behind `full`, unless somebody else has.
    #[cold]
    fn open_after(&self, full: u32) -> Result<(), Full> {
        let next = full.wrapping_add(1);
        if next >= self.tables {
            return Err(Full);
        }
        let _ = self
            .head()
            .tables
            .compare_exchange(full, next, Release, Relaxed);
        Ok(())
    }

    fn unpass(&self, table: u32, addr: u64, buckets: usize) {
        for bucket in self.buckets(table, addr).take(buckets) {
            bucket.passed.fetch_sub(1, Relaxed);
        }
    }

    #[inline(always)]
    fn remove(&self, addr: u64) -> Option<Block> {
        let newest = self.newest();
        let home = self.bucket(home(newest, addr));
        if addr > CLAIMED
            && let Some(place) = home.place_of(addr)
        {
            let block = home.block(place);
            home.addrs.get(place)?.store(0, Release);
            return block;
        }
        if newest == 0 && home.passed.load(Relaxed) == 0 {
            return None;
        }
        self.remove_anywhere(addr)
    }

    #[cold]
    #[inline(never)]
    fn remove_anywhere(self, addr: u64) -> Option<Block> {
        if addr <= CLAIMED {
            return None;
        }
        let tables = (0..=self.newest()).rev();
        tables
            .into_iter()
            .find_map(|table| self.remove_from(table, addr))
    }

    #[cold]
    fn remove_from(&self, table: u32, addr: u64) -> Option<Block> {
        for (passed, bucket) in self.buckets(table, addr).enumerate() {
            if let Some(place) = bucket.place_of(addr) {
                let block = bucket.block(place);
                bucket.addrs.get(place)?.store(0, Release);
                self.unpass(table, addr, passed);
                return block;
            }
            if bucket.passed.load(Relaxed) == 0 {
                return None;
            }
        }
        None
    }

    /// All live blocks, in no order. What comes or goes meanwhile may be there or not. (One that goes and comes back to its
    /// place, while this looks at it, may have the size of another that was there between.)
    ///
    /// An address may be there twice, if a free was not seen and a table opened before the address
    /// was used again: the later one is true.
    pub fn live(&self) -> impl Iterator<Item = Block> + '_ {
        (0..first_bucket(self.newest().wrapping_add(1))).flat_map(|index| {
            let bucket = self.bucket(index);
            (0..PLACES).filter_map(|place| bucket.passing_block(place))
        })
    }
}
