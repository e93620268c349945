//! Which sites of a report are listed, and how they are grouped.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::{Age, Frame, Kind, Report, Site, Source};

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

/// What makes a group of sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The whole stack.
    #[default]
    Stack,
    /// The place of the innermost frame outside of the allocator: function, file and line.
    Site,
    /// That frame's function.
    Function,
    /// That frame's source file; its module where there is none.
    File,
    /// That frame's module.
    Module,
}

impl Selection {
    /// The sites that are asked for, sorted by bytes, largest first. Totals stay as they are.
    pub fn apply(&self, mut report: Report) -> Report {
        let older = |site| match self.older {
            Some(age) => at_least(site, age),
            None => Some(site),
        };
        let mut sites: Vec<_> = std::mem::take(&mut report.sites)
            .into_iter()
            .filter_map(older)
            .map(|site| self.by.reduce(site))
            .collect();
        sites.sort_by(|a, b| {
            let by_group = self.by.group(a).cmp(&self.by.group(b));
            by_group.then_with(|| a.function.cmp(&b.function))
        });
        sites.dedup_by(|site, group| {
            let same = self.by.group(site) == self.by.group(group);
            if same {
                add(group, site);
            }
            same
        });
        sites.retain(|site| site.bytes >= self.min_size);
        // Stable: equal ones stay in the order of their frames.
        sites.sort_by_key(|site| Reverse((site.bytes, site.blocks)));
        sites.truncate(self.top.unwrap_or(usize::MAX));
        report.sites = sites;
        report
    }
}

/// What the sites of one group have in common.
type Group<'a> = (
    Kind,
    Source,
    Option<&'a str>,
    &'a [Arc<Frame>],
    Option<(&'a str, Option<&'a str>)>,
);

impl By {
    /// The group of a reduced site. Whole stacks are told apart by the allocator function, too.
    fn group(self, site: &Site) -> Group<'_> {
        let stack = || (site.function.as_str(), site.truncated.as_deref());
        let how = (self == By::Stack).then(stack);
        (
            site.kind,
            site.source,
            site.family.as_deref(),
            &site.frames,
            how,
        )
    }

    /// `site` with only that part of its stack that makes the group.
    fn reduce(self, site: Site) -> Site {
        let ages = Vec::new();
        match site.frames.first() {
            Some(first) if self != By::Stack => Site {
                frames: vec![Arc::new(self.place(first))],
                ages,
                truncated: None,
                ..site
            },
            _ => Site { ages, ..site },
        }
    }

    /// What of a frame makes the group. A frame without names stays what it is, or its module.
    fn place(self, frame: &Frame) -> Frame {
        let module = Frame {
            module: frame.module.clone(),
            build_id: frame.build_id.clone(),
            ..Frame::default()
        };
        match self {
            By::Site if frame.function.is_some() || frame.line.is_some() => Frame {
                function: frame.function.clone(),
                file: frame.file.clone(),
                line: frame.line,
                ..module
            },
            By::Function if frame.function.is_some() => Frame {
                function: frame.function.clone(),
                ..module
            },
            By::File if frame.file.is_some() => Frame {
                file: frame.file.clone(),
                ..Frame::default()
            },
            By::File | By::Module if frame.module.is_some() => module,
            _ => frame.clone(),
        }
    }
}

fn add(group: &mut Site, site: &Site) {
    group.blocks = group.blocks.saturating_add(site.blocks);
    group.bytes = group.bytes.saturating_add(site.bytes);
    group.youngest = group.youngest.min(site.youngest);
    group.oldest = group.oldest.max(site.oldest);
    let known = group.function.split(", ").any(|name| name == site.function);
    if !known {
        group.function = format!("{}, {}", group.function, site.function);
    }
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
    use crate::text::tests::{report, site};

    fn listed(selection: Selection) -> Vec<(u64, u64)> {
        let mut all = report();
        all.sites = vec![
            site("f", "a.c", 1, &[(1.0, 1, 10), (5.0, 2, 20)]),
            site("f", "a.c", 2, &[(9.0, 4, 400)]),
            site("g", "b.c", 3, &[(2.0, 1, 100)]),
        ];
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
        all.sites = vec![
            site("f", "a.c", 1, &[(1.0, 1, 10)]),
            site("f", "a.c", 1, &[(2.0, 1, 20)]),
            site("f", "a.c", 2, &[(3.0, 1, 5)]),
        ];
        all.sites[1].function = "calloc".to_owned();
        Arc::make_mut(&mut all.sites[1].frames[0]).address = "0x55d0c0e7".to_owned();
        all.sites[1].frames.push(Arc::default());
        let by_site = Selection {
            by: By::Site,
            ..Selection::default()
        };
        let sites = by_site.apply(all).sites;
        assert_eq!(sites.len(), 2);
        assert_eq!((sites[0].blocks, sites[0].bytes), (2, 30));
        assert_eq!(sites[0].function, "calloc, malloc");
        assert_eq!((sites[0].youngest, sites[0].oldest), (1.0, 2.0));
        assert_eq!(sites[0].frames.len(), 1);
        let json = serde_json::to_value(&sites[0].frames[0]).unwrap();
        assert!(json["address"].is_null() && json["line"] == 1);
    }

    #[test]
    fn frames_without_names_are_grouped_by_what_they_have() {
        let mut all = report();
        all.sites = vec![
            site("f", "a.c", 1, &[(1.0, 1, 10)]),
            site("f", "a.c", 1, &[(1.0, 1, 10)]),
        ];
        for (site, offset) in all.sites.iter_mut().zip(["0x1", "0x2"]) {
            let frame = Arc::make_mut(&mut site.frames[0]);
            (frame.function, frame.file, frame.line) = (None, None, None);
            frame.offset = Some(offset.to_owned());
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
        all.sites = vec![
            site("f", "a.c", 1, &[(1.0, most, most)]),
            site("f", "a.c", 1, &[(2.0, 1, 1)]),
        ];
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
        all.sites = vec![site("f", "a.c", 1, &[(1.0, 1, 10), (5.0, 2, 20)])];
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
