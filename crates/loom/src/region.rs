//! Where everything is. An atomic is made when it is first asked for, which is to be before threads
//! begin: loom takes this for a write.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use crate::counters::Stripe;
use crate::key::FamilyId;
use crate::live::{self, Bucket};
use crate::primitive::{AtomicU32, AtomicU64};

pub(crate) const STRIPES: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) tables: AtomicU32,
    pub(crate) roomy: AtomicU32,
    pub(crate) frames: AtomicU32,
    pub(crate) nodes: AtomicU32,
    pub(crate) forwarders: AtomicU32,
}

/// Zeroed memory.
struct Slots<T>(Mutex<HashMap<u64, Box<T>>>);

impl<T: Default> Slots<T> {
    fn new() -> Slots<T> {
        Slots(Mutex::default())
    }

    fn slot(&self, index: u64) -> &T {
        // Outside of the lock, should this be where loom goes on with another thread.
        let new = Box::<T>::default();
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot: *const T = &**slots.entry(index).or_insert(new);
        // SAFETY: a box stays where it is, and none is taken out before the whole is dropped.
        unsafe { &*slot }
    }
}

struct Memory {
    head: Head,
    stripes: Slots<Stripe>,
    frames: Slots<AtomicU64>,
    nodes: Slots<AtomicU64>,
    areas: Slots<AtomicU64>,
    buckets: Slots<Bucket>,
}

/// A handle on a ledger.
#[derive(Clone, Copy, Debug)]
pub struct Ledger<'m> {
    memory: *const Memory,
    /// Tables of blocks that are reserved, 1 or more.
    pub(crate) tables: u32,
    lifetime: PhantomData<&'m ()>,
}

// SAFETY: all of a ledger is atomic, and loom's threads are one of the system's.
unsafe impl Send for Ledger<'_> {}
// SAFETY: as above.
unsafe impl Sync for Ledger<'_> {}

/// Slots that are made beforehand of frames, nodes and areas: those of the first table, and some of
/// the second.
const MADE: u32 = 32;

/// Has an empty ledger of one table of blocks used by `scenario`, for blocks at `addresses`. Its
/// threads have ended when it does.
pub fn with_ledger(addresses: &[u64], scenario: impl FnOnce(Ledger<'static>)) {
    let memory = Memory {
        head: Head::default(),
        stripes: Slots::new(),
        frames: Slots::new(),
        nodes: Slots::new(),
        areas: Slots::new(),
        buckets: Slots::new(),
    };
    let ledger = Ledger {
        memory: &raw const memory,
        tables: 1,
        lifetime: PhantomData,
    };
    for index in 0..MADE {
        let _ = (ledger.frame(index), ledger.node(index), ledger.area(index));
    }
    for index in 0..STRIPES {
        let _ = ledger.stripe(FamilyId::FIRST, index);
    }
    for address in addresses {
        let _ = ledger.buckets(0, *address).count();
    }
    scenario(ledger);
}

/// Number of the bucket at an offset: offsets are numbers here.
pub(crate) const fn bucket_at(offset: usize) -> u64 {
    offset as u64
}

/// Number of the bucket that a block at `addr` belongs into, in the first table.
pub fn bucket_of(addr: u64) -> usize {
    live::home(0, addr) as usize
}

impl Ledger<'_> {
    fn memory(&self) -> &Memory {
        // SAFETY: it outlives the scenario, see `with_ledger`.
        unsafe { &*self.memory }
    }

    pub(crate) fn head(&self) -> &Head {
        &self.memory().head
    }

    pub(crate) fn stripe(&self, family: FamilyId, index: usize) -> &Stripe {
        let index = family.number() * STRIPES + index % STRIPES;
        self.memory().stripes.slot(index as u64)
    }

    pub(crate) fn frame(&self, index: u32) -> &AtomicU64 {
        self.memory().frames.slot(index.into())
    }

    pub(crate) fn node(&self, index: u32) -> &AtomicU64 {
        self.memory().nodes.slot(index.into())
    }

    pub(crate) fn area(&self, index: u32) -> &AtomicU64 {
        self.memory().areas.slot(index.into())
    }

    pub(crate) fn bucket(&self, number: u64) -> &Bucket {
        self.memory().buckets.slot(number)
    }
}
