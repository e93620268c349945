//! What leaktap exits with.

use std::fs;

use serde_json::Value;

use crate::child::Watched;
use crate::compile::Build;
use crate::engines::engines;
use crate::fixture::Fixture;
use crate::leaktap::{leaktap, leaktap_with};

/// `leaktap run --error-exitcode 42` of a shell that leaks: `script`.
fn of_shell(engine: &str, script: &str) -> Option<i32> {
    let words = [
        "run",
        "-q",
        "--engine",
        engine,
        "--error-exitcode",
        "42",
        "--",
    ];
    let finished = leaktap_with(words.into_iter().chain(["sh", "-c", script]));
    finished.status.code()
}

engines! {
    /// A test that fails must not look like one that leaks.
    fn a_program_that_failed_keeps_its_status(engine) {
        let leaky = Fixture::new("recursion.c");
        let program = leaky.program().display();
        let engine = engine.to_string();
        assert_eq!(of_shell(&engine, &format!("exec {program} run")), Some(42));
        let leaks = "x=$(printf '%9000s'); ";
        for (end, status) in [("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
            let script = format!("{leaks}{end}");
            assert_eq!(of_shell(&engine, &script), Some(status), "{end}");
        }
    }

    fn without_a_program_of_its_own_it_is_0_or_that_for_leaks(engine) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let capture = directory.path().join("capture").display().to_string();
        let (engine, leaky) = (engine.to_string(), Fixture::new("recursion.c"));
        let program = leaky.program().display().to_string();
        let words = [
            "run", "-q", "--engine", &engine, "-o", &capture, "--", &program, "run",
        ];
        leaktap_with(words).succeeded();
        leaktap_with(["report", &capture]).succeeded();
        let leaks = leaktap_with(["report", "--error-exitcode", "7", &capture]);
        assert_eq!(leaks.status.code(), Some(7), "{}", leaks.shown());
        // As a pipe has it.
        let mut from_stdin =
            Watched::spawn(leaktap().args(["report", "--error-exitcode", "7", "-"]));
        from_stdin.send(&fs::read(&capture).expect("a capture"));
        from_stdin.close_stdin();
        let leaks_again = from_stdin.finish();
        assert_eq!(
            leaks_again.status.code(),
            Some(7),
            "{}",
            leaks_again.shown()
        );
        assert_eq!(leaks_again.stdout_text(), leaks.stdout_text());
    }

    fn where_nothing_can_be_watched_it_is_125(engine) {
        let flags = vec!["-static".to_owned(), "-s".to_owned()];
        let blind = Fixture::built(
            "portable.c",
            &Build {
                flags,
                compiler: None,
            },
        );
        let (engine, program) = (engine.to_string(), blind.program().display().to_string());
        let finished = leaktap_with(["run", "--engine", &engine, "--", &program, "run"]);
        assert_eq!(finished.status.code(), Some(125), "{}", finished.shown());
    }
}

/// A report says itself that not all was seen, and its status says it where nothing is left.
#[test]
fn a_report_that_has_not_seen_all_is_no_success() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("report.json").display().to_string();
    let clean = Fixture::new("keeps_nothing.c");
    let program = clean.program().display().to_string();
    let options = ["-F", "json", "--report-file", &file, "--", &program];
    leaktap_with(["run", "-q"].into_iter().chain(options)).succeeded();
    let mut report: Value =
        serde_json::from_slice(&fs::read(&file).expect("a report")).expect("JSON");
    let words = ["report", "--error-exitcode", "7", &file];
    leaktap_with(words).succeeded();
    assert_eq!(report["totals"]["lost_events"], 0);
    for (lost, unwatched) in [(3, None), (0, Some("calls of malloc were not all seen"))] {
        report["totals"]["lost_events"] = lost.into();
        report["unwatched"] = unwatched.into();
        fs::write(&file, report.to_string()).expect("a file");
        let told = leaktap_with(words);
        assert_eq!(told.status.code(), Some(125), "{}", told.shown());
        let text = told.stdout_text();
        assert!(text.contains("no unfreed blocks were seen; "), "{text}");
    }
}
