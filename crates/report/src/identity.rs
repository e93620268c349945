//! What stays of a call site when the program is built anew.

use std::collections::HashMap;

use crate::names::{last_part, short, without_parameters};
use crate::own::is_like_malloc;
use crate::{FrameId, Place, Report, Site, Source};

/// Frames by which a site is known.
const FRAMES: usize = 5;

/// What a site is known by in other traces, and in other builds of the program: from where it is,
/// and the functions of its innermost frames that are the user's own, five at most; without any,
/// those of its innermost frames. Of several stacks, the one that is first in the alphabet.
///
/// No line, no address, no allocator function nor what is named like one at the inner end, no frame
/// of a library: a line moves, and compilers inline.
pub fn fingerprint(site: &Site, report: &Report) -> String {
    let members = site.members.iter();
    let first = members.map(|member| of_stack(member, report)).min();
    first.unwrap_or_else(|| of_stack(site, report))
}

/// Those of `sites` of `report`, each another one: of several with the same functions, all but the
/// first have a number, in the order of their lines.
pub(crate) fn fingerprints(sites: &[&Site], report: &Report) -> Vec<String> {
    let mut prints: Vec<_> = sites.iter().map(|site| fingerprint(site, report)).collect();
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

/// Line and address of the culprit, and of all frames from the innermost on, and what was called.
type Position<'s> = (Vec<(Option<u32>, Option<u64>)>, &'s str);

/// Where a site is. Code may move, but stays in order.
fn position<'s>(site: &'s Site, report: &Report) -> Position<'s> {
    let place = |id: &FrameId| {
        let frame = report.tables().frame(*id)?;
        Some((frame.line, frame.offset.map(|offset| offset.0)))
    };
    let frames = site.culprit.iter().chain(&site.frames);
    (frames.filter_map(place).collect(), &site.function)
}

fn of_stack(site: &Site, report: &Report) -> String {
    let places = || report.tables().places(&site.frames);
    let own = || places().filter(|place| place.frame.own == Some(true));
    let mut names = innermost(own().skip_while(allocates_for_others));
    if names.is_empty() {
        names = innermost(own());
    }
    if names.is_empty() {
        names = innermost(places());
    }
    let source = match site.source {
        Source::Heap | Source::Before => "heap",
        Source::Mapping => "mapping",
    };
    format!("{source}:{}", names.join("<"))
}

/// By its name. An optimised one that ends with a call of malloc is in no stack.
fn allocates_for_others(place: &Place<'_>) -> bool {
    let function = place.frame.function.as_deref();
    function.is_some_and(is_like_malloc)
}

/// The names of the first of them. A function that calls itself has one: how deep it went may vary.
fn innermost<'a>(places: impl Iterator<Item = Place<'a>>) -> Vec<String> {
    let mut names = Vec::new();
    for place in places {
        let name = name(&place);
        if names.last() == Some(&name) {
            continue;
        }
        if names.len() == FRAMES {
            break;
        }
        names.push(name);
    }
    names
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
    fn of_a_group_it_is_that_of_the_first_stack_whichever_is_the_largest() {
        let mut report = report();
        for name in ["b", "a"] {
            let stack = [frame("f", "x.c", 1), frame(name, "x.c", 2)];
            add(&mut report, &stack, &[(1.0, 1, 10)]);
        }
        let group = Site {
            members: report.sites.clone(),
            ..report.sites[0].clone()
        };
        assert_eq!(fingerprint(&group, &report), "heap:x!f<x!a");
    }
}
