//! Blocks and regions, summed up by the stack that made them.

use std::collections::HashMap;

use leaktap_ledger::FamilyId;

/// Most call sites that are told apart, and most milliseconds of all of them. A target could write
/// millions of each into what it shares with us; with as many, leaktap needs a gigabyte.
#[derive(Clone, Copy, Debug)]
struct Most {
    sites: usize,
    times: usize,
}

const MOST: Most = Most {
    sites: 1 << 20,
    times: 1 << 22,
};

/// What makes a call site: a stack, which tells what was called, too, and whether that is a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SiteKey {
    /// The stack.
    pub stack: u32,
    /// A region rather than a block of the heap.
    pub mapping: bool,
    /// Of a block, which heap it is in.
    pub family: FamilyId,
}

impl SiteKey {
    /// Of what there are too many call sites for: no stack has this number.
    pub const REST: SiteKey = SiteKey {
        stack: u32::MAX,
        mapping: false,
        family: FamilyId::FIRST,
    };
}

/// A block or a region that is held.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Where it was made.
    pub key: SiteKey,
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

impl Sum {
    /// What is held of several call sites.
    pub fn of_all(sums: impl Iterator<Item = Sum>) -> Sum {
        let mut by_time: Vec<_> = sums.flat_map(|sum| sum.by_time).collect();
        by_time.sort_unstable();
        by_time.dedup_by(|(time, blocks, bytes), first| {
            let is_same = *time == first.0;
            if is_same {
                first.1 = first.1.saturating_add(*blocks);
                first.2 = first.2.saturating_add(*bytes);
            }
            is_same
        });
        let total =
            |of: fn(&(u32, u64, u64)) -> u64| by_time.iter().map(of).fold(0, u64::saturating_add);
        Sum {
            blocks: total(|(_, blocks, _)| *blocks),
            bytes: total(|(_, _, bytes)| *bytes),
            by_time,
        }
    }
}

/// Sums up `held` by call site: of a million of these, and the rest as [`SiteKey::REST`]. Of four
/// million milliseconds in all the times are exact; a block of another one is summed up with some
/// other block of its site.
pub fn sum(held: impl Iterator<Item = Held>) -> HashMap<SiteKey, Sum> {
    sum_at_most(held, MOST)
}

fn sum_at_most(held: impl Iterator<Item = Held>, most: Most) -> HashMap<SiteKey, Sum> {
    let mut sums: HashMap<SiteKey, HashMap<u32, (u64, u64)>> = HashMap::new();
    let mut times = 0;
    for block in held {
        let is_full = sums.len() >= most.sites && !sums.contains_key(&block.key);
        let key = if is_full { SiteKey::REST } else { block.key };
        let by_time = sums.entry(key).or_default();
        let is_known = times < most.times || by_time.contains_key(&block.time);
        let some = by_time.keys().next().filter(|_| !is_known);
        let time = some.copied().unwrap_or(block.time);
        let at = by_time.entry(time).or_insert_with(|| {
            times += 1;
            (0, 0)
        });
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

    /// As a target can make it.
    #[test]
    fn too_many_sites_and_times_are_summed_up() {
        let held = (0..1000_u32).map(|n| Held {
            key: SiteKey {
                stack: n % 100,
                mapping: false,
                family: FamilyId::FIRST,
            },
            size: u64::MAX,
            time: n,
        });
        let most = Most {
            sites: 10,
            times: 50,
        };
        let sums = sum_at_most(held, most);
        assert_eq!(sums.len(), 11);
        assert_eq!(sums.values().map(|sum| sum.blocks).sum::<u64>(), 1000);
        assert_eq!(sums[&SiteKey::REST].blocks, 900);
        let times: usize = sums.values().map(|sum| sum.by_time.len()).sum();
        assert!(times <= 51 + 10, "{times}");
        assert!(sums.values().all(|sum| sum.bytes == u64::MAX));
    }

    #[test]
    fn sums_by_site_and_time() {
        let key = SiteKey {
            stack: 1,
            mapping: false,
            family: FamilyId::FIRST,
        };
        let other = SiteKey {
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
        let all = Sum::of_all(sums.values().cloned());
        assert_eq!((all.blocks, all.bytes), (4, 4128));
        assert_eq!(all.by_time, [(1, 1, 4096), (3, 1, 16), (5, 2, 16)]);
        assert_eq!(sums.len(), 2);
    }
}
