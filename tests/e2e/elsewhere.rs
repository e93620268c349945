//! A capture that is looked at where the files of its program are not, or are better.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::child::Finished;
use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::leaktap_with;
use crate::report::Report;

fn tool(name: &str, arguments: &[&Path]) {
    let mut command = Command::new(name);
    let status = command.args(arguments).status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?}");
}

/// The folder with all that a test has: `program`, which is stripped, a capture of it, and its
/// debug file.
struct Moved {
    folder: TempDir,
}

impl Moved {
    fn new(engine: Engine) -> Moved {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let moved = Moved { folder };
        let (program, debug) = (moved.path("program"), moved.path("kept.debug"));
        fs::copy(Fixture::new("elsewhere.c").program(), &program).expect("a copy");
        tool(
            "objcopy",
            &[Path::new("--only-keep-debug"), &program, &debug],
        );
        tool("strip", &[&program]);
        let (engine, capture) = (engine.to_string(), moved.text("capture"));
        let words = ["run", "-q", "--engine", &engine, "-o", &capture, "--"];
        leaktap_with(words.into_iter().chain([&*moved.text("program")])).succeeded();
        moved
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The debug file's place by build id in `folder`.
    fn by_build_id(&self, folder: &str, id: &str) -> PathBuf {
        let (start, rest) = id.split_at(2);
        self.path(folder)
            .join(".build-id")
            .join(start)
            .join(format!("{rest}.debug"))
    }

    fn shown(&self, more: &[&str]) -> Report {
        let capture = self.text("capture");
        let words = ["report", "-F", "json"].iter().chain(more);
        let finished = leaktap_with(words.chain([&&*capture])).succeeded();
        Report::parse(&finished.stdout_text()).unwrap_or_else(|error| finished.fail(error))
    }
}

/// Functions and lines of the largest site, innermost first, up to main.
fn stack(report: &Report) -> Vec<(String, u64)> {
    let sites = report.sites();
    let frames = sites
        .first()
        .map(|site| site.frames.clone())
        .unwrap_or_default();
    let named = frames.into_iter().map(|frame| (frame.function, frame.line));
    named.take(3).collect()
}

fn build_id(report: &Report) -> String {
    let id = report.at("/modules/0/build_id").as_str();
    id.expect("a build id").to_owned()
}

fn place(at: &Path, debug: &Path) {
    fs::create_dir_all(at.parent().expect("a folder")).expect("a folder");
    fs::copy(debug, at).expect("a copy");
}

fn names(expected: [(&str, u64); 3]) -> Vec<(String, u64)> {
    expected
        .map(|(name, line)| (name.to_owned(), line))
        .to_vec()
}

engines! {
    fn names_come_from_where_the_files_are_now(engine) {
        let moved = Moved::new(engine);
        let full = names([("inlined", 8), ("leak_here", 12), ("main", 17)]);
        let bare = moved.shown(&[]);
        assert_eq!(stack(&bare)[0], (String::new(), 0), "{:?}", stack(&bare));
        let id = build_id(&bare);
        fs::remove_file(moved.path("program")).expect("the program");

        let debug = moved.path("kept.debug");
        let [by_id, by_name, root] = ["by id", "by name", "root"].map(|name| moved.text(name));
        place(&moved.by_build_id("by id", &id), &debug);
        place(&moved.path("by name/program.debug"), &debug);
        let below_root = moved.text("program");
        place(&moved.path("root").join(below_root.trim_start_matches('/')), &debug);
        for option in [["--debug-dir", &by_id], ["--debug-dir", &by_name], ["--sysroot", &root]] {
            assert_eq!(stack(&moved.shown(&option)), full, "{option:?}");
        }
        // Sums are what they were.
        let renamed = moved.shown(&["--debug-dir", &by_id]);
        let sums = |report: &Report| report.sites().iter().map(|site| site.bytes).sum::<u64>();
        assert_eq!(sums(&renamed), sums(&bare));
    }

    /// The report of a trace, and its capture, have them at once.
    fn a_trace_has_names_of_files_that_are_elsewhere(engine) {
        let moved = Moved::new(engine);
        place(&moved.path("symbols/program.debug"), &moved.path("kept.debug"));
        let (engine, symbols) = (engine.to_string(), moved.text("symbols"));
        let (capture, program) = (moved.text("capture"), moved.text("program"));
        let words = ["run", "-q", "--engine", &engine, "-F", "json", "--debug-dir", &symbols];
        let words = words.into_iter().chain(["-o", &capture, "--", &program]);
        let finished = leaktap_with(words).succeeded();
        let report = Report::parse(&finished.stderr_text());
        let report = report.unwrap_or_else(|error| finished.fail(error));
        let full = names([("inlined", 8), ("leak_here", 12), ("main", 17)]);
        assert_eq!(stack(&report), full);
        assert_eq!(stack(&moved.shown(&[])), full);
    }

    fn a_file_of_another_build_names_nothing(engine) {
        let moved = Moved::new(engine);
        let bare = moved.shown(&[]);
        let wrong = moved.by_build_id("wrong", &build_id(&bare));
        place(&wrong, Fixture::new("portable.c").program());
        let renamed = moved.shown(&["--debug-dir", &moved.text("wrong")]);
        assert_eq!(stack(&renamed), stack(&bare));
        let notes = renamed.notes();
        assert!(notes.iter().any(|note| note.contains("--debug-dir")), "{notes:?}");
    }
}

#[test]
fn a_json_report_has_no_stacks_to_name() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("x.json").display().to_string();
    let words = [
        "run",
        "-q",
        "-F",
        "json",
        "--report-file",
        &file,
        "--",
        "true",
    ];
    leaktap_with(words).succeeded();
    let refused: Finished = leaktap_with(["report", "--sysroot", "/", &file]);
    let said = refused.stderr_text();
    if refused.status.code() != Some(125) || !said.contains("--sysroot needs a capture") {
        refused.fail("a capture is asked for");
    }
}

/// As it comes from another machine.
#[test]
fn standard_input_may_be_a_capture() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("x").display().to_string();
    leaktap_with(["run", "-q", "-o", &file, "--", "true"]).succeeded();
    let piped = |from: &str| {
        let mut shell = Command::new("sh");
        let leaktap = env!("CARGO_BIN_EXE_leaktap");
        shell.args(["-c", &format!("'{leaktap}' report - < {from}")]);
        shell.output().expect("a shell")
    };
    let output = piped(&file);
    let direct = leaktap_with(["report", &file]).succeeded();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        direct.stdout_text()
    );
    let nothing = piped("/dev/null");
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert_eq!(nothing.status.code(), Some(125), "{said}");
    assert!(said.contains("standard input"), "{said}");
}
