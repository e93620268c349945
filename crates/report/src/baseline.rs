//! What is new since another trace, and what is too much.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::identity::{Functions, Identity};
use crate::numbers::{count, exact_bytes};
use crate::{Amount, By, Change, Changed, Kind, Report, Selection, Site, merged};

/// What another trace has left, by what sites are known by.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    known: Sums,
}

/// How much there is of what sites are known by.
type Sums = BTreeMap<Identity, Sum>;

/// How much there is, and the functions of its first stacks.
#[derive(Clone, Debug, Default)]
struct Sum {
    amount: Amount,
    stacks: Vec<Vec<Arc<str>>>,
}

/// Most stacks that are kept of a sum, and most sums that one is compared with, beside its own.
const MOST_STACKS: usize = 16;
const MOST_SUMS: usize = 256;

impl Baseline {
    /// What all of `reports` list.
    pub fn of(reports: &[Report]) -> Baseline {
        Baseline {
            known: sums(reports).0,
        }
    }

    /// Takes from the sites of `reports` those of which there were as many blocks and bytes before,
    /// over all of them, and returns these, report by report. A note in each says how many.
    pub fn apply(&self, reports: &mut [Report]) -> Vec<Vec<Site>> {
        let (now, identities) = sums(reports);
        let covered = self.covered(&now);
        let is_known =
            |site: &Site, by: &Identity| site.kind != Kind::Runtime && covered.contains(by);
        let known = reports.iter_mut().zip(&identities).map(|(report, all)| {
            let mut all = all.iter();
            let sites = std::mem::take(&mut report.sites).into_iter();
            let (known, rest): (Vec<_>, Vec<_>) =
                sites.partition(|site| all.next().is_some_and(|by| is_known(site, by)));
            report.sites = rest;
            note(&known, report);
            known
        });
        known.collect()
    }

    /// Of what there is `now`, that of which there was as much before: at the same functions, or at
    /// such of which some are in one of the two builds only, and which now have less.
    fn covered<'n>(&self, now: &'n Sums) -> HashSet<&'n Identity> {
        let mut missing = self.missing(now);
        let covered = now.iter().filter(|(by, sum)| {
            let before = self.known.get(*by).map(|sum| sum.amount);
            let mut more = less(sum.amount, before.unwrap_or_default());
            let others = missing.get_mut(&by.first()).into_iter().flatten();
            for other in others.take(MOST_SUMS) {
                if more != Amount::default() && other.may_be(by, sum) {
                    let rest = less(more, other.amount);
                    other.amount = less(other.amount, more);
                    more = rest;
                }
            }
            more == Amount::default()
        });
        covered.map(|(by, _)| by).collect()
    }

    /// What there is less of `now`, by the innermost function.
    fn missing(&self, now: &Sums) -> HashMap<Option<&Arc<str>>, Vec<Missing<'_>>> {
        let mut missing: HashMap<_, Vec<Missing<'_>>> = HashMap::new();
        for (by, sum) in &self.known {
            let now = now.get(by).map(|sum| sum.amount).unwrap_or_default();
            let amount = less(sum.amount, now);
            if amount != Amount::default() {
                let all = missing.entry(by.first()).or_default();
                all.push(Missing { by, sum, amount });
            }
        }
        missing
    }
}

/// What there was, and is no more.
struct Missing<'b> {
    by: &'b Identity,
    sum: &'b Sum,
    /// So much of it.
    amount: Amount,
}

impl Missing<'_> {
    /// Whether it is this one in a build of which some functions are not in stacks.
    fn may_be(&self, by: &Identity, sum: &Sum) -> bool {
        let has = |sum: &Sum, by: &Identity| sum.stacks.iter().any(|stack| by.is_part_of(stack));
        self.by.is_like(by) && (has(self.sum, by) || has(sum, self.by))
    }
}

/// How much more `one` is.
fn less(one: Amount, other: Amount) -> Amount {
    Amount {
        blocks: one.blocks.saturating_sub(other.blocks),
        bytes: one.bytes.saturating_sub(other.bytes),
    }
}

/// How much there is in `reports`, and what each site of each report is known by.
fn sums(reports: &[Report]) -> (Sums, Vec<Vec<Identity>>) {
    let mut sums = Sums::new();
    let mut identities = Vec::new();
    for report in reports {
        let functions = Functions::new(report);
        let of_site = |site: &Site| {
            let stack = functions.of(site);
            let by = Identity::new(site, &stack);
            let sum = sums.entry(by.clone()).or_default();
            sum.amount.add(site.blocks, site.bytes);
            if sum.stacks.len() < MOST_STACKS && !sum.stacks.contains(&stack) {
                sum.stacks.push(stack);
            }
            by
        };
        identities.push(report.sites.iter().map(of_site).collect());
    }
    (sums, identities)
}

fn note(known: &[Site], report: &mut Report) {
    if known.is_empty() {
        return;
    }
    let mut all = Amount::default();
    known
        .iter()
        .for_each(|site| all.add(site.blocks, site.bytes));
    report.notes.push(format!(
        "as in the baseline, and not listed: {} in {} of {}",
        exact_bytes(all.bytes),
        count(all.blocks, "block"),
        count(known.len() as u64, "stack")
    ));
}

/// What is not too much.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// The kinds that count.
    pub kinds: Vec<Kind>,
    /// Most bytes that may be left, if that is what counts.
    pub bytes: Option<u64>,
    /// Most places that may leave something.
    pub sites: Option<usize>,
}

impl Budget {
    /// Whether `reports` list more: without limits, anything.
    pub fn is_exceeded_by(&self, reports: &[Report]) -> bool {
        let is_leak = |site: &Site| self.kinds.contains(&site.kind) && !is_less(site);
        let sites = reports.iter().flat_map(|report| &report.sites);
        let leaks = sites.filter(|site| is_leak(site));
        match (self.bytes, self.sites) {
            (None, None) => leaks.count() > 0,
            (most_bytes, most_sites) => {
                let bytes = leaks.map(more).fold(0, u64::saturating_add);
                most_bytes.is_some_and(|most| bytes > most)
                    || most_sites.is_some_and(|most| places(reports, is_leak) > most)
            }
        }
    }
}

/// Bytes by which it counts: in a difference, those that there are more.
fn more(site: &Site) -> u64 {
    let more = |change: Change| u64::try_from(change.bytes).unwrap_or_default();
    site.change.map_or(site.bytes, more)
}

/// Whether it has less than in the report that it is compared with.
fn is_less(site: &Site) -> bool {
    let change = site.change.map(|change| change.kind);
    matches!(change, Some(Changed::Shrunk | Changed::Gone))
}

/// How many places text would list for those of the sites that count.
fn places(reports: &[Report], counts: impl Fn(&Site) -> bool) -> usize {
    let reports: Vec<_> = reports
        .iter()
        .map(|report| {
            let mut report = report.clone();
            report.sites.retain(&counts);
            report.compared = None;
            report
        })
        .collect();
    let by_caller = Selection {
        by: By::Caller,
        ..Selection::default()
    };
    let all = merged(&reports);
    all.map_or(0, |all| by_caller.apply(all).sites.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;
    use crate::formats::text::tests::{add, frame, report};
    use crate::identity::fingerprints;

    /// Blocks of stacks, the innermost function first, whose callers are from `main` on.
    fn leaks(all: &[(&str, u32, u64)]) -> Report {
        let mut report = report();
        for &(functions, line, blocks) in all {
            let own = |function, line| Frame {
                own: Some(true),
                ..frame(function, "x.c", line)
            };
            let functions = functions.split('<');
            let mut stack: Vec<_> = functions.map(|function| own(function, line)).collect();
            stack.push(own("main", 9));
            add(&mut report, &stack, &[(1.0, blocks, blocks * 10)]);
        }
        report
    }

    /// Functions that end with a call are in no stack of an optimised build; inlined ones are.
    #[test]
    fn an_optimised_build_has_nothing_new() {
        let before = [("f<g<h", 1, 2), ("f<i", 1, 3), ("k<l<m<n<o<p", 1, 4)];
        let baseline = Baseline::of(&[leaks(&before)]);
        for (now, left) in [
            (&[("f<h", 1, 2), ("f<i", 1, 3), ("k<m<n<o<p", 1, 4)][..], 0),
            (&[("f", 1, 5), ("k<l<n<p", 1, 4)], 0),
            // More than there was, or not at the same functions.
            (&[("f", 1, 6)], 1),
            (&[("f<h", 1, 2), ("f<g<h", 1, 2)], 1),
            (&[("g<h", 1, 2)], 1),
            (&[("f<j", 1, 1)], 1),
        ] {
            let mut reports = [leaks(now)];
            baseline.apply(&mut reports);
            assert_eq!(reports[0].sites.len(), left, "{now:?}");
        }
    }

    #[test]
    fn only_what_is_new_or_has_grown_is_left() {
        let baseline = Baseline::of(&[leaks(&[("f", 1, 2), ("f", 2, 2), ("g", 3, 1)])]);
        let names = |reports: &[Report]| {
            let sites = reports.iter().flat_map(|report| {
                let sites: Vec<_> = report.sites.iter().collect();
                fingerprints(&sites, report)
            });
            sites.collect::<Vec<_>>()
        };
        for (now, expected) in [
            // Lines move, and one call may be made of two.
            (&[("f", 7, 4)][..], &[][..]),
            (&[("f", 7, 5)], &["heap:x!f<x!main"]),
            (&[("g", 3, 1), ("h", 3, 1)], &["heap:x!h<x!main"]),
            (&[], &[]),
        ] {
            let mut reports = [leaks(now)];
            baseline.apply(&mut reports);
            assert_eq!(names(&reports), expected, "{now:?}");
        }
        // What two processes have is added up.
        let mut reports = [leaks(&[("g", 3, 1)]), leaks(&[("g", 3, 1)])];
        baseline.apply(&mut reports);
        assert_eq!(names(&reports).len(), 2);
    }

    #[test]
    fn what_was_in_use_covers_nothing_that_is_lost() {
        let of = |kinds: &[(Kind, u64)]| {
            let all: Vec<_> = kinds.iter().map(|(_, blocks)| ("f", 1, *blocks)).collect();
            let mut report = leaks(&all);
            for (site, (kind, _)) in report.sites.iter_mut().zip(kinds) {
                site.kind = *kind;
            }
            report
        };
        use Kind::{Definite, Possible, Reachable, Unmatched};
        for (before, now, left) in [
            (Reachable, Definite, 1),
            (Reachable, Reachable, 0),
            (Definite, Possible, 0),
            (Unmatched, Definite, 0),
        ] {
            let baseline = Baseline::of(&[of(&[(before, 3)])]);
            let mut reports = [of(&[(now, 3)])];
            baseline.apply(&mut reports);
            assert_eq!(reports[0].sites.len(), left, "{before:?} {now:?}");
        }
        let both = of(&[(Definite, 1), (Reachable, 3)]);
        let sites: Vec<_> = both.sites.iter().collect();
        let expected = ["heap:x!f<x!main", "in use:x!f<x!main"];
        assert_eq!(fingerprints(&sites, &both), expected);
    }

    #[test]
    fn a_budget_is_bytes_or_places() {
        let reports = [leaks(&[("f", 1, 2), ("f", 1, 3), ("g", 3, 1)])];
        for (bytes, sites, expected) in [
            (None, None, true),
            (Some(60), None, false),
            (Some(59), None, true),
            (None, Some(2), false),
            (None, Some(1), true),
            (Some(60), Some(1), true),
        ] {
            let budget = |kinds: &[Kind]| Budget {
                kinds: kinds.to_vec(),
                bytes,
                sites,
            };
            let is_exceeded = budget(&[Kind::Unmatched]).is_exceeded_by(&reports);
            assert_eq!(is_exceeded, expected, "{bytes:?} {sites:?}");
            assert!(!budget(&[Kind::Definite]).is_exceeded_by(&reports));
        }
    }
}
