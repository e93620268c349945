//! The books: live blocks, the stacks that allocated them, and sums.
//!
//! Between the probes, which tell of allocations and frees, and the report. Bounded by the number
//! of live blocks and of distinct stacks, never by the number of events. Knows no process and no
//! clock: times are what the caller says.
#![forbid(unsafe_code)]

mod stacks;

use std::collections::HashMap;

pub use stacks::{StackId, Stacks};

/// A block that was allocated and has not been freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its address.
    pub addr: u64,
    /// Bytes that were asked for.
    pub size: u64,
    /// The stack that allocated it.
    pub stack: StackId,
    /// Milliseconds from the beginning of the trace.
    pub time: u32,
    /// The function that allocated it, as the caller numbers functions.
    pub kind: u8,
}

/// Sums over all blocks.
///
/// `allocations - (frees - unmatched_frees) - missed_frees == live_blocks`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Allocations.
    pub allocations: u64,
    /// Frees, unmatched ones included.
    pub frees: u64,
    /// Frees of blocks that are not in the books.
    pub unmatched_frees: u64,
    /// Blocks that were allocated again without a free that was seen.
    pub missed_frees: u64,
    /// Bytes of all allocations.
    pub allocated_bytes: u64,
    /// Blocks that are live.
    pub live_blocks: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// The most that `live_bytes` has been.
    pub peak_bytes: u64,
}

/// Live blocks by address, and their stacks.
#[derive(Debug, Default)]
pub struct Ledger {
    live: HashMap<u64, Entry>,
    stacks: Stacks,
    totals: Totals,
}

/// A block without its address: 24 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    size: u64,
    stack: StackId,
    time: u32,
    kind: u8,
}

impl Ledger {
    /// Enters a block. One that was at the same address has been freed unseen.
    pub fn allocated(&mut self, block: Block) {
        let Block {
            addr,
            size,
            stack,
            time,
            kind,
        } = block;
        if let Some(old) = self.live.insert(
            addr,
            Entry {
                size,
                stack,
                time,
                kind,
            },
        ) {
            self.totals.missed_frees += 1;
            self.left(old.size);
        }
        self.totals.allocations += 1;
        self.totals.allocated_bytes = self.totals.allocated_bytes.saturating_add(size);
        self.entered(size);
    }

    /// Takes a block out; nothing if it is not in the books.
    pub fn freed(&mut self, addr: u64) -> Option<Block> {
        self.totals.frees += 1;
        let Some(Entry {
            size,
            stack,
            time,
            kind,
        }) = self.live.remove(&addr)
        else {
            self.totals.unmatched_frees += 1;
            return None;
        };
        self.left(size);
        Some(Block {
            addr,
            size,
            stack,
            time,
            kind,
        })
    }

    /// Undoes a [`Ledger::freed`] that returned `block`.
    pub fn unfreed(&mut self, block: Option<Block>) {
        self.totals.frees = self.totals.frees.saturating_sub(1);
        match block {
            None => {
                self.totals.unmatched_frees = self.totals.unmatched_frees.saturating_sub(1);
            }
            Some(Block {
                addr,
                size,
                stack,
                time,
                kind,
            }) => {
                if self
                    .live
                    .insert(
                        addr,
                        Entry {
                            size,
                            stack,
                            time,
                            kind,
                        },
                    )
                    .is_none()
                {
                    self.entered(size);
                }
            }
        }
    }

    /// All live blocks, in no order.
    pub fn live(&self) -> impl Iterator<Item = Block> + '_ {
        self.live.iter().map(
            |(
                &addr,
                &Entry {
                    size,
                    stack,
                    time,
                    kind,
                },
            )| Block {
                addr,
                size,
                stack,
                time,
                kind,
            },
        )
    }

    /// The stacks.
    pub fn stacks(&self) -> &Stacks {
        &self.stacks
    }

    /// The stacks, to add to.
    pub fn stacks_mut(&mut self) -> &mut Stacks {
        &mut self.stacks
    }

    /// Sums over all that happened.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    fn entered(&mut self, size: u64) {
        self.totals.live_blocks += 1;
        self.totals.live_bytes = self.totals.live_bytes.saturating_add(size);
        self.totals.peak_bytes = self.totals.peak_bytes.max(self.totals.live_bytes);
    }

    fn left(&mut self, size: u64) {
        self.totals.live_blocks = self.totals.live_blocks.saturating_sub(1);
        self.totals.live_bytes = self.totals.live_bytes.saturating_sub(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(addr: u64, size: u64) -> Block {
        Block {
            addr,
            size,
            stack: StackId::default(),
            time: 0,
            kind: 0,
        }
    }

    fn holds(totals: Totals) -> bool {
        let matched = totals.frees - totals.unmatched_frees;
        totals.allocations - matched - totals.missed_frees == totals.live_blocks
    }

    #[test]
    fn counts_every_allocation_and_free() {
        let mut ledger = Ledger::default();
        ledger.allocated(block(16, 100));
        ledger.allocated(block(32, 50));
        assert_eq!(ledger.freed(16), Some(block(16, 100)));
        assert_eq!(ledger.freed(16), None);
        ledger.unfreed(None);
        assert_eq!(ledger.freed(48), None);
        ledger.allocated(block(32, 7)); // its free was not seen
        let expected = Totals {
            allocations: 3,
            frees: 2,
            unmatched_frees: 1,
            missed_frees: 1,
            allocated_bytes: 157,
            live_blocks: 1,
            live_bytes: 7,
            peak_bytes: 150,
        };
        assert_eq!(ledger.totals(), expected);
        assert!(holds(ledger.totals()));
        assert_eq!(ledger.live().collect::<Vec<_>>(), [block(32, 7)]);
    }

    #[test]
    fn an_undone_free_leaves_no_trace() {
        let mut ledger = Ledger::default();
        ledger.allocated(block(16, 100));
        let before = ledger.totals();
        let taken = ledger.freed(16);
        ledger.unfreed(taken);
        assert_eq!(ledger.totals(), before);
        assert_eq!(ledger.live().count(), 1);
    }

    #[test]
    fn holds_over_any_sequence() {
        let mut ledger = Ledger::default();
        let mut random = 7u64;
        let mut taken = None;
        for _ in 0..10_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let addr = random >> 33 & 63;
            match random >> 60 {
                0..8 => ledger.allocated(block(addr, addr)),
                8..15 => taken = ledger.freed(addr),
                _ if taken.is_some() => ledger.unfreed(taken.take()),
                _ => {}
            }
            let blocks = ledger.live().count() as u64;
            let bytes: u64 = ledger.live().map(|block| block.size).sum();
            assert_eq!(
                (ledger.totals().live_blocks, ledger.totals().live_bytes),
                (blocks, bytes)
            );
        }
    }
}
