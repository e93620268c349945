//! Who has freed what, and what was freed that is no live block.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use leaktap_agent::layout::{ALL_SEEN, PAIRS};
use leaktap_ledger::{Block, Key, Misfree, Pair, StackId};
use leaktap_memory::Addr;

use super::Books;

impl Books {
    /// From now on `more` is to be known of frees, too: see
    /// [`Live::wanted`](leaktap_agent::layout::Live::wanted).
    pub(crate) fn want(&mut self, more: u32) {
        self.wanted |= more;
        let live = self.memory().live();
        live.wanted.store(self.wanted, Relaxed);
    }

    /// Whether that is to be known.
    pub(crate) fn wants(&self, what: u32) -> bool {
        self.wanted & what != 0
    }

    /// The frees that found no live block, as far as they were kept, and how many there were.
    pub(crate) fn misfrees(&self) -> (Vec<Misfree>, u64) {
        let (kept, count) = self.ledger().misfrees();
        (kept.collect(), count)
    }

    /// Who freed whose blocks, and of how many frees that was not kept.
    pub(crate) fn pairs(&self) -> (HashSet<Pair>, u64) {
        let (pairs, unplaced) = self.ledger().pairs();
        (pairs.collect(), unplaced)
    }

    /// Whether a block was ever near `key`.
    pub(crate) fn is_of_heap(&self, key: Key) -> bool {
        self.ledger().near(key).is_some()
    }

    /// The live blocks.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        self.memory().blocks()
    }

    /// A block of `stack` was freed, by a call that returns to `ret`.
    pub(super) fn note_pair(&self, stack: StackId, ret: Addr) {
        if self.wants(PAIRS) {
            let ret = ret.get();
            self.ledger().pair(Pair { stack, ret });
        }
    }

    /// What is no live block was freed, from this stack. Where not all was seen, only what was
    /// freed before is known not to be a block from before.
    pub(super) fn note_misfree(&self, key: Key, stack: Option<StackId>) {
        let ledger = self.ledger();
        let earlier = ledger.freed_before(key);
        if earlier.is_some() || self.wants(ALL_SEEN) {
            let misfree = stack.map(|stack| Misfree {
                key,
                stack,
                time: self.now_ms(),
                earlier,
            });
            ledger.misfreed(misfree.as_ref());
        }
    }
}
