//! Two traces beside each other: what has changed, what is new since a baseline, what replicas have
//! left together.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::child::Finished;
use crate::compile::Build;
use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::leaktap_with;

/// As many blocks at `first`, `second` and `third` of `fixtures/compared.c`.
type Blocks = [&'static str; 3];

/// Traces it, with these options.
fn run(engine: Engine, fixture: &Fixture, blocks: Blocks, options: &[&str]) -> Finished {
    let (engine, program) = (engine.to_string(), fixture.program().display().to_string());
    let mut words = vec!["run", "--engine", &engine];
    words.extend(options);
    words.extend(["--", &program]);
    words.extend(blocks);
    leaktap_with(words)
}

/// Its capture in `folder`.
pub(crate) fn capture(
    engine: Engine,
    fixture: &Fixture,
    blocks: Blocks,
    folder: &TempDir,
    name: &str,
) -> String {
    let path = folder.path().join(name).display().to_string();
    run(engine, fixture, blocks, &["-q", "-o", &path]).succeeded();
    path
}

/// Compiled as after a day's work, in another way.
fn rebuilt(flags: &[&str]) -> Fixture {
    let build = Build {
        flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        ..Build::default()
    };
    Fixture::built("compared.c", &build)
}

/// What has become of the blocks of each function that calls `one`: kind and blocks.
fn changes(report: &Path) -> BTreeMap<String, (String, i64)> {
    let text = std::fs::read_to_string(report).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let sites = report["sites"].as_array().expect("sites");
    let changed = sites.iter().map(|site| {
        let caller = site["frames"][1].as_u64().expect("a caller") as usize;
        let function = report["frames"][caller]["function"].as_str();
        let change = &site["change"];
        let kind = change["kind"].as_str().expect("a change").to_owned();
        let blocks = change["blocks"].as_i64().expect("blocks");
        (function.expect("a name").to_owned(), (kind, blocks))
    });
    changed.collect()
}

fn expected(of: &[(&str, &str, i64)]) -> BTreeMap<String, (String, i64)> {
    let all = of.iter();
    all.map(|&(function, kind, blocks)| (function.to_owned(), (kind.to_owned(), blocks)))
        .collect()
}

engines! {
    fn a_difference_has_what_is_new_grown_shrunk_and_gone(engine) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let json = folder.path().join("json");
        let file = json.display().to_string();
        let fixture = Fixture::new("compared.c");
        let moved = [&["-DMOVED"][..], &["-DMOVED", "-O2"]].map(rebuilt);
        let before = capture(engine, &fixture, ["5", "2", "0"], &folder, "before");
        for (number, program) in [&fixture].into_iter().chain(&moved).enumerate() {
            for (blocks, changed) in [
                (["5", "2", "0"], &[][..]),
                (["7", "1", "0"], &[("first", "grown", 2), ("second", "shrunk", -1)]),
                (["0", "2", "4"], &[("first", "gone", -5), ("third", "new", 4)]),
            ] {
                let after = capture(engine, program, blocks, &folder, "after");
                let words = ["diff", "-F", "json", "--report-file", &file, &before, &after];
                leaktap_with(words).succeeded();
                assert_eq!(changes(&json), expected(changed), "build {number}: {blocks:?}");
            }
        }
    }

    fn what_is_more_fails_a_difference(engine) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let fixture = Fixture::new("compared.c");
        let less = capture(engine, &fixture, ["5", "2", "0"], &folder, "less");
        let more = capture(engine, &fixture, ["5", "3", "0"], &folder, "more");
        let status = |before: &str, after: &str| {
            let words = ["diff", "--error-exitcode", "7", before, after];
            leaktap_with(words)
        };
        let finished = status(&less, &more);
        let text = String::from_utf8_lossy(&finished.stdout).into_owned();
        let words = "+100 B in +1 block  grown, 250 B in 7 blocks before, 350 B in 8 blocks now";
        if finished.status.code() != Some(7) || !text.contains(words) {
            finished.fail(words);
        }
        status(&more, &less).succeeded();
        status(&less, &less).succeeded();
    }

    fn only_what_is_new_since_the_baseline_fails(engine) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let fixture = Fixture::new("compared.c");
        let moved = rebuilt(&["-DMOVED", "-O2"]);
        let before = capture(engine, &fixture, ["5", "2", "0"], &folder, "before");
        for (program, blocks, status) in [
            (&fixture, ["5", "2", "0"], 0),
            (&moved, ["5", "2", "0"], 0),
            (&moved, ["4", "0", "0"], 0),
            (&moved, ["5", "3", "0"], 7),
            (&moved, ["5", "2", "1"], 7),
        ] {
            let options = ["--error-exitcode", "7", "--baseline", &before];
            let finished = run(engine, program, blocks, &options);
            if finished.status.code() != Some(status) {
                finished.fail(format_args!("status {status} for {blocks:?}"));
            }
        }
    }

    fn a_budget_is_for_bytes_or_call_sites(engine) {
        let fixture = Fixture::new("compared.c");
        for (budget, status) in [
            (["--max-leaked", "250"], 0),
            (["--max-leaked", "249"], 7),
            (["--max-sites", "1"], 0),
            (["--max-sites", "0"], 7),
        ] {
            let options = [&["--error-exitcode", "7"][..], &budget].concat();
            let finished = run(engine, &fixture, ["5", "2", "0"], &options);
            if finished.status.code() != Some(status) {
                finished.fail(format_args!("status {status} for {budget:?}"));
            }
        }
    }

    fn replicas_are_added_up(engine) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let fixture = Fixture::new("compared.c");
        let one = capture(engine, &fixture, ["5", "2", "0"], &folder, "one");
        let two = capture(engine, &fixture, ["1", "0", "1"], &folder, "two");
        let sum = folder.path().join("sum").display().to_string();
        leaktap_with(["merge", "-o", &sum, &one, &two]).succeeded();
        let shown = leaktap_with(["report", "--by", "stack", &sum]);
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        for words in [
            "60 B in 6 blocks",
            "200 B in 2 blocks",
            "1,000 B in 1 block",
            "the sum of 2",
        ] {
            if !text.contains(words) {
                shown.fail(words);
            }
        }
        // It has no ages.
        let refused = leaktap_with(["report", "--older", "1ms", &sum]);
        if refused.status.code() != Some(125) {
            refused.fail("status 125");
        }
    }
}
