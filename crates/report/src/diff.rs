//! What has changed from one trace to another.

use std::collections::{HashMap, HashSet};

use crate::names::{last_part, short};
use crate::{
    Amount, Change, Changed, Compared, Frame, FrameId, Module, ModuleId, Place, Report, Site,
    Source, merged,
};

/// `after`, each of its sites with what it had `before`, and with those that are gone. Several
/// processes are one. `None` without reports.
///
/// A site is the same in both if its frames are: those of a file of one build by their offsets;
/// those of a file that was built anew by file and function.
pub fn difference(before: &[Report], after: &[Report]) -> Option<Report> {
    let before = one(before)?;
    let mut report = one(after)?;
    let mut numbers = Numbers::new(&before, &report);
    // Of what nobody has looked at it is not known.
    let tells_use = before.is_graded() && report.is_graded();
    let steps = numbers.of(&before);
    let mut known: HashMap<Key, Old> = HashMap::new();
    for (index, site) in before.sites.iter().enumerate() {
        let old = known
            .entry(Key::of(site, &steps, tells_use))
            .or_insert(Old {
                first: index,
                amount: Amount::default(),
            });
        old.amount.add(site.blocks, site.bytes);
    }
    let steps = numbers.of(&report);
    let mut sites = HashMap::new();
    for site in std::mem::take(&mut report.sites) {
        let next = report.sites.len();
        let number = *sites
            .entry(Key::of(&site, &steps, tells_use))
            .or_insert(next);
        match report.sites.get_mut(number) {
            Some(one) => join(one, site),
            None => report.sites.push(site),
        }
    }
    for (key, number) in sites {
        if let Some(site) = report.sites.get_mut(number) {
            let old = known.remove(&key).map(|old| old.amount);
            site.before = Some(old.unwrap_or_default());
        }
    }
    let mut gone: Vec<_> = known.into_values().collect();
    gone.sort_by_key(|old| old.first);
    let mut import = Import::new(&before, &mut report);
    for old in gone {
        if let Some(site) = before.sites.get(old.first) {
            import.site(site, old.amount);
        }
    }
    let heap = &before.totals.heap;
    report.compared = Some(Compared {
        target: before.target,
        started: before.started,
        duration: before.duration,
        live_blocks: heap.live_blocks,
        live_bytes: heap.live_bytes,
        same_sites: 0,
    });
    Some(report)
}

/// Of sites that are one: what reads the same in another build.
fn join(one: &mut Site, more: Site) {
    one.blocks = one.blocks.saturating_add(more.blocks);
    one.bytes = one.bytes.saturating_add(more.bytes);
    one.youngest = one.youngest.min(more.youngest);
    one.oldest = one.oldest.max(more.oldest);
    one.ages.extend(more.ages);
    (one.counts, one.series) = (Vec::new(), Vec::new());
    (one.allocated_blocks, one.allocated_bytes) = (None, None);
}

fn one(reports: &[Report]) -> Option<Report> {
    match reports {
        [one] => Some(one.clone()),
        several => merged(several),
    }
}

/// What there was of a site.
struct Old {
    /// The first of those that are one, by number.
    first: usize,
    amount: Amount,
}

/// What makes sites of both traces one.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    source: Source,
    is_in_use: bool,
    family: Option<String>,
    /// What each call is known by, by number.
    frames: Vec<u32>,
    /// Of one without frames, the function that was called.
    function: Option<String>,
}

impl Key {
    /// `steps` are of the frames of its report, by their numbers.
    fn of(site: &Site, steps: &[u32], tells_use: bool) -> Key {
        let step = |FrameId(id): &FrameId| steps.get(*id as usize).copied();
        let mut frames: Vec<_> = site.frames.iter().filter_map(step).collect();
        // What was inlined is at the same offset.
        frames.dedup();
        Key {
            source: site.source,
            is_in_use: tells_use && site.kind.is_in_use(),
            family: site.family.clone(),
            function: frames.is_empty().then(|| site.function.clone()),
            frames,
        }
    }
}

/// What a frame is known by.
#[derive(PartialEq, Eq, Hash)]
enum Step {
    /// Build id and offset.
    At(String, u64),
    /// File and function.
    In(String, String),
}

/// Numbers what frames are known by, in both traces alike.
struct Numbers {
    /// The build ids that both have.
    builds: HashSet<String>,
    known: HashMap<Step, u32>,
}

impl Numbers {
    fn new(one: &Report, other: &Report) -> Numbers {
        let ids = |report: &Report| -> HashSet<String> {
            let modules = report.modules.iter();
            modules
                .filter_map(|module| module.build_id.clone())
                .collect()
        };
        Numbers {
            builds: ids(one).intersection(&ids(other)).cloned().collect(),
            known: HashMap::new(),
        }
    }

    /// Of all frames of `report`: many sites have each of them.
    fn of(&mut self, report: &Report) -> Vec<u32> {
        let steps = report.tables().all().map(|place| {
            let next = self.known.len() as u32; // no more than frames
            let step = step(&place, &self.builds);
            *self.known.entry(step).or_insert(next)
        });
        steps.collect()
    }
}

fn step(place: &Place<'_>, builds: &HashSet<String>) -> Step {
    let frame = place.frame;
    let id = place.module.and_then(|module| module.build_id.as_ref());
    match (id.filter(|id| builds.contains(*id)), frame.offset) {
        (Some(id), Some(offset)) => Step::At(id.clone(), offset.0),
        _ => {
            let module = place.module.map(|module| last_part(&module.path));
            let function = frame.function.as_deref().map(short);
            let offset = || frame.offset.map(|offset| offset.to_string());
            let function = function.or_else(offset).unwrap_or_default();
            Step::In(module.unwrap_or_default().to_owned(), function)
        }
    }
}

/// Takes sites from one report to another, with what their numbers lead to.
struct Import<'a> {
    from: &'a Report,
    to: &'a mut Report,
    frames: HashMap<FrameId, FrameId>,
    modules: HashMap<ModuleId, ModuleId>,
}

impl<'a> Import<'a> {
    fn new(from: &'a Report, to: &'a mut Report) -> Import<'a> {
        Import {
            from,
            to,
            frames: HashMap::new(),
            modules: HashMap::new(),
        }
    }

    /// One of which nothing is left.
    fn site(&mut self, site: &Site, before: Amount) {
        let frames = site.frames.iter().map(|&id| self.frame(id)).collect();
        let culprit = site.culprit.map(|id| self.frame(id));
        self.to.sites.push(Site {
            kind: site.kind,
            source: site.source,
            family: site.family.clone(),
            function: site.function.clone(),
            before: Some(before),
            culprit,
            frames,
            truncated: site.truncated.clone(),
            ..Site::default()
        });
    }

    fn frame(&mut self, id: FrameId) -> FrameId {
        if let Some(&known) = self.frames.get(&id) {
            return known;
        }
        let frame = self.from.tables().frame(id).cloned().unwrap_or_default();
        let module = frame.module.and_then(|module| self.module(module));
        let new = FrameId(self.to.frames.len() as u32); // as many as both have
        self.to.frames.push(Frame { module, ..frame });
        self.frames.insert(id, new);
        new
    }

    fn module(&mut self, id: ModuleId) -> Option<ModuleId> {
        if let Some(&known) = self.modules.get(&id) {
            return Some(known);
        }
        let module = self.from.tables().module(id)?;
        let is_same =
            |other: &Module| other.path == module.path && other.build_id == module.build_id;
        let known = self.to.modules.iter().position(is_same);
        let new = ModuleId(known.unwrap_or(self.to.modules.len()) as u32); // as above
        if known.is_none() {
            self.to.modules.push(module.clone());
        }
        self.modules.insert(id, new);
        Some(new)
    }
}

/// Says of each site of a difference what has become of it, and leaves out those that are what they
/// were.
pub(crate) fn tell(report: &mut Report) {
    let Some(compared) = &mut report.compared else {
        return;
    };
    let (before, after) = (compared.duration, report.duration);
    for site in &mut report.sites {
        site.change = change(site, before, after);
    }
    let all = report.sites.len();
    report.sites.retain(|site| site.change.is_some());
    compared.same_sites += (all - report.sites.len()) as u64;
}

/// `None` if there is as much as there was.
fn change(site: &Site, before: f64, after: f64) -> Option<Change> {
    let old = site.before?;
    let kind = match (old.blocks, site.blocks) {
        (0, 0) => return None,
        (0, _) => Changed::New,
        (_, 0) => Changed::Gone,
        (was, is) if was == is && old.bytes == site.bytes => return None,
        (was, is) if is > was || site.bytes > old.bytes => Changed::Grown,
        _ => Changed::Shrunk,
    };
    let rate = |bytes: u64, time: f64| (time > 0.0).then(|| bytes as f64 / time);
    Some(Change {
        kind,
        blocks: difference_of(site.blocks, old.blocks),
        bytes: difference_of(site.bytes, old.bytes),
        rate_before: rate(old.bytes, before),
        rate_after: rate(site.bytes, after),
    })
}

fn difference_of(is: u64, was: u64) -> i64 {
    let difference = i128::from(is) - i128::from(was);
    let most = i128::from(i64::MAX);
    difference.clamp(-most, most) as i64 // just clamped
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::formats::text::tests::{add, frame, report};
    use crate::{Hex, Kind, Selection};

    fn of(build: &str, sites: &[(&str, u64, u64, u64)]) -> Report {
        let mut all = report();
        all.modules[0].build_id = Some(build.to_owned());
        for &(function, offset, blocks, bytes) in sites {
            let at = Frame {
                offset: Some(Hex(offset)),
                ..frame(function, "x.c", offset as u32)
            };
            add(&mut all, &[at], &[(1.0, blocks, bytes)]);
        }
        all
    }

    fn changes(before: &Report, after: &Report) -> Vec<(String, Changed, i64, i64)> {
        let both = difference(slice::from_ref(before), slice::from_ref(after)).unwrap();
        let report = Selection::default().apply(both);
        let tables = report.tables();
        let sites = report.sites.iter().map(|site| {
            let change = site.change.unwrap();
            let name = tables.stack(&site.frames)[0].frame.function.clone();
            (name.unwrap(), change.kind, change.blocks, change.bytes)
        });
        sites.collect()
    }

    #[test]
    fn what_is_lost_is_another_site_than_what_is_in_use() {
        let graded = |reachable, definite| {
            let sites = [("f", 1, reachable, 90), ("f", 1, definite, 10)];
            let mut all = of("aa", &sites);
            all.sites[0].kind = Kind::Reachable;
            all.sites[1].kind = Kind::Definite;
            all
        };
        let changed = |before: &Report, after: &Report| {
            let changes = changes(before, after).into_iter();
            let mut changes: Vec<_> = changes.map(|(_, _, blocks, _)| blocks).collect();
            changes.sort_unstable();
            changes
        };
        let before = graded(19, 1);
        assert_eq!(changed(&before, &graded(5, 15)), [-14, 14]);
        assert_eq!(changed(&before, &graded(28, 1)), [9]);
        // Nobody has looked before.
        let unknown = of("aa", &[("f", 1, 20, 100)]);
        assert_eq!(changed(&unknown, &before), [0_i64; 0]);
    }

    #[test]
    fn sites_of_one_build_are_known_by_their_offsets() {
        let before = of(
            "aa",
            &[
                ("f", 1, 2, 20),
                ("f", 2, 1, 5),
                ("g", 3, 1, 9),
                ("h", 4, 4, 40),
            ],
        );
        let after = of(
            "aa",
            &[
                ("f", 1, 5, 50),
                ("g", 3, 1, 9),
                ("h", 4, 1, 10),
                ("i", 5, 1, 3),
            ],
        );
        let expected = [
            ("f", Changed::Grown, 3, 30),
            ("h", Changed::Shrunk, -3, -30),
            ("f", Changed::Gone, -1, -5),
            ("i", Changed::New, 1, 3),
        ];
        let expected = expected.map(|(name, kind, n, bytes)| (name.to_owned(), kind, n, bytes));
        assert_eq!(changes(&before, &after), expected);
        assert!(changes(&after, &after).is_empty());
    }

    #[test]
    fn those_of_another_build_by_their_functions() {
        let before = of("aa", &[("f", 1, 2, 20), ("f", 2, 1, 5)]);
        let after = of("bb", &[("f(int)", 7, 1, 1), ("f", 9, 4, 40)]);
        let names = |report: &Report| {
            let all = changes(report, &after);
            all.into_iter()
                .map(|(name, kind, ..)| (name, kind))
                .collect::<Vec<_>>()
        };
        let expected = [("f", Changed::Grown), ("f(int)", Changed::New)];
        let expected = expected.map(|(name, kind)| (name.to_owned(), kind));
        assert_eq!(names(&before), expected);
    }
}
