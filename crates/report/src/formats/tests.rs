//! Every format takes every model: its reader parses it, and the sums are the same in all.

mod models;
mod readers;
mod truths;

use super::*;
use crate::names::is_harmful;
use crate::{Kind, Site, Source};
use models::{Model, models};

/// Blocks and bytes, as far as a format tells them.
type Sums = (Option<u128>, Option<u128>);

/// A format, and what reads it.
struct Case {
    name: &'static str,
    format: Box<dyn Format>,
    sums: fn(&[u8]) -> Sums,
    is_text: bool,
}

fn cases() -> Vec<Case> {
    let case = |name, format: Box<dyn Format>, sums| Case {
        name,
        format,
        sums,
        is_text: name != "pprof",
    };
    vec![
        case("json", Box::new(Json), readers::json),
        case("html", Box::<Html>::default(), readers::html),
        case("summary", Box::new(Summary { of: &[] }), readers::summary),
        case("csv", Box::new(Csv), readers::csv),
        case("pprof", Box::new(Pprof { of: &[] }), readers::pprof),
        case("folded", Box::new(Folded), readers::folded),
        case(
            "flamegraph",
            Box::new(Flamegraph { of: &[] }),
            readers::flamegraph,
        ),
        case("speedscope", Box::new(Speedscope), readers::speedscope),
        case("dhat", Box::new(Dhat), readers::dhat),
        case("massif", Box::new(Massif { of: &[] }), readers::massif),
        case("heaptrack", Box::new(Heaptrack), readers::heaptrack),
        case(
            "valgrind-xml",
            Box::new(ValgrindXml { of: &[] }),
            readers::valgrind,
        ),
        case("junit", Box::new(Junit { leaks: LEAKS }), readers::junit),
        case("sarif", Box::new(Sarif { leaks: LEAKS }), readers::sarif),
        case("github", Box::new(Github { leaks: LEAKS }), readers::github),
        case("gitlab", Box::new(Gitlab { leaks: LEAKS }), readers::gitlab),
        case(
            "memcheck",
            Box::new(Memcheck { quiet: true }),
            readers::memcheck,
        ),
    ]
}

const LEAKS: Leaks<'static> = Leaks {
    kinds: &[Kind::Unmatched],
    root: None,
};

#[test]
fn every_format_takes_every_model() {
    for Model {
        name,
        report,
        has_sums,
    } in models()
    {
        for case in cases() {
            // Massif's does not know of mappings.
            let has_all = !["massif", "heaptrack"].contains(&case.name);
            let is_told = |site: &&Site| has_all || site.source == Source::Heap;
            let sum = |of: fn(&Site) -> u64| {
                let told = report.sites.iter().filter(is_told);
                told.map(of).map(u128::from).sum::<u128>()
            };
            let expected = (sum(|site| site.blocks), sum(|site| site.bytes));
            let mut written = Vec::new();
            let reports = std::slice::from_ref(&report);
            let result = case.format.write(reports, &mut written);
            if case.name == "heaptrack" && !has_sums {
                assert!(result.is_err(), "a line for each of 2^64 blocks");
                continue;
            }
            result.unwrap();
            let (blocks, bytes) = (case.sums)(&written);
            let case = format!("{name} as {}", case.name);
            if has_sums {
                assert_eq!(blocks.unwrap_or(expected.0), expected.0, "{case}");
                assert_eq!(bytes.unwrap_or(expected.1), expected.1, "{case}");
            }
        }
    }
}

/// As text of the target's: nothing of it acts on a terminal, or is a line of its own.
#[test]
fn no_format_has_what_a_terminal_acts_on() {
    for Model { name, report, .. } in models() {
        for case in cases().into_iter().filter(|case| case.is_text) {
            let mut written = Vec::new();
            let reports = std::slice::from_ref(&report);
            // One of them refuses the largest.
            let _ = case.format.write(reports, &mut written);
            let text = String::from_utf8(written).unwrap();
            let harmful = text.chars().find(|&c| c != '\n' && is_harmful(c));
            assert_eq!(harmful, None, "{name} as {}", case.name);
        }
    }
}

#[test]
fn a_summary_is_small() {
    for Model { name, report, .. } in models() {
        let mut written = Vec::new();
        let reports = std::slice::from_ref(&report);
        Summary { of: &[] }.write(reports, &mut written).unwrap();
        assert!(written.len() <= 4096, "{name}: {} bytes", written.len());
    }
}
