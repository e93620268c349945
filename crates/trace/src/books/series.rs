//! How many bytes live by call site, at moments of a trace: of the largest, and of those that grow
//! fastest.

use std::collections::HashMap;
use std::time::Duration;

use leaktap_heap::SiteKey;
use leaktap_ledger::FamilyId;

/// Most moments that are kept. When there are as many, every other one goes, and they come half as
/// often from then on.
const MOST: usize = 64;

/// Most sites of a moment: so many of the largest, and as many of those that grow fastest.
const EACH: usize = 100;

/// The time between two moments, in times of what it takes to sum one up: half a percent.
const TIMES: u32 = 200;

/// Bytes of call sites at moments of a trace.
#[derive(Debug, Default)]
pub(crate) struct Series {
    taken: Vec<Taken>,
    next: Duration,
    /// Between two moments, at least.
    apart: Duration,
    /// What there was at about half the time that there is now, and at a quarter.
    before: [Sizes; 2],
    peak: Option<Peak>,
}

/// Bytes by call site.
type Bytes = HashMap<SiteKey, u64>;

/// Bytes of all call sites at a moment.
#[derive(Debug, Default)]
struct Sizes {
    at: Duration,
    bytes: Bytes,
}

/// What is kept of a moment.
#[derive(Debug)]
struct Taken {
    at: Duration,
    bytes: Bytes,
    /// No call site was left out: those that are not there had nothing.
    is_whole: bool,
}

/// The moment at which most bytes of the heap lived, of those that were looked at.
#[derive(Debug, Default)]
pub(crate) struct Peak {
    pub(crate) at: Duration,
    /// Of the whole heap.
    pub(crate) bytes: u64,
    /// Of the largest call sites, largest first.
    pub(crate) sites: Vec<(SiteKey, u64)>,
}

impl Peak {
    /// What `sites` had of the heap of `family`.
    pub(crate) fn of(
        at: Duration,
        sites: impl Iterator<Item = (SiteKey, u64)>,
        family: FamilyId,
    ) -> Peak {
        let is_counted = |key: &SiteKey| !key.mapping && key.family == family;
        let sites: Vec<_> = sites.filter(|(key, _)| is_counted(key)).collect();
        let all = sites.iter().map(|(_, bytes)| *bytes);
        let bytes = all.fold(0, u64::saturating_add);
        let mut sites = first(sites, |(_, bytes)| *bytes);
        sites.sort_by_key(|(key, bytes)| (std::cmp::Reverse(*bytes), key.stack));
        Peak { at, bytes, sites }
    }
}

impl Series {
    /// Whether there may be another moment.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.next
    }

    /// So many bytes lived `now`, by call site; `family` has most of the blocks. It took `cost` to
    /// sum them up.
    pub(super) fn take(&mut self, now: Duration, bytes: Bytes, family: FamilyId, cost: Duration) {
        if self.taken.len() == MOST {
            self.thin();
        }
        let wait = self.apart.max(cost.saturating_mul(TIMES));
        self.next = now.saturating_add(wait);
        self.look_for_peak(now, &bytes, family);
        let kept = self.chosen(&bytes);
        self.taken.push(Taken {
            at: now,
            is_whole: kept.len() == bytes.len(),
            bytes: kept,
        });
        let [_, newer] = &self.before;
        if newer.bytes.is_empty() || now >= newer.at.saturating_mul(2) {
            self.before.swap(0, 1);
            self.before[1] = Sizes { at: now, bytes };
        }
    }

    fn thin(&mut self) {
        let mut number = 0;
        self.taken.retain(|_| {
            number += 1;
            number % 2 == 1
        });
        let last = self.taken.last().map_or(Duration::ZERO, |taken| taken.at);
        self.apart = last / (MOST / 2) as u32;
    }

    fn look_for_peak(&mut self, now: Duration, bytes: &Bytes, family: FamilyId) {
        let sites = bytes.iter().map(|(key, bytes)| (*key, *bytes));
        let peak = Peak::of(now, sites, family);
        if peak.bytes > self.peak.as_ref().map_or(0, |peak| peak.bytes) {
            self.peak = Some(peak);
        }
    }

    /// What is kept of `bytes`.
    fn chosen(&self, bytes: &Bytes) -> Bytes {
        let all = bytes.iter().map(|(key, bytes)| (*key, *bytes));
        if bytes.len() <= 2 * EACH {
            return all.collect();
        }
        let [older, _] = &self.before;
        let grown = |(key, bytes): &(SiteKey, u64)| {
            bytes.saturating_sub(older.bytes.get(key).copied().unwrap_or_default())
        };
        let largest = first(all.clone().collect(), |(_, bytes)| *bytes);
        let fastest = first(all.collect(), grown);
        largest.into_iter().chain(fastest).collect()
    }

    /// When the moments were.
    pub(crate) fn times(&self) -> impl Iterator<Item = Duration> + '_ {
        self.taken.iter().map(|taken| taken.at)
    }

    /// Bytes of a call site at each of them, if they are known. Empty but for those of the last
    /// one, so that few have a series.
    pub(crate) fn of(&self, key: &SiteKey) -> Vec<Option<u64>> {
        let last = self.taken.last();
        if !last.is_some_and(|taken| taken.bytes.contains_key(key)) {
            return Vec::new();
        }
        let bytes = self.taken.iter().map(|taken| {
            let nothing = taken.is_whole.then_some(0);
            taken.bytes.get(key).copied().or(nothing)
        });
        bytes.collect()
    }

    /// When most bytes of the heap lived.
    pub(crate) fn peak(&self) -> Option<&Peak> {
        self.peak.as_ref()
    }
}

/// Those that have most, in no order.
fn first(
    mut sites: Vec<(SiteKey, u64)>,
    by: impl Fn(&(SiteKey, u64)) -> u64,
) -> Vec<(SiteKey, u64)> {
    if sites.len() > EACH {
        sites.select_nth_unstable_by_key(EACH, |site| std::cmp::Reverse(by(site)));
        sites.truncate(EACH);
    }
    sites
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(stack: u32) -> SiteKey {
        SiteKey {
            grade: None,
            stack,
            mapping: false,
            family: FamilyId::FIRST,
        }
    }

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn take(series: &mut Series, now: Duration, bytes: &[(u32, u64)]) {
        let bytes = bytes.iter().map(|&(stack, bytes)| (key(stack), bytes));
        series.take(now, bytes.collect(), FamilyId::FIRST, Duration::ZERO);
    }

    #[test]
    fn what_is_not_there_has_nothing() {
        let mut series = Series::default();
        take(&mut series, S(0), &[(1, 10)]);
        take(&mut series, S(1), &[(1, 20), (2, 5)]);
        assert_eq!(series.times().collect::<Vec<_>>(), [S(0), S(1)]);
        assert_eq!(series.of(&key(1)), [Some(10), Some(20)]);
        assert_eq!(series.of(&key(2)), [Some(0), Some(5)]);
        assert_eq!(series.of(&key(3)), []);
    }

    #[test]
    fn of_many_sites_the_largest_and_those_that_grow_are_kept() {
        let mut series = Series::default();
        let all = |grown: u64| {
            let site = |stack: u32| (stack, 1000 + u64::from(stack));
            let mut all: Vec<_> = (0..1000).map(site).collect();
            all[7].1 += grown;
            all
        };
        for second in 0..5 {
            take(&mut series, S(second), &all(second));
        }
        // It is not among the largest, but known from when it is seen to grow.
        let grows = series.of(&key(7));
        assert_eq!(grows.last(), Some(&Some(1011)));
        assert_eq!(series.of(&key(999)), [Some(1999); 5]);
        assert!(series.of(&key(500)).len() == 5 || series.of(&key(500)).is_empty());
        assert!(
            series
                .taken
                .iter()
                .all(|taken| taken.bytes.len() <= 2 * EACH)
        );
        let peak = series.peak().unwrap();
        assert_eq!((peak.at, peak.sites.len()), (S(4), EACH));
        assert_eq!(peak.sites[0], (key(999), 1999));
        assert_eq!(peak.bytes, 1000 * 1000 + 999 * 500 + 4);
    }

    #[test]
    fn moments_are_thinned() {
        let mut series = Series::default();
        for second in 0..1000 {
            if series.is_due(S(second)) {
                take(&mut series, S(second), &[(1, second)]);
            }
        }
        let times: Vec<_> = series.times().collect();
        assert!(times.len() > MOST / 2 && times.len() <= MOST, "{times:?}");
        assert!(
            times.windows(2).all(|two| two[1] - two[0] >= S(8)),
            "{times:?}"
        );
    }

    #[test]
    fn what_costs_much_is_done_seldom() {
        let mut series = Series::default();
        let (bytes, cost) = (Bytes::new(), Duration::from_millis(10));
        series.take(S(1), bytes, FamilyId::FIRST, cost);
        assert!(!series.is_due(S(2)));
        assert!(series.is_due(S(3)));
    }
}
