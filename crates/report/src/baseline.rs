//! What is new since another trace, and what is too much.

use std::collections::HashMap;

use crate::numbers::{count, exact_bytes};
use crate::{Amount, By, Change, Changed, Kind, Report, Selection, Site, fingerprint, merged};

/// What another trace has left, by what sites are known by.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    known: HashMap<String, Amount>,
}

impl Baseline {
    /// What all of `reports` list.
    pub fn of(reports: &[Report]) -> Baseline {
        Baseline {
            known: sums(reports, &fingerprints(reports)),
        }
    }

    /// Takes from the sites of `reports` those of which there were as many blocks and bytes before,
    /// over all of them, and returns these, report by report. A note in each says how many.
    pub fn apply(&self, reports: &mut [Report]) -> Vec<Vec<Site>> {
        let prints = fingerprints(reports);
        let now = sums(reports, &prints);
        let is_known = |site: &Site, by: &String| {
            let before = self.known.get(by);
            let now = now.get(by).copied().unwrap_or_default();
            let is_more = |before: &Amount| now.blocks > before.blocks || now.bytes > before.bytes;
            site.kind != Kind::Runtime && before.is_some_and(|before| !is_more(before))
        };
        let known = reports.iter_mut().zip(&prints).map(|(report, prints)| {
            let mut prints = prints.iter();
            let sites = std::mem::take(&mut report.sites).into_iter();
            let (known, rest): (Vec<_>, Vec<_>) =
                sites.partition(|site| prints.next().is_some_and(|by| is_known(site, by)));
            report.sites = rest;
            note(&known, report);
            known
        });
        known.collect()
    }
}

/// What each site of each report is known by.
fn fingerprints(reports: &[Report]) -> Vec<Vec<String>> {
    let of = |report: &Report| {
        let sites = report.sites.iter();
        sites.map(|site| fingerprint(site, report)).collect()
    };
    reports.iter().map(of).collect()
}

/// How much there is by what sites are known by.
fn sums(reports: &[Report], prints: &[Vec<String>]) -> HashMap<String, Amount> {
    let mut sums: HashMap<_, Amount> = HashMap::new();
    let sites = reports.iter().flat_map(|report| &report.sites);
    for (site, by) in sites.zip(prints.iter().flatten()) {
        let sum = sums.entry(by.clone()).or_default();
        sum.add(site.blocks, site.bytes);
    }
    sums
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

    /// Blocks of `leak`, called by `main`.
    fn leaks(all: &[(&str, u32, u64)]) -> Report {
        let mut report = report();
        for &(function, line, blocks) in all {
            let own = |function, line| Frame {
                own: Some(true),
                ..frame(function, "x.c", line)
            };
            let stack = [own(function, line), own("main", 9)];
            add(&mut report, &stack, &[(1.0, blocks, blocks * 10)]);
        }
        report
    }

    #[test]
    fn only_what_is_new_or_has_grown_is_left() {
        let baseline = Baseline::of(&[leaks(&[("f", 1, 2), ("f", 2, 2), ("g", 3, 1)])]);
        let names = |reports: &[Report]| {
            let sites = reports.iter().flat_map(|report| {
                let sites = report.sites.iter();
                sites.map(|site| fingerprint(site, report))
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
