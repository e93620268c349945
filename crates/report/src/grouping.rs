//! Sites in groups.

use std::collections::{BTreeSet, HashMap};

use crate::counts::Trace;
use crate::course::{Evidence, growths};
use crate::own::origin::Class;
use crate::own::{class, classes};
use crate::reading::Reading;
use crate::{
    Age, Alike, Frame, FrameId, Growth, Kind, Module, ModuleId, Place, Report, Site, Source,
};

/// What makes a group of sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The whole stack, as it reads: unrolled or cloned code is at more than one address.
    #[default]
    Stack,
    /// The culprit: its function, file and line.
    Caller,
    /// The place of the innermost frame outside of the allocator: function, file and line.
    Site,
    /// The function of the innermost frame outside of the runtimes.
    Function,
    /// That frame's source file; its module where there is none.
    File,
    /// That frame's module.
    Module,
}

impl By {
    /// Whether groups have stacks.
    fn keeps_stacks(self) -> bool {
        matches!(self, By::Stack | By::Caller)
    }

    /// What of a frame makes the group; `module` stands for its own. A frame without names stays
    /// what it is, or its module.
    fn place(self, frame: &Frame, module: Option<ModuleId>) -> Frame {
        let module = Frame {
            module,
            own: frame.own,
            ..Frame::default()
        };
        match self {
            By::Stack if module.module.is_some() => Frame {
                address: None,
                symbol: None,
                // With a line, it is not shown.
                offset: frame.offset.filter(|_| frame.line.is_none()),
                module: module.module,
                ..frame.clone()
            },
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
                own: frame.own,
                ..Frame::default()
            },
            By::File | By::Module if frame.module.is_some() => module,
            _ => frame.clone(),
        }
    }
}

/// Makes groups of the sites of `report`, each at the place of the first of its sites: of blocks at
/// least so old. What is known of all their blocks says how they grow. With `members`, groups keep
/// their sites.
pub(crate) fn grouped(report: &mut Report, by: By, older: Option<f64>, members: bool) {
    let trace = Trace::of(report);
    let mut frames = Representatives::new(by, report);
    let keys = Keys::new(by, report, &frames.modules);
    let mut numbers = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for site in std::mem::take(&mut report.sites) {
        let next = groups.len();
        let number = *numbers.entry(keys.of(&site)).or_insert(next);
        if number == next {
            groups.push(Group {
                members: members.then(Vec::new),
                ..Group::default()
            });
        }
        if let Some(group) = groups.get_mut(number) {
            group.evidence.add(&site);
            let grows = by == By::Caller && Evidence::of(&site).is_growing(&trace);
            let site = match older {
                Some(age) => at_least(site, age),
                None => Some(site),
            };
            if let Some(site) = site {
                let head = keys.head(&site);
                group.add(site, head, grows);
            }
        }
    }
    let growths = growths(groups.iter().map(|group| &group.evidence), &trace);
    let sites = groups
        .into_iter()
        .zip(growths)
        .filter_map(|(group, growth)| group.into_site(growth, by, &mut frames, &mut report.frames));
    report.sites = sites.collect();
    report.looks.clear();
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

/// What the sites of one group have in common.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    source: Source,
    family: Option<String>,
    frames: Vec<u32>,
    /// Whole stacks are told apart by the allocator function, too, and by how they end.
    how: Option<(String, Option<String>)>,
}

/// What tells groups apart.
struct Keys {
    by: By,
    /// Of each frame, the number of what it is known by in its group.
    labels: Vec<u32>,
    classes: Vec<Class>,
}

impl Keys {
    fn new(by: By, report: &Report, modules: &[ModuleId]) -> Keys {
        let labels = match by {
            By::Stack => places(by, report, modules),
            _ => labels(by, report),
        };
        Keys {
            by,
            labels,
            classes: classes(report),
        }
    }

    fn of(&self, site: &Site) -> Key {
        let label = |&FrameId(id): &FrameId| self.labels.get(id as usize).copied().unwrap_or(id);
        let frames = match self.by {
            By::Stack => site.frames.iter().map(label).collect(),
            _ => self.head(site).iter().map(label).collect(),
        };
        let how = || (site.function.clone(), site.truncated.clone());
        Key {
            kind: site.kind,
            source: site.source,
            family: site.family.clone(),
            frames,
            how: (self.by == By::Stack).then(how),
        }
    }

    /// The frame that a group is known by.
    fn head(&self, site: &Site) -> Option<FrameId> {
        let first = site.frames.first().copied();
        let is_nobodys = |id: &FrameId| class(&self.classes, *id) >= Class::Standard;
        match self.by {
            By::Stack | By::Site => first,
            By::Caller => site.culprit.or(first),
            By::Function | By::File | By::Module => {
                let mut frames = site.frames.iter().copied();
                frames.find(|id| !is_nobodys(id)).or(first)
            }
        }
    }
}

/// Numbers what frames are, but for their addresses.
fn places(by: By, report: &Report, modules: &[ModuleId]) -> Vec<u32> {
    let mut numbers = HashMap::new();
    let places = report.frames.iter().map(|frame| {
        let module = frame.module;
        let module = module.and_then(|ModuleId(id)| modules.get(id as usize).copied());
        let next = numbers.len() as u32;
        *numbers.entry(by.place(frame, module)).or_insert(next)
    });
    places.collect()
}

/// Numbers what frames read like in their groups: no two of these may read alike.
fn labels(by: By, report: &Report) -> Vec<u32> {
    let reading = Reading::of(report, false);
    let mut numbers = HashMap::new();
    let labels = report.tables().all().map(|place| {
        let reduced = by.place(place.frame, place.frame.module);
        let reads = Place {
            frame: if by.keeps_stacks() {
                place.frame
            } else {
                &reduced
            },
            module: place
                .module
                .filter(|_| by.keeps_stacks() || reduced.module.is_some()),
        };
        let label = (reading.name(&reads), reading.position(&reads));
        let next = numbers.len() as u32;
        *numbers.entry(label).or_insert(next)
    });
    labels.collect()
}

/// Sites that belong together.
#[derive(Default)]
struct Group {
    evidence: Evidence,
    /// Their sum, if there is any that is listed.
    sum: Option<Site>,
    head: Option<FrameId>,
    functions: BTreeSet<String>,
    stacks: Vec<Alike>,
    /// Its sites, if they are kept.
    members: Option<Vec<Site>>,
    /// So many of the stacks grow by themselves; the first of these is shown.
    growing: u64,
}

impl Group {
    /// What `grows` by itself shows its stack.
    fn add(&mut self, site: Site, head: Option<FrameId>, grows: bool) {
        if let Some(members) = &mut self.members {
            members.push(site.clone());
        }
        let functions = site.function.split(", ").map(str::to_owned);
        self.functions.extend(functions);
        let before = self.stacks.len();
        match site.alike.is_empty() {
            true => self.stacks.push(Alike {
                frames: site.frames.clone(),
                blocks: site.blocks,
                bytes: site.bytes,
            }),
            false => self.stacks.extend(site.alike.iter().cloned()),
        }
        match &mut self.sum {
            Some(group) => {
                add(group, &site);
                if grows && self.growing == 0 {
                    (group.frames, group.culprit) = (site.frames, site.culprit);
                    group.truncated = site.truncated;
                }
            }
            None => (self.sum, self.head) = (Some(site), head),
        }
        if grows {
            self.growing += (self.stacks.len() - before) as u64;
        }
    }

    /// Without what only captures keep. None if there is nothing of it that is listed.
    fn into_site(
        self,
        growth: Option<Growth>,
        by: By,
        representatives: &mut Representatives,
        frames: &mut Vec<Frame>,
    ) -> Option<Site> {
        let functions: Vec<_> = self.functions.into_iter().collect();
        let sum = self.sum?;
        let count = self.stacks.len() as u64;
        let stacks = match (by, count) {
            (By::Stack, 2..) => self.stacks,
            _ => Vec::new(),
        };
        // A JSON report has no ages any longer, but says what they proved.
        let proven = growth.clone().filter(|growth| growth.pattern.is_some());
        let site = Site {
            alike: stacks,
            members: self.members.unwrap_or_default(),
            ages: Vec::new(),
            seen: None,
            counts: Vec::new(),
            allocator: match by {
                By::Stack => sum.allocator.clone(),
                _ => Vec::new(),
            },
            function: functions.join(", "),
            series: self.evidence.series(),
            growth: proven.or(sum.growth.clone()).or(growth),
            ..sum
        };
        Some(match self.head {
            Some(_) if by == By::Caller => Site {
                stacks: sum_of_stacks(site.stacks, count),
                growing_stacks: self.growing,
                ..site
            },
            Some(head) if !by.keeps_stacks() => Site {
                frames: vec![representatives.of(head, frames)],
                culprit: None,
                truncated: None,
                ..site
            },
            _ => site,
        })
    }
}

/// How many stacks there are, if more than one. What a JSON report has summed up is one here.
fn sum_of_stacks(before: Option<u64>, now: u64) -> Option<u64> {
    before.filter(|_| now == 1).or((now > 1).then_some(now))
}

fn add(group: &mut Site, site: &Site) {
    group.blocks = group.blocks.saturating_add(site.blocks);
    group.bytes = group.bytes.saturating_add(site.bytes);
    group.allocated_blocks = sum(group.allocated_blocks, site.allocated_blocks);
    group.allocated_bytes = sum(group.allocated_bytes, site.allocated_bytes);
    if let (Some(before), Some(more)) = (&mut group.before, site.before) {
        before.add(more.blocks, more.bytes);
    }
    group.resident_bytes = sum(group.resident_bytes, site.resident_bytes);
    (group.growth, group.shape) = (None, None);
    group.youngest = group.youngest.min(site.youngest);
    group.oldest = group.oldest.max(site.oldest);
}

/// Frames that stand for all others of their group.
struct Representatives {
    by: By,
    /// Of each module, the first one of the same file.
    modules: Vec<ModuleId>,
    known: HashMap<Frame, FrameId>,
}

impl Representatives {
    fn new(by: By, report: &Report) -> Representatives {
        let mut first = HashMap::new();
        let modules = (0..).map(ModuleId).zip(&report.modules);
        let same = |module: &Module| (module.path.clone(), module.build_id.clone());
        let modules = modules.map(|(id, module)| *first.entry(same(module)).or_insert(id));
        Representatives {
            by,
            modules: modules.collect(),
            known: HashMap::new(),
        }
    }

    fn of(&mut self, FrameId(id): FrameId, frames: &mut Vec<Frame>) -> FrameId {
        let Some(frame) = frames.get(id as usize) else {
            return FrameId(id);
        };
        let module = frame.module;
        let module = module.and_then(|ModuleId(id)| self.modules.get(id as usize).copied());
        let place = self.by.place(frame, module);
        let next = FrameId(frames.len() as u32); // as many as stacks have, twice at most
        *self.known.entry(place).or_insert_with_key(|place| {
            frames.push(place.clone());
            next
        })
    }
}

/// Nothing if either is not known.
pub(crate) fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one?.saturating_add(other?))
}
