use sha2::{Digest, Sha256};

use super::*;
use crate::formats::text::tests::{add, frame, report};
use crate::{Selection, merged};

fn page(reports: &[Report]) -> String {
    let mut page = Vec::new();
    let all = (reports.len() > 1).then(|| merged(reports)).flatten();
    Html {
        all: all.as_ref(),
        excerpts: None,
    }
    .write(reports, &mut page)
    .unwrap();
    String::from_utf8(page).unwrap()
}

/// What the page's element of JSON says.
fn data(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once(r#"id="data">"#).unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .fold(0, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - three.len()));
        for digit in 0..4 {
            let at = bits >> (18 - 6 * digit) & 63;
            let digit = DIGITS.get(at as usize).filter(|_| digit <= three.len());
            text.push(digit.map_or('=', |&digit| digit.into()));
        }
    }
    text
}

#[test]
fn the_policy_is_that_of_the_style_and_the_script() {
    let hashes = [STYLE, SCRIPT].map(|text| base64(&Sha256::digest(text)) + "\n");
    let hashes = hashes.concat();
    if std::env::var_os("LEAKTAP_UPDATE").is_some_and(|value| value == "1") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/formats/html/hashes");
        std::fs::write(path, &hashes).unwrap();
    }
    assert_eq!(
        HASHES, hashes,
        "update it with LEAKTAP_UPDATE=1, and test again"
    );
}

#[test]
fn what_the_target_says_is_no_markup() {
    let hostile = "</script><script>alert(1)</script><!--\u{2028}\u{202e}&\"'{{style}}";
    let mut odd = report();
    odd.target.program = hostile.to_owned();
    odd.target.args = vec![hostile.to_owned()];
    odd.notes = vec![hostile.to_owned()];
    odd.probes[0].reason = Some(hostile.to_owned());
    odd.modules[0].path = hostile.to_owned();
    add(&mut odd, &[frame(hostile, hostile, 1)], &[(1.0, 1, 10)]);
    odd.sites[0].function = hostile.to_owned();
    odd.sites[0].truncated = Some(hostile.to_owned());
    let page = page(&[odd.clone(), odd]);
    assert!(!page.contains("alert(1)</script>"), "{page}");
    assert_eq!(page.matches("<!--").count(), 0);
    assert_eq!(page.matches("<script").count(), 2);
    assert!(!page.contains(['\u{2028}', '\u{202e}']));
    let texts = data(&page)["tables"]["texts"].to_string();
    assert!(texts.contains(r"\\u{202e}&"), "{texts}");
}

#[test]
fn blocks_are_told_apart_by_the_time_of_their_allocation() {
    let mut all = report();
    all.duration = 100.0;
    let (inner, outer) = (frame("f", "a.c", 1), frame("main", "a.c", 9));
    add(
        &mut all,
        &[inner.clone(), outer.clone()],
        &[(99.9, 1, 10), (50.0, 2, 20), (0.0, 3, 30)],
    );
    add(&mut all, &[inner, outer], &[(50.0, 1, 5)]);
    let selection = Selection {
        by: crate::By::Caller,
        members: true,
        ..Selection::default()
    };
    let data = data(&page(&[selection.apply(all)]));
    let process = &data["processes"][0];
    assert_eq!(process["parts"], 200);
    assert_eq!(
        process["ages"],
        serde_json::json!([0, 1, 10, 100, 3, 25, 199, 3, 30])
    );
    assert_eq!(process["stacks"]["bytes"], serde_json::json!([65]));
    assert_eq!(process["sites"]["stacks"], serde_json::json!([1]));
    assert_eq!(process["nodes"]["up"], serde_json::json!([0, 1, 1]));
}

#[test]
fn a_difference_has_what_there_was_before() {
    let of = |blocks: u64| {
        let mut all = report();
        all.timeline = vec![crate::Moment::default(); 9];
        let stack = [frame("f", "a.c", 1), frame("main", "a.c", 9)];
        add(&mut all, &stack, &[(1.0, blocks, blocks * 10)]);
        all
    };
    let both = crate::difference(&[of(3)], &[of(5)]).unwrap();
    let selection = Selection {
        by: crate::By::Caller,
        members: true,
        ..Selection::default()
    };
    let data = data(&page(&[selection.apply(both)]));
    let process = &data["processes"][0];
    for column in ["sites", "stacks"] {
        let of = &process[column];
        let before = serde_json::json!({ "blocks": [3], "bytes": [30] });
        assert_eq!((&of["bytes"][0], &of["before"]), (&50.into(), &before));
    }
    let word = process["sites"]["change"][0].as_u64().unwrap() as usize;
    assert_eq!(data["tables"]["texts"][word], "grown");
    // The other trace has another time.
    assert_eq!(process["ages"], serde_json::json!([]));
    assert_eq!(process["moments"]["at"], serde_json::json!([]));
    assert_eq!(process["about"][0][0], "before");
}

#[test]
fn the_course_of_sites_and_the_peak_are_there() {
    let mut all = report();
    for function in ["f", "g"] {
        let stack = [frame(function, "a.c", 1), frame("main", "a.c", 9)];
        add(&mut all, &stack, &[(1.0, 1, 10)]);
    }
    all.series_at = vec![0.5, 2.0];
    all.sites[1].series = vec![None, Some(10)];
    // As leaktap writes none.
    all.sites[0].series = vec![Some(1)];
    let site = crate::PeakSite {
        function: "malloc".to_owned(),
        bytes: 30,
        frames: all.sites[1].frames.clone(),
    };
    all.peak = Some(crate::Peak {
        at: 0.7,
        live_bytes: 40,
        sites: vec![site],
    });
    let data = data(&page(&[all]));
    let process = &data["processes"][0];
    let series = serde_json::json!({ "at": [0.5, 2.0], "site": [1], "bytes": [null, 10] });
    assert_eq!(process["series"], series);
    let peak = &process["peak"];
    assert_eq!((&peak["at"], &peak["bytes"]), (&0.7.into(), &40.into()));
    assert_eq!(peak["sites"]["frames"], serde_json::json!([[2, 1]]));
}

#[test]
fn what_is_suppressed_is_told_as_in_text() {
    let mut all = report();
    let rule = |name: &str, sites| crate::Suppressed {
        name: name.to_owned(),
        sites,
        blocks: 3,
        bytes: 20_000,
        ..crate::Suppressed::default()
    };
    let unused = crate::Suppressed {
        file: Some("my.supp".to_owned()),
        line: Some(7),
        ..rule("<b>", 0)
    };
    all.suppressions = vec![rule("once", 2), unused];
    let data = data(&page(&[all]));
    let expected = serde_json::json!([
        [
            "19.5 KiB (20,000 B) in 3 blocks of 2 stacks",
            "once",
            "built in"
        ],
        ["nothing", "<b>", "my.supp:7"],
    ]);
    assert_eq!(data["processes"][0]["suppressed"], expected);
}

#[test]
fn source_lines_are_text_of_the_frames_that_name_them() {
    let mut all = report();
    let stack = [frame("f", "a.c", 2), frame("main", "b.c", 9)];
    add(&mut all, &stack, &[(1.0, 1, 10)]);
    let mut excerpts = Excerpts::default();
    for named in crate::named_lines(&[&all], None) {
        assert!(excerpts.add(&named, b"one\n\"</script>\x1b\nthree\n"));
    }
    let mut page = Vec::new();
    let html = Html {
        all: None,
        excerpts: Some(&excerpts),
    };
    html.write(&[all], &mut page).unwrap();
    let data = data(&String::from_utf8(page).unwrap());
    let lines = &data["tables"]["sources"][0];
    assert_eq!(lines["2"], "\"</script>\\u{1b}");
    assert_eq!(lines["3"], "three");
    // The other file is too short.
    assert_eq!(data["tables"]["sources"].as_array().unwrap().len(), 1);
    assert_eq!(
        data["tables"]["frames"]["source"],
        serde_json::json!([1, 0])
    );
}

/// At most 1.5 MiB, and 60 bytes a frame.
#[test]
fn a_page_of_many_sites_is_not_large() {
    const SITES: u32 = 20_000;
    const DEPTH: u32 = 20;
    let mut all = report();
    let mut frames = 0;
    for site in 0..SITES {
        let stack = (0..DEPTH).map(|depth| frame("", "", (site / 4_u32.pow(depth / 2)) + 1));
        let stack = stack.zip(0..).map(|(one, depth)| crate::Frame {
            function: Some(format!(
                "service::module_{depth}::function_{}",
                one.line.unwrap()
            )),
            file: Some(format!("/home/user/service/src/module_{depth}.rs")),
            ..one
        });
        let stack: Vec<_> = stack.collect();
        frames += stack.len();
        add(&mut all, &stack, &[(1.0, 2, 64), (3.0, 5, 160)]);
    }
    let size = page(&[all]).len();
    assert!(
        size <= (3 << 19) + 60 * frames,
        "{size} bytes for {frames} frames"
    );
    let template = PAGE.len() + STYLE.len() + SCRIPT.len();
    assert!(template <= 80 << 10, "{template}");
}
