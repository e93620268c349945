//! Blocks and regions, summed up by the stack that made them.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use leaktap_analysis::Quick;
use leaktap_analysis::reach::Grade;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteKey {
    /// The stack.
    pub stack: u32,
    /// A region rather than a block of the heap.
    pub mapping: bool,
    /// Of a block, which heap it is in.
    pub family: FamilyId,
    /// Of a block, how it can be reached, if anybody has looked.
    pub grade: Option<Grade>,
}

/// As one word.
impl Hash for SiteKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let family = (self.family.number() as u64) << 33;
        let grade = self.grade.map_or(0, |grade| grade as u64 + 1) << 60;
        state.write_u64(grade | family | u64::from(self.mapping) << 32 | u64::from(self.stack));
    }
}

impl SiteKey {
    /// Of what there are too many call sites for: no stack has this number.
    pub const REST: SiteKey = SiteKey {
        stack: u32::MAX,
        mapping: false,
        family: FamilyId::FIRST,
        grade: None,
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
    let mut summed = Summed::new(most);
    held.for_each(|block| summed.add(&block));
    summed.by_site()
}

/// Sums by call site and time: one look-up a block.
struct Summed {
    most: Most,
    sums: HashMap<Made, (u64, u64), Quick>,
    /// Of each call site, some time that it has.
    sites: HashMap<SiteKey, u32, Quick>,
}

/// Where and when a block was made.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Made {
    at: SiteKey,
    time: u32,
}

impl Summed {
    fn new(most: Most) -> Summed {
        let quick = Quick::default();
        Summed {
            most,
            sums: HashMap::with_hasher(quick),
            sites: HashMap::with_hasher(quick),
        }
    }

    #[inline]
    fn add(&mut self, block: &Held) {
        let made = Made {
            at: block.key,
            time: block.time,
        };
        let sum = match self.sums.get_mut(&made) {
            Some(sum) => sum,
            None => self.another(made),
        };
        sum.0 += 1;
        sum.1 = sum.1.saturating_add(block.size);
    }

    /// The sum of what has none of its own yet, or may have none.
    #[cold]
    fn another(&mut self, made: Made) -> &mut (u64, u64) {
        let Most { sites, times } = self.most;
        let is_full = self.sites.len() >= sites && !self.sites.contains_key(&made.at);
        let at = if is_full { SiteKey::REST } else { made.at };
        let some = *self.sites.entry(at).or_insert(made.time);
        let has_room = self.sums.len() < times;
        let exact = Made {
            at,
            time: made.time,
        };
        let time = match has_room || self.sums.contains_key(&exact) {
            true => made.time,
            false => some,
        };
        self.sums.entry(Made { at, time }).or_default()
    }

    fn by_site(self) -> HashMap<SiteKey, Sum> {
        let mut by_site: HashMap<SiteKey, Sum> = HashMap::with_capacity(self.sites.len());
        for (Made { at, time }, (blocks, bytes)) in self.sums {
            let sum = by_site.entry(at).or_default();
            sum.blocks += blocks;
            sum.bytes = sum.bytes.saturating_add(bytes);
            sum.by_time.push((time, blocks, bytes));
        }
        for sum in by_site.values_mut() {
            sum.by_time.sort_unstable();
        }
        by_site
    }
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
                grade: None,
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
            grade: None,
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
