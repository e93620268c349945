//! Which sites of a report are listed, in which order.

use std::cmp::Reverse;

use crate::grouping::grouped;
use crate::{By, Change, Course, FrameId, Kind, Report, Site, Tables, diff};

/// What is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Selection {
    /// Only blocks at least so old, in seconds.
    pub older: Option<f64>,
    /// Only groups of at least so many bytes.
    pub min_size: u64,
    /// What makes a group.
    pub by: By,
    /// Which groups come first.
    pub sort: Sort,
    /// Groups keep their [`members`](Site::members).
    pub members: bool,
}

/// In which order sites are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Most bytes first.
    #[default]
    Bytes,
    /// Most blocks first.
    Blocks,
    /// What grows first, that which grows by most bytes at the top.
    Rate,
}

impl Selection {
    /// The sites that are asked for, in order. Totals stay as they are.
    pub fn apply(&self, mut report: Report) -> Report {
        sort(&mut report, Sort::Bytes);
        grouped(&mut report, self.by, self.older, self.members);
        diff::tell(&mut report);
        report.sites.retain(|site| weight(site).1 >= self.min_size);
        sort(&mut report, self.sort);
        report
    }
}

/// Numbers of frames differ from trace to trace; what they lead to does not.
fn sort(report: &mut Report, by: Sort) {
    // In boxes, which are sorted in less time.
    let sites = std::mem::take(&mut report.sites).into_iter();
    let mut sites: Vec<_> = sites.map(Box::new).collect();
    let ranks = ranks(report.tables());
    let rank = |&FrameId(id): &FrameId| ranks.get(id as usize);
    let size = |site: &Site| match by {
        Sort::Bytes => Reverse((0, weight(site).1, weight(site).0)),
        Sort::Blocks => Reverse((0, weight(site).0, weight(site).1)),
        Sort::Rate => Reverse((urgency(site), weight(site).1, weight(site).0)),
    };
    sites.sort_by(|a, b| {
        let by_frames = || a.frames.iter().map(rank).cmp(b.frames.iter().map(rank));
        let by_call = || a.function.cmp(&b.function);
        size(a)
            .cmp(&size(b))
            .then_with(by_frames)
            .then_with(by_call)
    });
    report.sites = sites.into_iter().map(|site| *site).collect();
}

/// Of each frame, where it is in the order of what frames lead to.
fn ranks(tables: Tables<'_>) -> Vec<u32> {
    let mut places: Vec<_> = tables.all().zip(0_usize..).collect();
    places.sort();
    let mut ranks = vec![0; places.len()];
    let alike = places.chunk_by(|(a, _), (b, _)| a == b);
    for (rank, places) in (0..).zip(alike) {
        for &(_, id) in places {
            if let Some(of) = ranks.get_mut(id) {
                *of = rank;
            }
        }
    }
    ranks
}

/// Blocks and bytes by which a site counts: those that are left, or by which it has changed.
pub(crate) fn weight(site: &Site) -> (u64, u64) {
    let left = (site.blocks, site.bytes);
    let changed = |change: Change| (change.blocks.unsigned_abs(), change.bytes.unsigned_abs());
    site.change.map_or(left, changed)
}

/// How urgent it is: what is lost or grows comes first, what is still in use last.
fn urgency(site: &Site) -> u8 {
    match site.kind {
        _ if is_growing(site) => 3,
        Kind::Definite | Kind::Indirect => 2,
        Kind::Unmatched | Kind::Possible => 1,
        Kind::Reachable | Kind::Runtime => 0,
    }
}

/// Whether it is proven to grow.
pub(crate) fn is_growing(site: &Site) -> bool {
    let growth = site.growth.as_ref();
    growth.is_some_and(|growth| growth.pattern == Some(Course::Growing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::text::tests::{add, frame, report};
    use crate::{Frame, Hex, ModuleId};

    fn listed(selection: Selection) -> Vec<(u64, u64)> {
        let mut all = report();
        let f = |line| [frame("f", "a.c", line)];
        add(&mut all, &f(1), &[(1.0, 1, 10), (5.0, 2, 20)]);
        add(&mut all, &f(2), &[(9.0, 4, 400)]);
        add(&mut all, &[frame("g", "b.c", 3)], &[(2.0, 1, 100)]);
        selection
            .apply(all)
            .sites
            .iter()
            .map(|s| (s.blocks, s.bytes))
            .collect()
    }

    #[test]
    fn selects_and_groups() {
        let all = Selection::default();
        let cases = [
            (all, vec![(4, 400), (1, 100), (3, 30)]),
            (
                Selection {
                    older: Some(5.0),
                    ..all
                },
                vec![(4, 400), (2, 20)],
            ),
            (
                Selection {
                    older: Some(10.0),
                    ..all
                },
                vec![],
            ),
            (
                Selection {
                    min_size: 100,
                    ..all
                },
                vec![(4, 400), (1, 100)],
            ),
            (
                Selection {
                    by: By::Site,
                    ..all
                },
                vec![(4, 400), (1, 100), (3, 30)],
            ),
            (
                Selection {
                    by: By::Function,
                    ..all
                },
                vec![(7, 430), (1, 100)],
            ),
            (
                Selection {
                    by: By::File,
                    ..all
                },
                vec![(7, 430), (1, 100)],
            ),
            (
                Selection {
                    by: By::Module,
                    ..all
                },
                vec![(8, 530)],
            ),
            (
                Selection {
                    by: By::Module,
                    min_size: 500,
                    ..all
                },
                vec![(8, 530)],
            ),
        ];
        for (selection, expected) in cases {
            assert_eq!(listed(selection), expected, "{selection:?}");
        }
    }

    #[test]
    fn what_grows_may_come_first() {
        let mut all = report();
        all.duration = 60.0;
        let f = |line| [frame("f", "a.c", line)];
        let ages = [55.0, 40.0, 25.0, 5.0].map(|age| (age, 10, 100));
        add(&mut all, &f(1), &ages);
        add(&mut all, &f(2), &[(50.0, 1, 4000)]);
        add(&mut all, &f(3), &[(1.0, 90, 90)]);
        for (sort, expected) in [
            (Sort::Bytes, [4000, 400, 90]),
            (Sort::Blocks, [90, 400, 4000]),
            (Sort::Rate, [400, 4000, 90]),
        ] {
            let selection = Selection {
                sort,
                ..Selection::default()
            };
            let sites = selection.apply(all.clone()).sites;
            let bytes: Vec<_> = sites.iter().map(|site| site.bytes).collect();
            assert_eq!(bytes, expected, "{sort:?}");
        }
    }

    /// Which of its blocks are listed changes nothing in what all of them prove.
    #[test]
    fn growth_is_that_of_all_blocks() {
        let mut all = report();
        all.duration = 60.0;
        let ages = [55.0, 40.0, 25.0, 5.0].map(|age| (age, 10, 100));
        add(&mut all, &[frame("f", "a.c", 1)], &ages);
        for older in [None, Some(20.0), Some(50.0)] {
            let selection = Selection {
                older,
                ..Selection::default()
            };
            let sites = selection.apply(all.clone()).sites;
            assert!(is_growing(&sites[0]), "{older:?}");
        }
    }

    #[test]
    fn a_site_is_a_line_whatever_calls_it_and_however_it_allocates() {
        let mut all = report();
        let f = |line| frame("f", "a.c", line);
        add(&mut all, &[f(1)], &[(1.0, 1, 10)]);
        let elsewhere = Frame {
            address: Some(Hex(0x55d0_c0e7)),
            ..f(1)
        };
        add(&mut all, &[elsewhere, Frame::default()], &[(2.0, 1, 20)]);
        add(&mut all, &[f(2)], &[(3.0, 1, 5)]);
        all.sites[1].function = "calloc".to_owned();
        let by_site = Selection {
            by: By::Site,
            ..Selection::default()
        };
        let report = by_site.apply(all);
        let sites = &report.sites;
        assert_eq!(sites.len(), 2);
        assert_eq!((sites[0].blocks, sites[0].bytes), (2, 30));
        assert_eq!(sites[0].function, "calloc, malloc");
        assert_eq!((sites[0].youngest, sites[0].oldest), (1.0, 2.0));
        assert_eq!(sites[0].frames.len(), 1);
        let frame = report.tables().frame(sites[0].frames[0]);
        let json = serde_json::to_value(frame).unwrap();
        assert!(json["address"].is_null() && json["line"] == 1);
    }

    /// As of a loop that is unrolled: three calls of one line, and one of another.
    #[test]
    fn stacks_that_read_the_same_are_one_site() {
        let mut all = report();
        let at = |address, line| Frame {
            address: Some(Hex(address)),
            offset: Some(Hex(address)),
            ..frame("f", "a.c", line)
        };
        for (address, line, blocks) in [(1, 7, 1), (2, 7, 2), (3, 7, 1), (4, 8, 3)] {
            add(
                &mut all,
                &[at(address, line)],
                &[(1.0, blocks, blocks * 10)],
            );
        }
        let report = Selection::default().apply(all);
        let sizes = report.sites.iter().map(|site| (site.blocks, site.bytes));
        assert_eq!(sizes.collect::<Vec<_>>(), [(4, 40), (3, 30)]);
        let [one, other] = &report.sites[..] else {
            panic!("{:?}", report.sites)
        };
        assert!(other.alike.is_empty());
        let frames = |ids: &[FrameId]| report.tables().stack(ids)[0].frame.address;
        let alike = one
            .alike
            .iter()
            .map(|one| (frames(&one.frames), one.blocks));
        let expected = [(2, 2), (1, 1), (3, 1)].map(|(at, blocks)| (Some(Hex(at)), blocks));
        assert_eq!(alike.collect::<Vec<_>>(), expected);
        assert_eq!(frames(&one.frames), Some(Hex(2)));
        // Again, as of a JSON report.
        assert_eq!(Selection::default().apply(report.clone()), report);
    }

    /// The place that is shown is another one.
    #[test]
    fn stacks_without_lines_are_told_apart_by_offset() {
        let mut all = report();
        for offset in [1, 2] {
            let nameless = Frame {
                offset: Some(Hex(offset)),
                line: None,
                ..frame("f", "", 0)
            };
            add(&mut all, &[nameless], &[(1.0, 1, 10)]);
        }
        assert_eq!(Selection::default().apply(all).sites.len(), 2);
    }

    #[test]
    fn frames_without_names_are_grouped_by_what_they_have() {
        let mut all = report();
        for offset in [1, 2] {
            let nameless = Frame {
                offset: Some(Hex(offset)),
                module: Some(ModuleId(0)),
                ..Frame::default()
            };
            add(&mut all, &[nameless], &[(1.0, 1, 10)]);
        }
        for (by, groups) in [
            (By::Site, 2),
            (By::Function, 2),
            (By::File, 1),
            (By::Module, 1),
        ] {
            let selection = Selection {
                by,
                ..Selection::default()
            };
            assert_eq!(selection.apply(all.clone()).sites.len(), groups, "{by:?}");
        }
    }

    #[test]
    fn sums_of_a_forged_capture_do_not_overflow() {
        let most = u64::MAX;
        let mut all = report();
        add(&mut all, &[frame("f", "a.c", 1)], &[(1.0, most, most)]);
        add(&mut all, &[frame("f", "a.c", 1)], &[(2.0, 1, 1)]);
        let one = all.sites[1].ages[0];
        all.sites[0].ages.push(one);
        for older in [None, Some(0.5)] {
            let by = By::File;
            let selection = Selection {
                older,
                by,
                ..Selection::default()
            };
            let sites = selection.apply(all.clone()).sites;
            assert_eq!((sites[0].blocks, sites[0].bytes), (most, most));
        }
    }

    #[test]
    fn a_blocks_age_decides_not_its_sites() {
        let mut all = report();
        let ages = [(1.0, 1, 10), (5.0, 2, 20)];
        add(&mut all, &[frame("f", "a.c", 1)], &ages);
        let left = Selection {
            older: Some(2.0),
            ..Selection::default()
        }
        .apply(all)
        .sites;
        assert_eq!((left[0].youngest, left[0].oldest), (5.0, 5.0));
        assert!(left[0].ages.is_empty(), "only captures keep them");
    }
}
