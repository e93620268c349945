//! What suppressions match is not listed, and no leak; what is printed for leaks is accepted by
//! valgrind, too.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::child::{Finished, Watched};
use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::{leaktap, run_with};
use crate::tools;

/// The status for leaks.
const LEAKS: &str = "7";

/// Runs `fixture`, with these options, to a report on standard error.
fn run_to_text(engine: Engine, options: &[&str], fixture: &Fixture) -> Finished {
    let mut command = leaktap();
    command
        .args(["run", "--engine", &engine.to_string()])
        .args(["--error-exitcode", LEAKS])
        .args(options)
        .arg("--")
        .arg(fixture.program())
        .env_remove("LEAKTAP_SUPPRESSIONS");
    Watched::spawn(&mut command).finish()
}

fn written(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).expect("a file");
    path
}

fn expect(finished: &Finished, status: i32, words: &[&str]) {
    let text = finished.stderr_text();
    let lacks = words.iter().find(|words| !text.contains(**words));
    if finished.status.code() != Some(status) || lacks.is_some() {
        finished.fail(format_args!("status {status}, and {lacks:?}"));
    }
}

/// A suppression of valgrind's.
fn rule(frames: &str) -> String {
    format!("{{\n  known\n  Memcheck:Leak\n  {frames}\n}}\n")
}

engines! {
    /// One that the program has built in, by LeakSanitizer's convention; it is not called.
    fn a_program_may_bring_its_own(engine) {
        let fixture = Fixture::new("suppressed.cpp");
        let traced = run_with(engine, &[], &[fixture.program().as_os_str()]);
        let report = traced.succeeded();
        let expected = json!([{
            "name": "known_leak", "file": "__lsan_default_suppressions", "line": 1,
            "sites": 1, "blocks": 1, "bytes": 100,
        }]);
        assert_eq!(report.at("/suppressions"), &expected);
        assert_eq!(report.at("/totals/suppressed_bytes"), &json!(100));
        let sites = report.at("/sites").as_array().map(Vec::len);
        // One is what the runtime keeps.
        assert_eq!(sites, Some(3), "{}", report.summary());
    }

    fn both_formats_suppress_leaks(engine) {
        let fixture = Fixture::new("suppressed.cpp");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let valgrinds = rule("fun:_Znam\n  fun:_ZN4shop4Cart3add*") + &rule("fun:nobody");
        let valgrinds = written(&directory, "a.supp", &valgrinds).display().to_string();
        let lsans = written(&directory, "b.supp", "leak:^forget\n").display().to_string();
        let both = ["--suppressions", &valgrinds, "--suppressions", &lsans];
        let suppressed = run_to_text(engine, &both, &fixture);
        let words = [
            "33 B in 3 blocks of 3 stacks: known (",
            "7 B in 1 block of 1 stack: ^forget (",
            "nothing: known (",
            "no unfreed blocks; suppressed: 140 B in 5 blocks",
        ];
        expect(&suppressed, 0, &words);
        // One is not enough.
        let one = run_to_text(engine, &both[..2], &fixture);
        expect(&one, 7, &["7 B in 1 block left, at 1 call site; suppressed: 133 B"]);
    }

    /// And by valgrind, which wrote the format.
    fn what_is_printed_is_accepted(engine) {
        let fixture = Fixture::new("suppressed.cpp");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let printed = run_to_text(engine, &["-q", "--print-suppressions"], &fixture);
        let file = written(&directory, "printed.supp", &printed.stderr_text());
        let file = file.display().to_string();
        let options = ["--suppressions", &file];
        expect(&run_to_text(engine, &options, &fixture), 0, &["no unfreed blocks; suppressed"]);
        let Some(valgrind) = tools::program("valgrind") else {
            return;
        };
        let known = written(&directory, "known.supp", &rule("fun:malloc\n  fun:_Z10known_leakv"));
        let mut command = Command::new(valgrind);
        command
            .args(["--leak-check=full", "--show-leak-kinds=all", "--errors-for-leak-kinds=all"])
            .arg(format!("--error-exitcode={LEAKS}"))
            .arg(format!("--suppressions={file}"))
            .arg(format!("--suppressions={}", known.display()))
            .arg(fixture.program());
        expect(&Watched::spawn(&mut command).finish(), 0, &["suppressed: 140 bytes"]);
    }
}

/// Before anything is traced.
#[test]
fn a_file_that_cannot_be_used_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ran = directory.path().join("ran");
    for (text, what) in [
        (
            Some("leak:a\nrace:b\n"),
            "x.supp: line 2: LeakSanitizer's suppressions are leak:",
        ),
        (
            Some("{\n a\n"),
            "x.supp: line 1: this suppression has no `}`",
        ),
        (None, "cannot read suppressions"),
    ] {
        let path = directory.path().join("x.supp");
        match text {
            Some(text) => fs::write(&path, text).expect("a file"),
            None => fs::remove_file(&path).expect("a file"),
        }
        for by_environment in [false, true] {
            let mut command = leaktap();
            command.arg("run");
            match by_environment {
                true => command.env("LEAKTAP_SUPPRESSIONS", &path),
                false => command.arg("--suppressions").arg(&path),
            };
            command.args(["--", "touch"]).arg(&ran);
            let finished = Watched::spawn(&mut command).finish();
            expect(&finished, 125, &[what]);
            assert!(!ran.exists(), "{what}");
        }
    }
}
