//! What of a program that ends can still be reached.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::leaktap_with;

/// Sizes of blocks by kind, and notes.
type Graded = (BTreeMap<String, Vec<u64>>, Vec<String>);

/// What the last process of `program` leaves.
fn graded(engine: Engine, program: &[&str]) -> Graded {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("report").display().to_string();
    let engine = engine.to_string();
    let words = [
        "run",
        "--engine",
        &engine,
        "-f",
        "--leak-check",
        "reachable",
    ];
    let where_to = ["-F", "json", "--report-file", &file, "--"];
    leaktap_with(words.iter().chain(&where_to).chain(program));
    let text = std::fs::read_to_string(&file).expect("a report");
    let reports = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let report = reports.max_by_key(|report| report["target"]["parent"].as_i64());
    let report = report.expect("a report");
    let list = |of: &str| report[of].as_array().cloned().unwrap_or_default();
    let mut kinds: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for site in list("sites")
        .iter()
        .filter(|site| site["kind"] != "runtime")
    {
        let kind = site["kind"].as_str().unwrap_or_default().to_owned();
        kinds
            .entry(kind)
            .or_default()
            .push(site["bytes"].as_u64().expect("bytes"));
    }
    kinds.values_mut().for_each(|sizes| sizes.sort_unstable());
    let notes = list("notes");
    let notes = notes
        .iter()
        .filter_map(|note| note.as_str().map(str::to_owned));
    (kinds, notes.collect())
}

fn of_kinds(kinds: &[(&str, &[u64])]) -> BTreeMap<String, Vec<u64>> {
    let owned = kinds
        .iter()
        .map(|(kind, sizes)| ((*kind).to_owned(), sizes.to_vec()));
    owned.collect()
}

engines! {
    /// As memcheck grades them.
    fn blocks_are_of_four_kinds(engine) {
        let fixture = Fixture::new("graded.c");
        let program = fixture.program().display().to_string();
        let (kinds, notes) = graded(engine, &[&program]);
        let expected = of_kinds(&[
            ("definite", &[3000, 3001, 3002, 3003]),
            ("indirect", &[4003, 4001 + 4002]),
            ("possible", &[2000, 2001 + 2002]),
            ("reachable", &[108, 1000, 1004, 1001 + 1002 + 1003]),
        ]);
        assert_eq!((kinds, notes), (expected, Vec::new()));
    }

    /// However it ends, as long as its memory is there when leaktap is told.
    fn a_program_may_end_as_it_likes(engine) {
        let fixture = Fixture::new("graded_ends.c");
        let program = fixture.program().display().to_string();
        let ends = [
            "return", "exit", "_exit", "quick_exit", "abort", "segv", "term", "exit_group",
            "exit/thread", "_exit/thread", "abort/thread", "segv/thread", "return/thread",
            "pthread_exit/thread", "kill", "kill/thread",
        ];
        for end in ends {
            let (kinds, notes) = graded(engine, &[&program, end]);
            let expected = of_kinds(&[("definite", &[300]), ("reachable", &[100])]);
            assert_eq!(kinds, expected, "{end}: {notes:?}");
        }
    }

    fn every_place_that_a_program_writes_to_is_a_root(engine) {
        let fixture = Fixture::new("graded_roots.c");
        let program = fixture.program().display().to_string();
        for place in [
            "sbrk", "private", "shared", "large", "stack", "inherited", "thread", "key",
        ] {
            let (mut kinds, notes) = graded(engine, &[&program, place]);
            // The places themselves.
            kinds.remove("unmatched");
            for sizes in kinds.values_mut() {
                sizes.retain(|size| [100, 300].contains(size));
            }
            kinds.retain(|_, sizes| !sizes.is_empty());
            let expected = of_kinds(&[("definite", &[300]), ("reachable", &[100])]);
            assert_eq!(kinds, expected, "{place}: {notes:?}");
        }
    }
}
