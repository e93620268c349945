//! Which stacks had live blocks, and when that was seen first.

use std::collections::HashMap;
use std::time::Duration;

use leaktap_ledger::Block;

/// When the first look is. The second is at twice that time, and so on.
const FIRST: Duration = Duration::from_millis(250);

/// Most blocks that are looked at: some milliseconds, in which no stop is answered.
pub(super) const MOST_BLOCKS: usize = 100_000;

/// When stacks were first seen to have live blocks.
#[derive(Debug)]
pub(super) struct Looks {
    first: HashMap<u32, Duration>,
    next: Duration,
}

impl Default for Looks {
    fn default() -> Looks {
        Looks {
            first: HashMap::new(),
            next: FIRST,
        }
    }
}

impl Looks {
    /// Whether it is time for the next look. True once for each.
    pub(super) fn is_due(&mut self, now: Duration) -> bool {
        let is_due = now >= self.next;
        while now >= self.next {
            self.next = self.next.saturating_mul(2);
        }
        is_due
    }

    /// These live `now`.
    pub(super) fn look(&mut self, blocks: impl Iterator<Item = Block>, now: Duration) {
        for block in blocks.take(MOST_BLOCKS) {
            self.first.entry(block.stack.0).or_insert(now);
        }
    }

    /// When this stack was first seen to have live blocks.
    pub(super) fn first(&self, stack: u32) -> Option<Duration> {
        self.first.get(&stack).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leaktap_ledger::{FamilyId, Key, StackId};

    #[test]
    fn the_first_look_that_finds_a_stack_counts() {
        let mut looks = Looks::default();
        let ms = Duration::from_millis;
        let due = [0, 249, 250, 300, 499, 500, 4100, 4200, 8000];
        let due = due.map(|now| looks.is_due(ms(now)));
        let expected = [false, false, true, false, false, true, true, false, true];
        assert_eq!(due, expected);
        let block = |stack| Block {
            key: Key::new(FamilyId::FIRST, 16),
            size: 1,
            stack: StackId(stack),
            time: 0,
        };
        looks.look([block(1), block(1)].into_iter(), ms(250));
        looks.look([block(1), block(2)].into_iter(), ms(500));
        let first = [1, 2, 3].map(|stack| looks.first(stack));
        assert_eq!(first, [Some(ms(250)), Some(ms(500)), None]);
    }
}
