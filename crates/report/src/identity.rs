//! What stays of a call site when the program is built anew.
//!
//! No line, no address, no allocator function nor what is named like one at the inner end, no frame
//! of a library: a line moves, and compilers inline.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;

use crate::names::{last_part, short, without_parameters};
use crate::own::is_like_malloc;
use crate::{FrameId, Place, Report, Site, Source};

/// Functions by which a site is known.
const MOST: usize = 5;

/// What a site is known by in other traces, and in other builds of the program: from where it is,
/// and the functions of its innermost frames that are the user's own, five at most; without any,
/// those of its innermost frames.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Identity {
    is_mapping: bool,
    /// What is lost is another site than what is in use.
    is_in_use: bool,
    functions: Vec<Arc<str>>,
}

impl Identity {
    /// That of a site with these functions.
    pub(crate) fn new(site: &Site, functions: &[Arc<str>]) -> Identity {
        Identity {
            is_mapping: site.source == Source::Mapping,
            is_in_use: site.kind.is_in_use(),
            functions: functions.iter().take(MOST).cloned().collect(),
        }
    }

    /// The innermost function.
    pub(crate) fn first(&self) -> Option<&Arc<str>> {
        self.functions.first()
    }

    /// Whether both are mappings, or neither is; and both are in use, or neither is.
    pub(crate) fn is_like(&self, other: &Identity) -> bool {
        (self.is_mapping, self.is_in_use) == (other.is_mapping, other.is_in_use)
    }

    /// Whether its functions are among those of a stack, in this order, from the same innermost one
    /// on: an optimised function that ends with a call is in no stack.
    pub(crate) fn is_part_of(&self, stack: &[Arc<str>]) -> bool {
        let mut stack = stack.iter();
        let mut has = |function| stack.any(|one| one == function);
        self.functions.iter().all(&mut has)
    }

    fn text(&self) -> String {
        let source = match (self.is_mapping, self.is_in_use) {
            (true, _) => "mapping",
            (false, true) => "in use",
            (false, false) => "heap",
        };
        format!("{source}:{}", self.functions.join("<"))
    }
}

/// The names of the functions of a report.
pub(crate) struct Functions<'r> {
    report: &'r Report,
    /// By the number of the frame.
    names: Vec<Arc<str>>,
}

impl<'r> Functions<'r> {
    /// Those of `report`.
    pub(crate) fn new(report: &'r Report) -> Functions<'r> {
        let places = report.tables().all();
        let names = places.map(|place| name(&place).into()).collect();
        Functions { report, names }
    }

    /// All by which a stack is known, innermost first. One that calls itself is there once: how
    /// deep it went may vary.
    pub(crate) fn of(&self, site: &Site) -> Vec<Arc<str>> {
        let is = |id: &FrameId, what: fn(&Place<'_>) -> bool| {
            let place = self.report.tables().place(*id);
            place.is_some_and(|place| what(&place))
        };
        let own = |id: &&FrameId| is(id, |place| place.frame.own == Some(true));
        let own: Vec<_> = site.frames.iter().filter(own).collect();
        let allocates = |id: &&FrameId| is(id, allocates_for_others);
        let wrappers = own.iter().take_while(|id| allocates(id)).count();
        match (own.len(), own.get(wrappers..)) {
            (0, _) => self.names(site.frames.iter()),
            (_, None | Some([])) => self.names(own.into_iter()),
            (_, Some(callers)) => self.names(callers.iter().copied()),
        }
    }

    fn names<'a>(&self, frames: impl Iterator<Item = &'a FrameId>) -> Vec<Arc<str>> {
        let name = |FrameId(id): &FrameId| self.names.get(*id as usize).cloned();
        let mut names: Vec<_> = frames.filter_map(name).collect();
        names.dedup();
        names
    }

    /// What an entry is known by that may stand for several stacks: what these have in common; if
    /// that is nothing, the one that is first in the alphabet.
    fn identity(&self, site: &Site) -> Identity {
        let members = match &site.members[..] {
            [] => slice::from_ref(site),
            members => members,
        };
        let all = || members.iter().map(|one| Identity::new(one, &self.of(one)));
        let common = all().reduce(|mut one, other| {
            let pairs = one.functions.iter().zip(&other.functions);
            let same = pairs.take_while(|(one, other)| one == other).count();
            one.functions.truncate(same);
            one
        });
        let common = common.filter(|common| !common.functions.is_empty());
        common
            .or_else(|| all().min())
            .unwrap_or_else(|| Identity::new(site, &[]))
    }
}

/// What each of `sites` of `report` is known by, each another one: of several with the same
/// functions, all but the first have a number, in the order of their lines.
pub(crate) fn fingerprints(sites: &[&Site], report: &Report) -> Vec<String> {
    let functions = Functions::new(report);
    let prints = sites.iter().map(|site| functions.identity(site).text());
    let mut prints: Vec<_> = prints.collect();
    let mut order: Vec<_> = sites.iter().enumerate().collect();
    order.sort_by_cached_key(|(_, site)| position(site, report));
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (at, _) in order {
        let Some(print) = prints.get_mut(at) else {
            continue;
        };
        let number = seen.entry(print.clone()).or_default();
        *number += 1;
        if *number > 1 {
            *print = format!("{print}#{number}");
        }
    }
    prints
}

/// Line and address of the culprit, and of all frames from the innermost on, what was called, and
/// what has become of it.
type Position<'s> = (Vec<(Option<u32>, Option<u64>)>, &'s str, &'static str);

/// Where a site is. Code may move, but stays in order.
fn position<'s>(site: &'s Site, report: &Report) -> Position<'s> {
    let place = |id: &FrameId| {
        let frame = report.tables().frame(*id)?;
        Some((frame.line, frame.offset.map(|offset| offset.0)))
    };
    let frames = site.culprit.iter().chain(&site.frames);
    let frames = frames.filter_map(place).collect();
    (frames, &site.function, site.kind.name())
}

/// By its name. An optimised one that ends with a call of malloc is in no stack.
fn allocates_for_others(place: &Place<'_>) -> bool {
    let function = place.frame.function.as_deref();
    function.is_some_and(is_like_malloc)
}

/// `module!function`, or the module alone.
fn name(place: &Place<'_>) -> String {
    let path = place.module.map_or("", |module| module.path.as_str());
    let function = place
        .frame
        .function
        .as_deref()
        .map(short)
        .unwrap_or_default();
    format!("{}!{}", of_any_build(path), without_parameters(&function))
}

/// The name of a file without what another build has another of: the version of a library, and the
/// hash that cargo adds to what it builds.
fn of_any_build(path: &str) -> &str {
    let name = last_part(path);
    if let Some(end) = name.find(".so.") {
        return name.split_at(end + ".so".len()).0;
    }
    let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match name.rsplit_once('-') {
        Some((name, hash)) if is_hash(hash) => name,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;
    use crate::formats::text::tests::{add, frame, report};

    #[test]
    fn files_are_known_in_all_builds() {
        for (path, expected) in [
            ("/usr/lib/libz.so.1.2.13", "libz.so"),
            ("/lib/libx.so", "libx.so"),
            ("target/debug/deps/smallvec-0123456789abcdef", "smallvec"),
            ("/bin/x-0123456789abcdeg", "x-0123456789abcdeg"),
            ("/bin/python3.11", "python3.11"),
            ("", ""),
        ] {
            assert_eq!(of_any_build(path), expected);
        }
    }

    /// A list of leaks does without what has the fingerprint of another, and the order of the list
    /// is not theirs.
    #[test]
    fn no_two_are_the_same_and_moved_lines_change_none() {
        let prints = |lines: &[u32]| {
            let mut report = report();
            for &line in lines {
                let own = |function, line| Frame {
                    own: Some(true),
                    ..frame(function, "x.c", line)
                };
                let stack = [own("f", line), own("main", 9)];
                add(&mut report, &stack, &[(1.0, 1, 10)]);
            }
            let sites: Vec<_> = report.sites.iter().collect();
            fingerprints(&sites, &report)
        };
        let expected = ["heap:x!f<x!main#2", "heap:x!f<x!main", "heap:x!f<x!main#3"];
        assert_eq!(prints(&[5, 3, 8]), expected);
        assert_eq!(prints(&[55, 53, 58]), expected);
    }

    #[test]
    fn of_a_group_it_is_what_its_stacks_have_in_common() {
        let mut report = report();
        for name in ["b", "a"] {
            let stack = [frame("f", "x.c", 1), frame(name, "x.c", 2)];
            add(&mut report, &stack, &[(1.0, 1, 10)]);
        }
        let group = Site {
            members: report.sites.clone(),
            ..report.sites[0].clone()
        };
        assert_eq!(fingerprints(&[&group], &report), ["heap:x!f"]);
        let group = Site {
            members: Vec::new(),
            ..group
        };
        assert_eq!(fingerprints(&[&group], &report), ["heap:x!f<x!b"]);
    }
}
