//! Which of the numbers that blocks name are stacks: the target may have written anything there.

use leaktap_ledger::NoStack;

/// A stack's number has so many bits.
const BITS: u32 = 24;

/// Which stacks lead to a root. Each node of their tree is looked at once: were it nonsense, every
/// way would be another one.
#[derive(Debug)]
pub(crate) struct Roots {
    /// A bit for each stack that has been looked at.
    seen: Vec<u64>,
    /// The same for those that do.
    rooted: Vec<u64>,
}

impl Roots {
    /// Nothing is known yet.
    pub(crate) fn new() -> Roots {
        let bits = vec![0; 1 << (BITS - u64::BITS.ilog2())];
        Roots {
            seen: bits.clone(),
            rooted: bits,
        }
    }

    /// Whether the stack `id` does, of which `caller` tells what called its innermost frame.
    pub(crate) fn has(
        &mut self,
        id: u32,
        caller: impl Fn(u32) -> Result<Option<u32>, NoStack>,
    ) -> bool {
        let mut way = Vec::new();
        let mut at = id;
        let is_stack = loop {
            if at >> BITS != 0 {
                break false;
            }
            // Should the way come back here, it is a ring.
            if set(&mut self.seen, at) {
                break is_set(&self.rooted, at);
            }
            way.push(at);
            match caller(at) {
                Ok(Some(next)) => at = next,
                end => break end.is_ok(),
            }
        };
        if is_stack {
            for node in way {
                set(&mut self.rooted, node);
            }
        }
        is_stack
    }
}

fn is_set(bits: &[u64], index: u32) -> bool {
    let word = bits.get(index as usize / 64);
    word.is_some_and(|word| word >> (index % 64) & 1 != 0)
}

/// Sets a bit. Returns whether it was set.
fn set(bits: &mut [u64], index: u32) -> bool {
    let was = is_set(bits, index);
    if let Some(word) = bits.get_mut(index as usize / 64) {
        *word |= 1 << (index % 64);
    }
    was
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn only_what_leads_to_a_root_is_a_stack() {
        let steps = Cell::new(0);
        let caller = |id: u32| {
            steps.set(steps.get() + 1);
            match id {
                0 => Ok(None),
                1..10 => Ok(Some(id - 1)),
                10..20 => Ok(Some(10 + (id + 1) % 10)), // a ring
                20..30 => Ok(Some(id + 1)),
                _ => Err(NoStack),
            }
        };
        let mut roots = Roots::new();
        for (id, expected) in [
            (9, true),
            (5, true),
            (0, true),
            (15, false),
            (20, false),
            (29, false),
        ] {
            assert_eq!(roots.has(id, caller), expected, "{id}");
            assert_eq!(roots.has(id, caller), expected, "{id} again");
        }
        assert_eq!(steps.get(), 10 + 10 + 11);
    }
}
