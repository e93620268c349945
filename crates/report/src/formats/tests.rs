//! Every format takes every model: its reader parses it, and the sums are the same in all.

mod models;
mod readers;

use super::*;
use crate::names::is_harmful;
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
        case("html", Box::new(Html { all: None }), readers::html),
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
    ]
}

#[test]
fn every_format_takes_every_model() {
    for Model {
        name,
        report,
        has_sums,
    } in models()
    {
        let sum = |of: fn(&crate::Site) -> u64| {
            let all = report.sites.iter().map(of).map(u128::from);
            all.sum::<u128>()
        };
        let expected = (sum(|site| site.blocks), sum(|site| site.bytes));
        for case in cases() {
            let mut written = Vec::new();
            let reports = std::slice::from_ref(&report);
            case.format.write(reports, &mut written).unwrap();
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
            case.format.write(reports, &mut written).unwrap();
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
