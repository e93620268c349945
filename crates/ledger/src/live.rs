//! The live blocks: family and address -> (size, stack, time).
//!
//! Buckets of one cache line with three places. A block whose bucket is full goes to another one,
//! and leaves a mark in each bucket that it passed: a count, so that the mark goes with the block
//! and no tombstones remain. Most look-ups read one cache line.
//!
//! *Memory.* The tables are full at about 84 % of their places: 25 bytes a block. The next one is
//! touched all over sooner or later, and is a fifth to a third of the others once there are five:
//! 34 bytes a block then, less than 32 as a rule. The first one is 8 MiB, but no more of it is
//! touched than of the heap.
//!
//! A look-up looks into the tables of the block's area (see `areas`): one, where the heap has grown
//! under trace; where it was there before, all that have been opened while it was filled with
//! blocks that are known.
//!
//! *Ordering.* A block is taken out before it is really freed and entered after it was really
//! allocated, so two threads work on one address only if the allocator hands it from one to the
//! other, which orders them. What threads share is the places: a place is claimed by an exchange,
//! filled, and published by a store of the address (release); whoever reads an address (acquire) so
//! reads what belongs to it, or something newer. That is told by the address, which is not the same
//! any more for whoever has read (acquire) what was stored (release) after the place was claimed
//! anew.

use core::ops::Range;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use leaktap_memory::GOLDEN;

use crate::areas::MOST_TABLES;
use crate::primitive::{AtomicU32, AtomicU64, FIRST_BUCKETS};
use crate::region::bucket_at;
use crate::{FamilyId, Freed, Full, Key, Ledger, StackId};

/// Binary logarithm of the number of buckets of the first table.
const FIRST_BITS: u32 = FIRST_BUCKETS;

/// Tables of one size before there are some of twice the size.
const ALIKE: u32 = 4;

/// Places in a bucket.
const PLACES: usize = 3;

/// Buckets of a table that a block may be in: its own and others. If they are full, so is the
/// table.
const PROBES: usize = 24;

/// Buckets by which a table is judged.
const SAMPLES: usize = 64;

/// It has room if so many percent of their places are taken, or fewer.
const ROOMY: usize = 70;

/// The address of a place that has been claimed and is not filled yet. No block is there.
const CLAIMED: u64 = 1;

/// Marks the address of a block that was freed: until the place is used again, it says whose the
/// block was, and who has freed it. No [`Key`] has this bit.
const FREED: u64 = 1 << 63;

/// True of the address of a place that holds no block, and is not about to.
#[inline(always)]
const fn is_free(addr: u64) -> bool {
    addr == 0 || addr & FREED != 0
}

/// True of the address of a place that holds a block.
#[inline(always)]
const fn is_block(addr: u64) -> bool {
    addr > CLAIMED && addr & FREED == 0
}

/// Three blocks in a cache line.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    /// [`Key`] of each block, perhaps [`FREED`], 0 or [`CLAIMED`].
    addrs: [AtomicU64; PLACES],
    /// Size and stack of each.
    what: [AtomicU64; PLACES],
    /// Milliseconds of each; of one that was freed, by whom.
    times: [AtomicU32; PLACES],
    /// Blocks that found this bucket full and are in another one.
    passed: AtomicU32,
}

/// A block that was allocated and has not been freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where it is, in which heap.
    pub key: Key,
    /// Bytes that were asked for; from 512 GiB on, rounded up to 64 KiB.
    pub size: u64,
    /// The stack that allocated it.
    pub stack: StackId,
    /// Milliseconds since the ledger's epoch.
    pub time: u32,
}

/// A block that was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    /// The stack that had allocated it.
    pub stack: StackId,
    /// By whom: what [`Ledger::freed_by`] was told.
    pub by: u32,
}

/// Binary logarithm of the number of a table's buckets.
#[inline(always)]
pub(crate) const fn bits(table: u32) -> u32 {
    FIRST_BITS.wrapping_add(table / ALIKE)
}

/// Number of a table's first bucket, counted over all tables.
#[inline(always)]
pub(crate) const fn first_bucket(table: u32) -> u64 {
    // Smaller tables, and those before it of its size: `ALIKE` for each of 1, 2, 4 ... up to half
    // its size.
    let of_its_size = (ALIKE + table % ALIKE) as u64;
    (of_its_size << bits(table)) - ((ALIKE as u64) << FIRST_BITS)
}

/// Number of the bucket that a block belongs into.
#[inline(always)]
pub(crate) fn home(table: u32, addr: u64) -> u64 {
    home_in(first_bucket(table), 64_u32.wrapping_sub(bits(table)), addr)
}

/// The same for a table that begins with bucket `first` and has as many as there are numbers of 64
/// - `shift` bits.
///
/// 64 bytes of the heap have a bucket, and 4 KiB of it a page of buckets, in the same order but for
/// a shuffle: the ledger is touched as the heap is, and where that is near in memory, or in a
/// cache, so is this. Which page is a matter of the top bits of a hash; the bits below shuffle, or
/// blocks that are alike in all pages would be after the same buckets.
#[inline(always)]
pub(crate) fn home_in(first: u64, shift: u32, addr: u64) -> u64 {
    let page = hash(addr >> 12).wrapping_shr(shift);
    first.wrapping_add(page ^ (addr >> 6 & 63))
}

#[inline(always)]
fn hash(number: u64) -> u64 {
    number.wrapping_mul(GOLDEN)
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

    /// Places that are not free.
    fn taken(&self) -> usize {
        let addrs = self.addrs.iter();
        addrs.filter(|addr| !is_free(addr.load(Relaxed))).count()
    }

    #[inline]
    fn claim(&self) -> Option<usize> {
        let claim = |place: &AtomicU64, found: u64| {
            let claimed = place.compare_exchange(found, CLAIMED, Acquire, Relaxed);
            claimed.is_ok()
        };
        self.addrs.iter().position(|place| {
            let found = place.load(Relaxed);
            is_free(found) && claim(place, found)
        })
    }

    /// Claims the place that says that `addr` was freed before, so that it does not say so twice.
    #[inline(always)]
    fn claim_again(&self, addr: u64) -> Option<usize> {
        let place = self.place_of(addr | FREED)?;
        let claimed =
            self.addrs
                .get(place)?
                .compare_exchange(addr | FREED, CLAIMED, Acquire, Relaxed);
        claimed.is_ok().then_some(place)
    }

    /// The block at `addr`, which is in this place, is taken out: freed `by` somebody.
    #[inline(always)]
    fn vacate(&self, place: usize, addr: u64, by: u32) {
        if let (Some(at), Some(time)) = (self.addrs.get(place), self.times.get(place)) {
            at.store(CLAIMED, Relaxed);
            time.store(by, Release);
            at.store(addr | FREED, Release);
        }
    }

    /// The block in this place has another stack from now on. Returns its size, and the one before;
    /// nothing if it is about to be another block.
    fn restack(&self, place: usize, stack: StackId) -> Option<(u64, StackId)> {
        let what = self.what.get(place)?;
        let before = what.load(Acquire);
        let was = unpack(before);
        let after = pack(was.0, stack);
        let changed = what.compare_exchange(before, after, AcqRel, Relaxed);
        changed.is_ok().then_some(was)
    }

    /// The last block at `addr`, if this says that it was freed.
    fn freed(&self, addr: u64) -> Option<Former> {
        let place = self.place_of(addr | FREED)?;
        let (_, stack) = unpack(self.what.get(place)?.load(Acquire));
        let by = self.times.get(place)?.load(Acquire);
        let stays = self.addrs.get(place)?.load(Relaxed) == addr | FREED;
        stays.then_some(Former { stack, by })
    }

    /// Enters a block that belongs here, if there is room, and it need not be looked for elsewhere.
    /// False, and nothing has changed, if not.
    #[inline(always)]
    pub(crate) fn enter(&self, block: &Block) -> bool {
        if self.place_of(block.key.0).is_some() || self.passed.load(Relaxed) != 0 {
            return false;
        }
        let Some(place) = self.claim_again(block.key.0).or_else(|| self.claim()) else {
            return false;
        };
        self.fill(place, block);
        true
    }

    /// Takes out the block at `addr`, if it is here, for it is freed `by` somebody. Returns its
    /// size and stack.
    #[inline(always)]
    pub(crate) fn take(&self, addr: u64, by: u32) -> Option<(u64, StackId)> {
        let place = self.place_of(addr).filter(|_| addr > CLAIMED)?;
        let what = unpack(self.what.get(place)?.load(Acquire));
        self.vacate(place, addr, by);
        Some(what)
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
            addr.store(block.key.0, Release);
        }
    }

    /// What is in a place that holds a block, of which the thread knows that it stays there.
    #[inline]
    fn block(&self, place: usize) -> Option<Block> {
        let addr = self.addrs.get(place)?.load(Acquire);
        let (size, stack) = unpack(self.what.get(place)?.load(Acquire));
        let time = self.times.get(place)?.load(Acquire);
        is_block(addr).then_some(Block {
            key: Key(addr),
            size,
            stack,
            time,
        })
    }

    /// The same while it may go and another one come.
    fn passing_block(&self, place: usize) -> Option<Block> {
        let block = self.block(place)?;
        (self.addrs.get(place)?.load(Relaxed) == block.key.0).then_some(block)
    }
}

impl<'m> Ledger<'m> {
    #[inline(always)]
    pub(crate) fn newest(&self) -> u32 {
        self.head()
            .tables
            .load(Acquire)
            .min(self.tables.wrapping_sub(1))
    }

    /// The buckets in which `addr` may be, its own first.
    pub(crate) fn buckets(&self, table: u32, addr: u64) -> impl Iterator<Item = &Bucket> {
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
        let stripe = self.stripe(block.key.family(), stripe);
        stripe.allocated(block.size, replaced);
        Ok(replaced)
    }

    /// Takes a block out; nothing if it is not there.
    #[inline(always)]
    pub fn freed(&self, stripe: usize, key: impl Into<Key>) -> Option<Block> {
        self.freed_by(stripe, key, 0)
    }

    /// The same, and remembers `by` whom for a while: see [`Ledger::freed_before`].
    #[inline(always)]
    pub fn freed_by(&self, stripe: usize, key: impl Into<Key>, by: u32) -> Option<Block> {
        let key = key.into();
        let found = self.remove(key.0, by);
        let stripe = self.stripe(key.family(), stripe);
        stripe.freed(found.map(|block| block.size));
        found
    }

    /// Undoes a free that took out `freed`.
    ///
    /// # Errors
    /// [`Full`] if the last table is.
    pub fn restore(&self, stripe: usize, freed: Freed) -> Result<(), Full> {
        match freed {
            Freed::Block(block) => {
                self.enter(&block)?;
                let stripe = self.stripe(block.key.family(), stripe);
                stripe.restored(Some(block.size));
            }
            Freed::Unmatched(family) => self.stripe(family, stripe).restored(None),
            Freed::PassedOn => {}
        }
        Ok(())
    }

    /// The last block of `key`, if it is remembered that it was freed: until another one needs its
    /// place, which is likely to be a neighbour in the heap.
    pub fn freed_before(&self, key: impl Into<Key>) -> Option<Former> {
        let addr = key.into().0;
        let mut tables = self.area_of(addr).filter(|_| addr > CLAIMED)?.tables();
        // In pages where no block ever was, reading would make pages.
        tables.find_map(|table| self.buckets(table, addr).next()?.freed(addr))
    }

    /// The block of `key`, which stays.
    pub fn find(&self, key: impl Into<Key>) -> Option<Block> {
        let (bucket, place) = self.place_of(key.into().0)?;
        bucket.block(place)
    }

    /// Where the block of a key is.
    fn place_of(&self, addr: u64) -> Option<(&Bucket, usize)> {
        let tables = self.area_of(addr).filter(|_| addr > CLAIMED)?.tables();
        let mut found = tables.filter_map(|table| {
            let mut buckets = self.buckets(table, addr);
            buckets.find_map(|bucket| Some((bucket, bucket.place_of(addr)?)))
        });
        found.next()
    }

    /// A call of `by` has handed on the block of `key`, another family's, as its own: it is known
    /// by that call's stack from now on. Returns its size, and the stack that it had; nothing if it
    /// is not there.
    pub fn hand_on(&self, by: FamilyId, key: Key, stack: StackId) -> Option<(u64, StackId)> {
        let (bucket, place) = self.place_of(key.0)?;
        // Nobody else has the block yet.
        let was = bucket.restack(place, stack)?;
        self.head().forwarders.fetch_or(1 << by.number(), Relaxed);
        Some(was)
    }

    /// Whether a free of `key` is for another family to count: its own hands on what others have
    /// allocated, and has no such block, but one of them has.
    pub fn is_passed_on(&self, key: Key) -> bool {
        let forwarders = self.head().forwarders.load(Relaxed);
        let is_there = |family| self.find(Key::new(family, key.addr())).is_some();
        forwarders >> key.family().number() & 1 != 0
            && !is_there(key.family())
            && FamilyId::all(FamilyId::MOST).any(is_there)
    }

    /// Returns the size of the block that was at the same address.
    #[inline(always)]
    fn enter(&self, block: &Block) -> Result<Option<u64>, Full> {
        let addr = block.key.0;
        if let Some(area) = self.area_of(addr)
            && self.bucket(home(area.into, addr)).enter(block)
        {
            return Ok(None);
        }
        self.enter_anywhere(*block)
    }

    #[cold]
    #[inline(never)]
    fn enter_anywhere(self, block: Block) -> Result<Option<u64>, Full> {
        let addr = block.key.0;
        let replaced = self.remove_anywhere(addr, 0).map(|old| old.size);
        let roomy = self.head().roomy.load(Acquire).min(self.newest());
        let mut area = self.turn_area(addr, None, roomy);
        // A table may be full for this block alone, so that it comes here again.
        for _ in 0..MOST_TABLES {
            if self.enter_into(area.into, &block) {
                return Ok(replaced);
            }
            let table = self.room_beside(area.into)?;
            area = self.turn_area(addr, Some(area.into), table);
        }
        Err(Full)
    }

    /// A table with room, since `full` has none: an older one of which many blocks have been freed,
    /// or a new one.
    fn room_beside(&self, full: u32) -> Result<u32, Full> {
        let head = self.head();
        let newest = self.newest();
        let roomy = head.roomy.load(Acquire).min(newest);
        if roomy != full {
            return Ok(roomy);
        }
        let mut others = (0..=newest).rev().filter(|&table| table != full);
        let table = match others.find(|&table| self.has_room(table)) {
            Some(table) => table,
            None => self.open_after(newest)?,
        };
        let _ = head.roomy.compare_exchange(full, table, Release, Relaxed);
        Ok(table)
    }

    /// Whether many places of a table are free, as far as some buckets tell.
    fn has_room(&self, table: u32) -> bool {
        let end = first_bucket(table.wrapping_add(1));
        let apart = bits(table).wrapping_sub(SAMPLES.ilog2());
        let samples = (1..=SAMPLES as u64).map(|part| end.wrapping_sub(part << apart));
        let taken: usize = samples.map(|bucket| self.bucket(bucket).taken()).sum();
        taken < SAMPLES * PLACES * ROOMY / 100
    }

    /// Enters a block into one of the buckets in which it may be in `table`. False if they are
    /// full.
    fn enter_into(&self, table: u32, block: &Block) -> bool {
        let mut buckets = self.buckets(table, block.key.0).enumerate();
        let found = buckets.find_map(|(before, bucket)| Some((before, bucket, bucket.claim()?)));
        let Some((before, bucket, place)) = found else {
            return false;
        };
        // Nobody looks for the block before this is done.
        for full in self.buckets(table, block.key.0).take(before) {
            full.passed.fetch_add(1, Relaxed);
        }
        bucket.fill(place, block);
        true
    }

    /// Opens the table behind `newest`, unless somebody else has.
    #[cold]
    fn open_after(&self, newest: u32) -> Result<u32, Full> {
        let next = newest.wrapping_add(1);
        if next >= self.tables {
            return Err(Full);
        }
        let tables = &self.head().tables;
        let _ = tables.compare_exchange(newest, next, Release, Relaxed);
        Ok(next)
    }

    fn unpass(&self, table: u32, addr: u64, buckets: usize) {
        for bucket in self.buckets(table, addr).take(buckets) {
            bucket.passed.fetch_sub(1, Relaxed);
        }
    }

    #[inline(always)]
    fn remove(&self, addr: u64, by: u32) -> Option<Block> {
        let area = self.area_of(addr)?;
        let home = self.bucket(home(area.into, addr));
        if addr > CLAIMED
            && let Some(place) = home.place_of(addr)
        {
            let block = home.block(place);
            home.vacate(place, addr, by);
            return block;
        }
        if area.is_one_table() && home.passed.load(Relaxed) == 0 {
            return None;
        }
        self.remove_anywhere(addr, by)
    }

    #[cold]
    #[inline(never)]
    fn remove_anywhere(self, addr: u64, by: u32) -> Option<Block> {
        if addr <= CLAIMED {
            return None;
        }
        let mut tables = self.area_of(addr)?.tables();
        tables.find_map(|table| self.remove_from(table, addr, by))
    }

    #[cold]
    fn remove_from(&self, table: u32, addr: u64, by: u32) -> Option<Block> {
        for (passed, bucket) in self.buckets(table, addr).enumerate() {
            if let Some(place) = bucket.place_of(addr) {
                let block = bucket.block(place);
                bucket.vacate(place, addr, by);
                self.unpass(table, addr, passed);
                return block;
            }
            if bucket.passed.load(Relaxed) == 0 {
                return None;
            }
        }
        None
    }

    /// All live blocks, in no order. What comes or goes meanwhile may be there or not. (One that
    /// goes and comes back to its place, while this looks at it, may have the size of another that
    /// was there between.)
    ///
    /// An address may be there twice, if a free was not seen and a table opened before the address
    /// was used again.
    pub fn live(&self) -> impl Iterator<Item = Block> + use<'m> {
        self.live_in(0..usize::MAX)
    }

    /// The same, of those between two offsets in the ledger's memory.
    pub fn live_in(self, bytes: Range<usize>) -> impl Iterator<Item = Block> + use<'m> {
        let end = first_bucket(self.newest().wrapping_add(1));
        let first = bucket_at(bytes.start);
        (first..bucket_at(bytes.end).min(end)).flat_map(move |index| {
            let bucket = self.bucket(index);
            let places: [_; PLACES] = core::array::from_fn(|place| bucket.passing_block(place));
            places.into_iter().flatten()
        })
    }
}
