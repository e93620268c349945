//! Which stacks had how many live blocks, at some moments of a trace.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use leaktap_analysis::Quick;
use leaktap_ledger::Block;

use crate::cost::processor_time;

/// When the first look is. Three more follow until twice that time, and so on.
const FIRST: Duration = Duration::from_millis(250);
const EACH_TIME: u32 = 4;

/// Most looks that are remembered: those since an eighth of the trace.
const MOST: usize = 3 * EACH_TIME as usize;

/// Most blocks that are looked at whatever it costs: some milliseconds, in which no stop is
/// answered.
pub(super) const MOST_BLOCKS: usize = 100_000;

/// To look at more may take this part of the time until the next look.
const PART: u32 = 100;

/// And no longer than this.
const LONGEST: Duration = Duration::from_millis(100);

/// Most blocks that are read in one look, and most stacks that are told apart.
const MOST_READ: usize = 1 << 24;
const MOST_STACKS: usize = 1 << 20;

/// What a block costs, before that is known.
const COST: Duration = Duration::from_nanos(60);

/// What there was at a moment.
#[derive(Debug)]
pub(crate) struct Look {
    /// When.
    pub(crate) at: Duration,
    /// All live blocks.
    pub(crate) live: u64,
    /// Frees so far of blocks from before the trace.
    pub(crate) unmatched: u64,
    /// By stack, live blocks.
    blocks: HashMap<u32, u64, Quick>,
}

impl Look {
    /// Live blocks of a stack.
    pub(crate) fn blocks(&self, stack: u32) -> u64 {
        self.blocks.get(&stack).copied().unwrap_or_default()
    }
}

/// When stacks were first seen to have live blocks, and how many they had lately.
#[derive(Debug)]
pub(super) struct Looks {
    first: HashMap<u32, Duration, Quick>,
    recent: VecDeque<Look>,
    next: Duration,
    /// From look to look.
    step: Duration,
    /// What [`MOST_BLOCKS`] of the last look have cost.
    cost: Duration,
}

impl Default for Looks {
    fn default() -> Looks {
        Looks {
            first: HashMap::default(),
            recent: VecDeque::new(),
            next: FIRST,
            step: FIRST / EACH_TIME,
            cost: COST * MOST_BLOCKS as u32,
        }
    }
}

impl Looks {
    /// Whether it is time for the next look. True once for each.
    pub(super) fn is_due(&mut self, now: Duration) -> bool {
        let is_due = now >= self.next;
        while now >= self.next {
            self.next = self.next.saturating_add(self.step);
            if self.next >= self.step.saturating_mul(2 * EACH_TIME) {
                self.step = self.step.saturating_mul(2);
            }
        }
        is_due
    }

    /// Whether a look at so many blocks is no more than it may be.
    pub(super) fn may_look_at(&self, blocks: u64) -> bool {
        let times = blocks as f64 / MOST_BLOCKS as f64;
        let cost = self.cost.as_secs_f64() * times;
        times <= 1.0 || cost <= LONGEST.min(self.step / PART).as_secs_f64()
    }

    /// There was too much to look at: what that costs may change.
    pub(super) fn refused(&mut self) {
        self.cost = self.cost * 7 / 8;
    }

    /// These live `now`, of which there are `live` in all; so many were freed from before.
    pub(super) fn look(
        &mut self,
        blocks: impl Iterator<Item = Block>,
        now: Duration,
        (live, unmatched): (u64, u64),
    ) {
        let mut look = Look {
            at: now,
            live,
            unmatched,
            blocks: HashMap::default(),
        };
        let begun = processor_time();
        // More come while they are read; and far more if the target has written nonsense.
        let most = (live as usize)
            .saturating_mul(2)
            .clamp(MOST_BLOCKS, MOST_READ);
        for block in blocks.take(most) {
            if look.blocks.len() < MOST_STACKS || look.blocks.contains_key(&block.stack.0) {
                *look.blocks.entry(block.stack.0).or_default() += 1;
            }
        }
        // What is there beside the blocks does not count among them.
        if live as usize >= MOST_BLOCKS / 2 {
            let part = MOST_BLOCKS as f64 / live as f64;
            let cost = processor_time().saturating_sub(begun).mul_f64(part);
            self.cost = cost.max(COST * MOST_BLOCKS as u32 / 4);
        }
        for &stack in look.blocks.keys() {
            self.first.entry(stack).or_insert(now);
        }
        if self.recent.len() == MOST {
            self.recent.pop_front();
        }
        self.recent.push_back(look);
    }

    /// When this stack was first seen to have live blocks.
    pub(super) fn first(&self, stack: u32) -> Option<Duration> {
        self.first.get(&stack).copied()
    }

    /// The last ones, in order.
    pub(super) fn recent(&self) -> impl Iterator<Item = &Look> {
        self.recent.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leaktap_ledger::{FamilyId, Key, StackId};

    fn block(stack: u32) -> Block {
        Block {
            key: Key::new(FamilyId::FIRST, 16),
            size: 1,
            stack: StackId(stack),
            time: 0,
        }
    }

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn looks_are_close_together_at_first() {
        let mut looks = Looks::default();
        let due = [0, 249, 250, 300, 313, 499, 500, 600, 625, 4100, 4500, 5000];
        let due = due.map(|now| looks.is_due(MS(now)));
        let expected = [
            false, false, true, false, true, true, true, false, true, true, false, true,
        ];
        assert_eq!(due, expected);
    }

    #[test]
    fn more_are_looked_at_the_longer_a_trace_is() {
        let mut looks = Looks::default();
        let may = |looks: &Looks| [100_000, 100_001, 1_000_000].map(|n| looks.may_look_at(n));
        assert_eq!(may(&looks), [true, false, false]);
        // 16 s from look to look: 1 % is more than a million times 60 ns.
        looks.is_due(Duration::from_secs(100));
        assert_eq!(may(&looks), [true, true, true]);
        assert!(!looks.may_look_at(2_000_000), "never longer than that");
        looks.cost = Duration::from_secs(1);
        assert_eq!(may(&looks), [true, false, false]);
    }

    #[test]
    fn the_first_look_that_finds_a_stack_counts() {
        let mut looks = Looks::default();
        looks.look([block(1), block(1)].into_iter(), MS(250), (2, 0));
        looks.look([block(1), block(2)].into_iter(), MS(500), (2, 0));
        let first = [1, 2, 3].map(|stack| looks.first(stack));
        assert_eq!(first, [Some(MS(250)), Some(MS(500)), None]);
        let counts = looks.recent().map(|look| [look.blocks(1), look.blocks(2)]);
        assert_eq!(counts.collect::<Vec<_>>(), [[2, 0], [1, 1]]);
    }

    #[test]
    fn only_the_last_looks_are_kept() {
        let mut looks = Looks::default();
        for at in 0..100 {
            looks.look([block(1)].into_iter(), MS(at), (1, at));
        }
        assert_eq!(looks.recent().count(), MOST);
        assert_eq!(looks.first(1), Some(MS(0)));
        assert_eq!(looks.recent().last().map(|look| look.unmatched), Some(99));
    }
}
