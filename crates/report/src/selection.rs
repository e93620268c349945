//! Which sites of a report are listed, and how they are grouped.

mod by;

use std::cmp::Reverse;

use self::by::{Member, Reducer};
use crate::{Age, Alike, Report, Site};

pub use self::by::By;

/// What is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Selection {
    /// Only blocks at least so old, in seconds.
    pub older: Option<f64>,
    /// Only groups of at least so many bytes.
    pub min_size: u64,
    /// Only so many groups.
    pub top: Option<usize>,
    /// What makes a group.
    pub by: By,
}

impl Selection {
    /// The sites that are asked for, sorted by bytes, largest first. Totals stay as they are.
    pub fn apply(&self, mut report: Report) -> Report {
        let older = |site| match self.older {
            Some(age) => at_least(site, age),
            None => Some(site),
        };
        let sites = std::mem::take(&mut report.sites);
        let mut reducer = Reducer::new(self.by, &report.modules, &mut report.frames);
        let sites = sites.into_iter().filter_map(older);
        // In boxes, which are sorted in less time.
        let members = sites.map(|site| Box::new(reducer.member(site)));
        let mut members: Vec<_> = members.collect();
        members.sort_by(|a, b| {
            let by_group = a.group().cmp(&b.group());
            by_group.then_with(|| a.site.function.cmp(&b.site.function))
        });
        members.dedup_by(|one, first| {
            let same = one.group() == first.group();
            if same {
                self.add(first, one);
            }
            same
        });
        members.retain(|group| group.site.bytes >= self.min_size);
        let tables = report.tables();
        for group in &mut members {
            let Site { alike, frames, .. } = &mut group.site;
            alike.sort_by(|a, b| {
                let by_frames = || tables.places(&a.frames).cmp(tables.places(&b.frames));
                b.bytes.cmp(&a.bytes).then_with(by_frames)
            });
            if let Some(first) = alike.first() {
                frames.clone_from(&first.frames);
            }
        }
        let size = |member: &Member| Reverse((member.site.bytes, member.site.blocks));
        // Numbers of frames differ from trace to trace; what they lead to does not.
        members.sort_by(|a, b| {
            let [of_a, of_b] = [a, b].map(|member| tables.places(&member.site.frames));
            size(a).cmp(&size(b)).then_with(|| of_a.cmp(of_b))
        });
        report.sites = members.into_iter().map(|member| member.site).collect();
        self.cut(&mut report);
        report
    }

    /// `one` becomes a part of the group that `first` stands for.
    fn add(&self, first: &mut Member, one: &mut Member) {
        if self.by == By::Stack {
            for member in [&mut *first, one] {
                let site = &mut member.site;
                if site.alike.is_empty() {
                    site.alike = vec![Alike {
                        frames: site.frames.clone(),
                        blocks: site.blocks,
                        bytes: site.bytes,
                    }];
                }
            }
            first.site.alike.append(&mut one.site.alike);
        }
        add(&mut first.site, &one.site);
    }

    /// Only the largest groups.
    pub fn cut(&self, report: &mut Report) {
        report.sites.truncate(self.top.unwrap_or(usize::MAX));
    }
}

fn add(group: &mut Site, site: &Site) {
    group.blocks = group.blocks.saturating_add(site.blocks);
    group.bytes = group.bytes.saturating_add(site.bytes);
    group.allocated_blocks = sum(group.allocated_blocks, site.allocated_blocks);
    group.allocated_bytes = sum(group.allocated_bytes, site.allocated_bytes);
    group.resident_bytes = sum(group.resident_bytes, site.resident_bytes);
    (group.growth, group.shape) = (None, None);
    group.youngest = group.youngest.min(site.youngest);
    group.oldest = group.oldest.max(site.oldest);
    let known = group.function.split(", ").any(|name| name == site.function);
    if !known {
        group.function = format!("{}, {}", group.function, site.function);
    }
}

/// Nothing if either is not known.
fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one?.saturating_add(other?))
}

/// What of `site` is at least so old, if anything.
fn at_least(mut site: Site, age: f64) -> Option<Site> {
    site.ages.retain(|blocks| blocks.age >= age);
    let ages = |pick: fn(f64, f64) -> f64| site.ages.iter().map(|a: &Age| a.age).reduce(pick);
    (site.youngest, site.oldest) = (ages(f64::min)?, ages(f64::max)?);
    let sum = |of: fn(&Age) -> u64| site.ages.iter().map(of).fold(0, u64::saturating_add);
    (site.blocks, site.bytes) = (sum(|age| age.blocks), sum(|age| age.bytes));
    Some(site)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::text::tests::{add, frame, report};
    use crate::{Frame, FrameId, Hex, ModuleId};

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
                    top: Some(1),
                    ..all
                },
                vec![(4, 400)],
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
