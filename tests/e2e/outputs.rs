//! Where reports and captures go: tried before anything is traced, never lost, replaced as a whole.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::child::Finished;
use crate::engines::engines;
use crate::fixture::Fixture;
use crate::leaktap::leaktap_with;

/// `path` in `directory`, as an argument.
fn within(directory: &TempDir, path: &str) -> String {
    directory.path().join(path).display().to_string()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a folder").flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// One line on standard error that names `what`, and nothing else.
fn refused(finished: &Finished, status: i32, what: &str) {
    let said = finished.stderr_text();
    let is_one_line = said.lines().count() == 1 && finished.stdout.is_empty();
    if finished.status.code() != Some(status) || !is_one_line || !said.contains(what) {
        finished.fail(format_args!("exit status {status}, one line with {what}"));
    }
}

fn is_private(path: &Path) {
    let mode = fs::metadata(path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", path.display());
}

engines! {
    /// The program has not run, and a process has not been touched.
    fn what_cannot_be_written_is_refused_before_the_trace(engine) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (ran, folder) = (within(&directory, "ran"), within(&directory, ""));
        let engine = engine.to_string();
        let target = Fixture::new("portable.c").start();
        let pid = target.pid().to_string();
        for option in ["-o", "--report-file"] {
            for place in [
                "/no/such/folder/x",
                "/no/such/folder/%p",
                "/dev/full",
                &folder,
            ] {
                let words = [
                    "run", "--engine", &engine, option, place, "--", "touch", &ran,
                ];
                let named = place.replace("%p", "");
                refused(&leaktap_with(words), 125, &named);
                assert!(!Path::new(&ran).exists(), "{option} {place}");
                let words = ["attach", "--engine", &engine, option, place, "-p", &pid];
                refused(&leaktap_with(words), 125, &named);
            }
        }
        assert!(names(directory.path()).is_empty());
        target.end().succeeded();
    }

    fn a_pattern_names_both_files_by_the_process(engine) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (capture, report) = (
            within(&directory, "%n-%p.leaktap"),
            within(&directory, "r%p.json"),
        );
        let engine = engine.to_string();
        let words = [
            "run",
            "--engine",
            &engine,
            "-o",
            &capture,
            "-F",
            "json",
            "--report-file",
            &report,
        ];
        leaktap_with(words.into_iter().chain(["--", "true"])).succeeded();
        let found = names(directory.path());
        let [report, capture] = [0, 1].map(|n| found.get(n).cloned().unwrap_or_default());
        let text = fs::read_to_string(directory.path().join(&report)).expect("a report");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let pid = &json["target"]["pid"];
        assert_eq!(
            found,
            [format!("r{pid}.json"), format!("true-{pid}.leaktap")]
        );
        is_private(&directory.path().join(report));
        is_private(&directory.path().join(capture));
    }

    fn a_report_that_cannot_be_written_in_the_end_is_not_lost(engine) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let folder = directory.path().join("soon gone");
        fs::create_dir(&folder).expect("a folder");
        let file = folder.join("report").display().to_string();
        let (engine, gone) = (engine.to_string(), folder.display().to_string());
        let words = [
            "run",
            "--engine",
            &engine,
            "--report-file",
            &file,
            "--",
            "rmdir",
            &gone,
        ];
        let finished = leaktap_with(words);
        let said = finished.stderr_text();
        let last = said.lines().next_back().unwrap_or_default();
        let is_told = last.contains(&file) && last.contains("standard error");
        if finished.status.code() != Some(125) || !said.contains("allocated") || !is_told {
            finished.fail("the report on standard error, and a line that says so");
        }
    }

    fn a_file_is_replaced_as_a_whole_and_named(engine) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        fs::write(path("old"), "what was there").expect("a file");
        symlink("old", path("link")).expect("a link");
        let (engine, link) = (engine.to_string(), within(&directory, "link"));
        let words = [
            "run",
            "--engine",
            &engine,
            "-F",
            "json",
            "--report-file",
            &link,
            "--",
            "true",
        ];
        let finished = leaktap_with(words).succeeded();
        assert!(
            finished.stderr_text().contains(&link),
            "{}",
            finished.shown()
        );
        let text = fs::read_to_string(path("old")).expect("a report");
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
        assert!(
            fs::symlink_metadata(path("link"))
                .expect("a link")
                .is_symlink()
        );
        is_private(&path("old"));
        assert_eq!(names(directory.path()), ["link", "old"]);
        // Nothing but the report.
        let quiet = leaktap_with(
            words
                .into_iter()
                .take(1)
                .chain(["-q"])
                .chain(words.into_iter().skip(1)),
        );
        assert!(quiet.succeeded().stderr.is_empty());
    }

    fn standard_output_is_a_file_like_any_other(engine) {
        let target = Fixture::new("portable.c").start();
        let (engine, pid) = (engine.to_string(), target.pid().to_string());
        let words = [
            "attach",
            "--engine",
            &engine,
            "--duration",
            "10ms",
            "-F",
            "json",
            "--report-file",
        ];
        let finished =
            leaktap_with(words.into_iter().chain(["/dev/stdout", "-p", &pid])).succeeded();
        let json: Value = serde_json::from_slice(&finished.stdout).expect("a report");
        assert_eq!(json["target"]["pid"], target.pid().as_raw());
        target.end().succeeded();
    }

    fn an_age_that_no_block_can_have_is_an_error(engine) {
        let (engine, own) = (engine.to_string(), std::process::id().to_string());
        let words = [
            "attach",
            "--engine",
            &engine,
            "--duration",
            "2s",
            "--older",
            "30s",
            "-p",
            &own,
        ];
        refused(&leaktap_with(words), 2, "--older 30s");
        // Of a trace that ends by itself it is told then, behind the report.
        let finished = leaktap_with(["run", "--engine", &engine, "--older", "30s", "--", "true"]);
        let said = finished.stderr_text();
        if finished.status.code() != Some(125)
            || !said.contains("allocated")
            || !said.contains("--older 30s")
        {
            finished.fail("a report, and an error");
        }
    }
}
