//! Which sites of a report are listed, and how they are grouped.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::{Age, Frame, FrameId, Kind, Module, ModuleId, Report, Site, Source};

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
        let sites = std::mem::take(&mut report.sites);
        let mut reducer = Reducer::new(self.by, &report.modules, &mut report.frames);
        let sites = sites.into_iter().filter_map(older);
        // In boxes, which are sorted in less time.
        let reduced = sites.map(|site| Box::new(reducer.reduce(site)));
        let mut sites: Vec<_> = reduced.collect();
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
        let tables = report.tables();
        let size = |site: &Site| Reverse((site.bytes, site.blocks));
        // Numbers of frames differ from trace to trace; what they lead to does not.
        sites.sort_by(|a, b| {
            let by_frames = || tables.places(&a.frames).cmp(tables.places(&b.frames));
            size(a).cmp(&size(b)).then_with(by_frames)
        });
        report.sites = sites.into_iter().map(|site| *site).collect();
        self.cut(&mut report);
        report
    }

    /// Only the largest groups.
    pub fn cut(&self, report: &mut Report) {
        report.sites.truncate(self.top.unwrap_or(usize::MAX));
    }
}

/// What the sites of one group have in common.
type Group<'a> = (
    &'a [FrameId],
    Kind,
    Source,
    Option<&'a str>,
    Option<(&'a str, Option<&'a str>)>,
);

impl By {
    /// The group of a reduced site. Whole stacks are told apart by the allocator function, too.
    fn group(self, site: &Site) -> Group<'_> {
        let stack = || (site.function.as_str(), site.truncated.as_deref());
        let how = (self == By::Stack).then(stack);
        let family = site.family.as_deref();
        (&site.frames, site.kind, site.source, family, how)
    }

    /// What of a frame makes the group; `module` stands for its own. A frame without names stays
    /// what it is, or its module.
    fn place(self, frame: &Frame, module: Option<ModuleId>) -> Frame {
        let module = Frame {
            module,
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

/// Leaves of stacks what makes the group.
struct Reducer<'a> {
    by: By,
    /// Of each module, the first one of the same file.
    modules: Vec<ModuleId>,
    frames: &'a mut Vec<Frame>,
    /// Frames that stand for others.
    known: HashMap<Frame, FrameId>,
}

impl Reducer<'_> {
    fn new<'a>(by: By, modules: &[Module], frames: &'a mut Vec<Frame>) -> Reducer<'a> {
        let mut first = HashMap::new();
        let modules = (0..).map(ModuleId).zip(modules);
        let modules = modules
            .map(|(id, module)| *first.entry((&module.path, &module.build_id)).or_insert(id));
        Reducer {
            by,
            modules: modules.collect(),
            frames,
            known: HashMap::new(),
        }
    }

    /// `site` with only that part of its stack that makes the group, and without what only captures
    /// keep.
    fn reduce(&mut self, mut site: Site) -> Site {
        site.ages = Vec::new();
        site.allocator = Vec::new();
        match site.frames.first() {
            Some(&first) if self.by != By::Stack => Site {
                frames: vec![self.stands_for(first)],
                culprit: None,
                truncated: None,
                ..site
            },
            _ => site,
        }
    }

    /// The frame that stands for this one and all others of its group.
    fn stands_for(&mut self, FrameId(id): FrameId) -> FrameId {
        let Some(frame) = self.frames.get(id as usize) else {
            return FrameId(id);
        };
        let module = frame.module;
        let module = module.and_then(|ModuleId(id)| self.modules.get(id as usize).copied());
        let place = self.by.place(frame, module);
        let next = FrameId(self.frames.len() as u32); // as many as stacks have, twice at most
        *self.known.entry(place).or_insert_with_key(|place| {
            self.frames.push(place.clone());
            next
        })
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
    use crate::Hex;
    use crate::formats::text::tests::{add, frame, report};

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
