//! Blocks and regions, summed up by the stack that made them.

use std::collections::HashMap;

/// What makes a call site: a stack, which tells what was called, too, and whether that is a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The stack.
    pub stack: u32,
    /// A region rather than a block of the heap.
    pub mapping: bool,
}

/// A block or a region that is held.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Where it was made.
    pub key: Key,
    /// Bytes.
    pub size: u64,
    /// Milliseconds from the beginning of the trace to its making.
    pub time: u32,
}

/// What is held of one call site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Blocks.
    pub blocks: u64,
    /// Bytes.
    pub bytes: u64,
    /// Blocks and bytes by the millisecond in which they were made, sorted: as much as a report
    /// needs to leave out the young ones.
    pub by_time: Vec<(u32, u64, u64)>,
}

/// Sums up `held` by call site.
pub fn sum(held: impl Iterator<Item = Held>) -> HashMap<Key, Sum> {
    let mut sums: HashMap<Key, HashMap<u32, (u64, u64)>> = HashMap::new();
    for block in held {
        let at = sums
            .entry(block.key)
            .or_default()
            .entry(block.time)
            .or_default();
        at.0 += 1;
        at.1 = at.1.saturating_add(block.size);
    }
    let total = |times: HashMap<u32, (u64, u64)>| {
        let mut by_time: Vec<_> = times.into_iter().map(|(t, (n, b))| (t, n, b)).collect();
        by_time.sort_unstable();
        let blocks = by_time.iter().map(|(_, n, _)| n).sum();
        let bytes = by_time
            .iter()
            .fold(0u64, |sum, (_, _, b)| sum.saturating_add(*b));
        Sum {
            blocks,
            bytes,
            by_time,
        }
    };
    sums.into_iter()
        .map(|(key, times)| (key, total(times)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_by_site_and_time() {
        let key = Key {
            stack: 1,
            mapping: false,
        };
        let other = Key {
            mapping: true,
            ..key
        };
        let held = [(key, 8, 5), (other, 4096, 1), (key, 16, 3), (key, 8, 5)];
        let sums = sum(held
            .into_iter()
            .map(|(key, size, time)| Held { key, size, time }));
        let by_time = vec![(3, 1, 16), (5, 2, 16)];
        assert_eq!(
            sums[&key],
            Sum {
                blocks: 3,
                bytes: 32,
                by_time
            }
        );
        assert_eq!(sums[&other].bytes, 4096);
        assert_eq!(sums.len(), 2);
    }
}
