//! What was not seen is not said to be well, and what is suppressed is not hidden.

use super::*;
use crate::formats::text::tests::report;
use crate::{Report, Suppressed};

/// Nothing is listed of what was seen.
fn unseen() -> [Report; 2] {
    let mut blind = report();
    (blind.totals.heap.live_blocks, blind.totals.heap.live_bytes) = (0, 0);
    let mut lossy = blind.clone();
    lossy.totals.lost_events = 2;
    blind.unwatched = Some("calls of malloc were not all seen".to_owned());
    [blind, lossy]
}

fn written(format: &dyn Format, report: &Report) -> String {
    let mut written = Vec::new();
    let reports = std::slice::from_ref(report);
    format.write(reports, &mut written).unwrap();
    String::from_utf8_lossy(&written).into_owned()
}

/// What each format with a verdict has in place of a good one.
fn signs() -> Vec<(Box<dyn Format>, &'static str)> {
    vec![
        (Box::new(Text::default()), "no unfreed blocks were seen; "),
        (
            Box::<Html>::default(),
            "\"verdict\":\"no unfreed blocks were seen; ",
        ),
        (
            Box::new(Summary { of: &[] }),
            "\"verdict\":\"unknown\",\"left\":\"no unfreed blocks were seen; ",
        ),
        (
            Box::new(Junit { leaks: LEAKS }),
            "tests=\"1\" failures=\"0\" errors=\"1\"",
        ),
        (
            Box::new(Sarif { leaks: LEAKS }),
            "\"executionSuccessful\":false,\"toolExecutionNotifications\":[{\"level\":\"error\"",
        ),
        (Box::new(Github { leaks: LEAKS }), "::error title=leaktap"),
        (
            Box::new(Gitlab { leaks: LEAKS }),
            "\"check_name\":\"leaktap/unknown\"",
        ),
        (Box::new(Memcheck { quiet: true }), "Not all was seen: "),
        (Box::new(ValgrindXml { of: &[] }), "Not all was seen: "),
    ]
}

#[test]
fn what_was_not_seen_is_not_said_to_be_well() {
    for report in unseen() {
        let doubt = report.doubt().unwrap();
        for (format, sign) in signs() {
            let text = written(&*format, &report);
            assert!(text.contains(sign), "{sign}: {text}");
            assert!(text.contains(&doubt), "{doubt}: {text}");
        }
    }
}

#[test]
fn what_was_seen_is_said_to_be_well() {
    let mut well = report();
    (well.totals.heap.live_blocks, well.totals.heap.live_bytes) = (0, 0);
    well.totals.heap.allocations = 9;
    for (format, sign) in signs() {
        let text = written(&*format, &well);
        assert!(!text.contains(sign), "{sign}: {text}");
    }
    let summary = written(&Summary { of: &[] }, &well);
    assert!(summary.contains("\"verdict\":\"clean\""), "{summary}");
}

/// Of two processes of a test suite the one that could not be watched is not an error: the shell,
/// say, that has started the other one.
#[test]
fn one_of_several_that_was_not_seen_is_skipped() {
    let [mut blind, _] = unseen();
    let mut seen = blind.clone();
    seen.unwatched = None;
    for one in [&mut blind, &mut seen] {
        one.mode = crate::Mode::Run;
    }
    let mut written = Vec::new();
    let junit = Junit { leaks: LEAKS };
    junit.write(&[blind, seen], &mut written).unwrap();
    let text = String::from_utf8(written).unwrap();
    assert_eq!(text.matches("<skipped ").count(), 1, "{text}");
    assert_eq!(text.matches("errors=\"0\"").count(), 2, "{text}");
}

/// Those that have no place for it: a row a stack, a line a stack, an entry a leak.
const NO_PLACE: [&str; 3] = ["csv", "folded", "gitlab"];

#[test]
fn what_is_suppressed_is_told() {
    let mut report = report();
    let totals = &mut report.totals;
    (totals.suppressed_blocks, totals.suppressed_bytes) = (3, 192);
    report.suppressions = vec![Suppressed {
        name: "a known one".to_owned(),
        file: Some("x.supp".to_owned()),
        line: Some(1),
        sites: 2,
        blocks: 3,
        bytes: 192,
    }];
    for case in cases().into_iter().filter(|case| case.is_text) {
        let text = match case.name {
            "memcheck" => written(&Memcheck { quiet: false }, &report),
            _ => written(&*case.format, &report),
        };
        let tells = match case.name {
            "valgrind-xml" => text.contains("<count>2</count><name>a known one</name>"),
            "junit" => text.contains("name=\"suppressed_bytes\" value=\"192\""),
            "json" | "summary" => text.contains("\"suppressed_blocks\":3"),
            "memcheck" => text.contains("suppressed: 192 bytes in 3 blocks"),
            _ => text.contains("suppressed: 192 B in 3 blocks"),
        };
        assert_eq!(
            tells,
            !NO_PLACE.contains(&case.name),
            "{}: {text}",
            case.name
        );
    }
}
