//! A report against the truth: every difference is one line.

use std::collections::BTreeMap;

use crate::fixture::Fixture;
use crate::leaktap::Traced;
use crate::report::{Frame, Report, Site};
use crate::truth::{Leak, Mode, Outside, Place, Truth};

/// How notes begin that find fault with the program.
const MISUSE: [&str; 3] = ["double free", "free ", "mismatched "];

/// What is wrong with `report`, if anything.
pub(crate) fn differences(truth: &Truth, report: &Report) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut by_place: BTreeMap<(Place, String), Vec<Site>> = BTreeMap::new();
    for site in report.sites() {
        match place_of(truth, &site) {
            Some(place) => by_place
                .entry((place, site.source.clone()))
                .or_default()
                .push(site),
            None if site.source == "heap" && !is_outside(truth, &site) => {
                wrong.push(format!("+ no line of the fixture: {}", line_of(&site)));
            }
            None => {}
        }
    }
    for leak in &truth.leaks {
        let sites = by_place
            .remove(&(leak.place.clone(), leak.source.clone()))
            .unwrap_or_default();
        wrong.extend(wrong_with(leak, &sites));
    }
    for ((place, source), sites) in by_place {
        if !truth.any.contains(&place) {
            wrong.extend(
                sites
                    .iter()
                    .map(|site| format!("+ {place} ({source}): {}", line_of(site))),
            );
        }
    }
    wrong.extend(wrong_totals(truth, report));
    wrong
}

/// Fails the test unless leaktap ended well and its report says what is true of `fixture`.
pub(crate) fn exact(fixture: &Fixture, traced: &Traced, mode: Mode) {
    let wrong = differences(&fixture.truth(mode), traced.succeeded());
    if !wrong.is_empty() {
        traced.fail("the report is not what is true", &wrong);
    }
}

/// What only one of two reports of the same work says: `<` the first, `>` the second. What `truth`
/// leaves open is left out.
pub(crate) fn unlike(truth: &Truth, one: &Report, other: &Report) -> Vec<String> {
    let sites = |report: &Report| {
        let is_open = |site: &Site| {
            is_outside(truth, site)
                || place_of(truth, site).is_some_and(|place| truth.any.contains(&place))
        };
        let sites = report.sites().into_iter().filter(|site| !is_open(site));
        sites.map(|site| site.lasting).collect::<Vec<_>>()
    };
    let (one, mut other) = (sites(one), sites(other));
    let mut unlike = Vec::new();
    for site in one {
        match other.iter().position(|theirs| *theirs == site) {
            Some(at) => drop(other.swap_remove(at)),
            None => unlike.push(format!("< {site}")),
        }
    }
    unlike.extend(other.into_iter().map(|site| format!("> {site}")));
    unlike
}

/// The innermost line of the fixture's own sources in the stack.
fn place_of(truth: &Truth, site: &Site) -> Option<Place> {
    site.frames.iter().find_map(|frame| {
        let file = truth
            .files
            .iter()
            .find(|file| frame.file.ends_with(&format!("fixtures/{file}")))?;
        Some(Place {
            file: file.clone(),
            line: frame.line,
        })
    })
}

fn is_outside(truth: &Truth, site: &Site) -> bool {
    let in_frame = |outside: &Outside, frame: &Frame| {
        outside
            .module
            .as_ref()
            .is_none_or(|module| frame.module.contains(module))
            && outside
                .function
                .as_ref()
                .is_none_or(|function| frame.function.contains(function))
    };
    truth.outside.iter().any(|outside| {
        outside.blocks.is_none_or(|blocks| blocks == site.blocks)
            && site.frames.iter().any(|frame| in_frame(outside, frame))
    })
}

fn wrong_with(leak: &Leak, sites: &[Site]) -> Vec<String> {
    let mut wrong = Vec::new();
    let blocks: u64 = sites.iter().map(|site| site.blocks).sum();
    let bytes: u64 = sites.iter().map(|site| site.bytes).sum();
    if sites.is_empty() {
        return vec![format!(
            "- {} ({}): {:?} blocks, {:?} bytes",
            leak.place, leak.source, leak.blocks, leak.bytes
        )];
    }
    if leak.blocks.is_some_and(|expected| expected != blocks)
        || leak.bytes.is_some_and(|expected| expected != bytes)
    {
        let expected = (leak.blocks, leak.bytes);
        wrong.push(format!(
            "! {}: {expected:?} (blocks, bytes) expected, {:?} seen",
            leak.place,
            (blocks, bytes)
        ));
    }
    wrong.extend(wrong_sum(leak, sites));
    for site in sites {
        if !leak.functions.is_empty() && !leak.functions.contains(&site.function) {
            wrong.push(format!(
                "! {}: by {}, {:?} expected",
                leak.place, site.function, leak.functions
            ));
        }
        if !has_frames(leak, site) {
            wrong.push(format!(
                "! {}: frames {:?} expected: {}",
                leak.place,
                leak.frames,
                line_of(site)
            ));
        }
    }
    wrong
}

/// What was allocated there is what is left there, or more.
fn wrong_sum(leak: &Leak, sites: &[Site]) -> Vec<String> {
    let mut sum = [0, 0];
    let mut wrong = Vec::new();
    for site in sites.iter().filter(|site| site.source == "heap") {
        let [blocks, bytes] = site.allocated.unwrap_or_default();
        sum = [sum[0] + blocks, sum[1] + bytes];
        if blocks < site.blocks || bytes < site.bytes {
            let told = site.allocated;
            wrong.push(format!("! allocated {told:?}: {}", line_of(site)));
        }
    }
    let expected = [leak.allocated, leak.allocated_bytes];
    let mut pairs = expected.iter().zip(sum);
    if pairs.any(|(expected, seen)| expected.is_some_and(|expected| expected != seen)) {
        let place = &leak.place;
        wrong.push(format!(
            "! {place}: {expected:?} allocated expected, {sum:?} seen"
        ));
    }
    wrong
}

/// True if the stack shows the leak's functions in their order, others between them or not.
fn has_frames(leak: &Leak, site: &Site) -> bool {
    let mut frames = site.frames.iter();
    leak.frames
        .iter()
        .all(|name| frames.any(|frame| frame.function == *name))
}

fn wrong_totals(truth: &Truth, report: &Report) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |name: &str, seen: u64, expected: u64| {
        if seen != expected {
            wrong.push(format!("! totals: {name} is {seen}, {expected} expected"));
        }
    };
    let sites = report.sites().into_iter();
    let heap: Vec<Site> = sites.filter(|site| site.source == "heap").collect();
    for family in report.families() {
        let is_its = |site: &&Site| family.name.is_empty() || site.family == family.name;
        let of = |name: &str| format!("{name} of {}", family.name);
        let blocks = heap.iter().filter(is_its).map(|site| site.blocks).sum();
        expect(&of("live_blocks"), family.total("live_blocks"), blocks);
        let bytes = heap.iter().filter(is_its).map(|site| site.bytes).sum();
        expect(&of("live_bytes"), family.total("live_bytes"), bytes);
        // Otherwise some were counted twice, or freed unseen and allocated again.
        let matched = family.total("frees") - family.total("unmatched_frees");
        let left = family.total("allocations") - matched;
        expect(
            &of("allocations without a free"),
            left,
            family.total("live_blocks"),
        );
    }
    expect("lost_events", report.total("lost_events"), 0);
    for (name, expected) in &truth.totals {
        expect(name, report.total(name), *expected);
    }
    // What is not stated is no misuse.
    let is_stated = |text: &String| truth.notes.iter().any(|note| text.contains(note.as_str()));
    let is_misuse = |text: &&String| MISUSE.iter().any(|start| text.starts_with(start));
    let notes = report.notes();
    for note in notes
        .iter()
        .filter(is_misuse)
        .filter(|text| !is_stated(text))
    {
        wrong.push(format!("+ a note: {note}"));
    }
    for note in &truth.notes {
        if !report
            .notes()
            .iter()
            .any(|text| text.contains(note.as_str()))
        {
            wrong.push(format!("- a note with `{note}`"));
        }
    }
    wrong
}

/// A site on one line.
fn line_of(site: &Site) -> String {
    let frames: Vec<String> = site.frames.iter().take(12).map(shown).collect();
    format!(
        "{} {} blocks, {} bytes: {}",
        site.function,
        site.blocks,
        site.bytes,
        frames.join(" < ")
    )
}

fn shown(frame: &Frame) -> String {
    let file = frame.file.rsplit('/').next().unwrap_or_default();
    let module = frame.module.rsplit('/').next().unwrap_or_default();
    match (frame.function.as_str(), file) {
        ("", _) => format!("{:#x} in {module}", frame.address),
        (function, "") => format!("{function} in {module}"),
        (function, file) => format!("{function} {file}:{}", frame.line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;
    use crate::truth::Mode;

    fn against(text: &str, report: &Report) -> Vec<String> {
        let mut truth = Truth::default();
        truth.add("x.c", text, Mode::Run);
        differences(&truth, report)
    }

    #[test]
    fn the_truth_has_no_differences() {
        let text = "\n//~ LEAK blocks=3 bytes=192 fn=malloc frames=leak,main\n//~ NOTES truncated";
        assert_eq!(against(text, &sample(3, 192)), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_count_function_or_frame_is_told() {
        let wrong = against(
            "\n//~ LEAK blocks=4 bytes=192 fn=calloc frames=main,leak",
            &sample(3, 192),
        );
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(
            wrong[0].contains("x.c:2") && wrong[0].contains("(3, 192)"),
            "{}",
            wrong[0]
        );
    }

    #[test]
    fn a_missing_site_and_one_that_is_too_many_are_told() {
        let wrong = against("//~ LEAK blocks=3 bytes=192", &sample(3, 192));
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(
            wrong[0].starts_with("- x.c:1") && wrong[1].starts_with("+ x.c:2"),
            "{wrong:?}"
        );
    }

    #[test]
    fn what_is_left_open_may_leak() {
        assert_eq!(
            against("\n//~ ANY why", &sample(3, 192)),
            Vec::<String>::new()
        );
        let report = sample(3, 192);
        let mut truth = Truth::default();
        truth.add("y.c", "//~ OUTSIDE function=mai blocks=3", Mode::Run);
        assert_eq!(differences(&truth, &report), Vec::<String>::new());
    }

    #[test]
    fn reports_are_alike_but_for_times_and_addresses() {
        let mut truth = Truth::default();
        let of = |truth: &Truth, bytes| unlike(truth, &sample(3, 192), &sample(3, bytes)).len();
        assert_eq!((of(&truth, 192), of(&truth, 193)), (0, 2));
        truth.add("x.c", "\n//~ ANY why", Mode::Run);
        assert_eq!(of(&truth, 193), 0);
    }

    #[test]
    fn totals_and_notes_are_compared() {
        let text = "\n//~ LEAK blocks=3 bytes=192\n//~ TOTALS allocations=4\n//~ NOTES exec";
        let wrong = against(text, &sample(3, 192));
        assert_eq!(
            wrong,
            [
                "! totals: allocations is 3, 4 expected",
                "- a note with `exec`"
            ]
        );
    }
}
