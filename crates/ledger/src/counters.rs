//! Sums, counted by each thread for itself.

use core::sync::atomic::Ordering::Relaxed;

use crate::primitive::AtomicU64;
use crate::region::STRIPES;
use crate::{FamilyId, Ledger};

/// One thread's counters. Only that thread writes there, so plain loads and stores do.
#[derive(Default)]
#[repr(C, align(64))]
pub(crate) struct Stripe {
    allocations: AtomicU64,
    frees: AtomicU64,
    unmatched: AtomicU64,
    missed: AtomicU64,
    allocated_bytes: AtomicU64,
    freed_bytes: AtomicU64,
}

/// Sums over all blocks of a family.
///
/// `allocations - (frees - unmatched_frees) - missed_frees` blocks are live, and `allocated_bytes -
/// freed_bytes` bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Allocations.
    pub allocations: u64,
    /// Frees, unmatched ones included.
    pub frees: u64,
    /// Frees of blocks that are not in the ledger.
    pub unmatched_frees: u64,
    /// Blocks that were allocated again without a free that was seen.
    pub missed_frees: u64,
    /// Bytes of all allocations.
    pub allocated_bytes: u64,
    /// Bytes of all matched and missed frees.
    pub freed_bytes: u64,
}

#[inline(always)]
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(value), Relaxed);
}

impl Stripe {
    #[inline(always)]
    pub(crate) fn allocated(&self, size: u64, replaced: Option<u64>) {
        add(&self.allocations, 1);
        add(&self.allocated_bytes, size);
        if let Some(size) = replaced {
            add(&self.missed, 1);
            add(&self.freed_bytes, size);
        }
    }

    #[inline(always)]
    pub(crate) fn freed(&self, size: Option<u64>) {
        add(&self.frees, 1);
        match size {
            Some(size) => add(&self.freed_bytes, size),
            None => add(&self.unmatched, 1),
        }
    }

    pub(crate) fn restored(&self, size: Option<u64>) {
        add(&self.frees, 1_u64.wrapping_neg());
        match size {
            Some(size) => add(&self.freed_bytes, size.wrapping_neg()),
            None => add(&self.unmatched, 1_u64.wrapping_neg()),
        }
    }
}

impl Ledger<'_> {
    /// The sums of all threads. Each is exact; together they are so while no thread is at work.
    pub fn totals(&self, family: FamilyId) -> Totals {
        let mut totals = Totals::default();
        for index in 0..STRIPES {
            let stripe = self.stripe(family, index);
            let add = |sum: &mut u64, counter: &AtomicU64| {
                *sum = sum.wrapping_add(counter.load(Relaxed));
            };
            add(&mut totals.allocations, &stripe.allocations);
            add(&mut totals.frees, &stripe.frees);
            add(&mut totals.unmatched_frees, &stripe.unmatched);
            add(&mut totals.missed_frees, &stripe.missed);
            add(&mut totals.allocated_bytes, &stripe.allocated_bytes);
            add(&mut totals.freed_bytes, &stripe.freed_bytes);
        }
        totals
    }
}
