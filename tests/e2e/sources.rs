//! Source lines, `--source`.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use nix::sys::stat::Mode;

use crate::child::Finished;
use crate::compile::Build;
use crate::engines::engines;
use crate::fixture::Fixture;
use crate::leaktap::leaktap_with;

fn said(finished: &Finished, text: &str) {
    let all = [&finished.stdout, &finished.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    if !all.concat().contains(text) {
        finished.fail(text);
    }
}

engines! {
    fn text_shows_the_line_of_the_culprit(engine) {
        let fixture = Fixture::new("compared.c");
        let (engine, program) = (engine.to_string(), fixture.program().display().to_string());
        let words = ["run", "--engine", &engine, "--source", "--", &program, "1"];
        let finished = leaktap_with(words);
        said(&finished, "\n     one  compared.c:21\n\
              \x20        20 | __attribute__((noinline)) static void one(int size) {\n\
              \x20      > 21 |     kept = malloc(size);\n\
              \x20        22 |     kept = NULL;\n\
              \x20      from first  compared.c:27\n");
    }
}

/// What debug information names may be anything: it is not waited for, and not printed.
#[test]
fn what_is_no_source_is_not_shown_and_told_once() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| folder.path().join(name);
    let fixture = Fixture::new("compared.c");
    let program = fixture.program().display().to_string();
    let report = path("report.json").display().to_string();
    let words = [
        "run",
        "-F",
        "json",
        "--report-file",
        &report,
        "--",
        &program,
        "1",
    ];
    leaktap_with(words).succeeded();
    let text = fs::read_to_string(&report).expect("a report");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/compared.c");
    assert!(text.contains(source), "{text}");
    let secret = "root:secret\n".repeat(100);
    fs::write(path("shadow"), &secret).expect("a file");
    symlink(path("shadow"), path("link.c")).expect("a link");
    nix::unistd::mkfifo(&path("pipe.c"), Mode::S_IRWXU).expect("a pipe");
    fs::write(path("binary.c"), [b'\n', 0].repeat(100)).expect("a file");
    for (name, why) in [
        ("none.c", "No such file or directory (os error 2)"),
        ("shadow", "its name is not one of source code"),
        ("link.c", "its name is not one of source code"),
        ("pipe.c", "it is no regular file"),
        ("binary.c", "it is no text"),
    ] {
        let file = path(name).display().to_string();
        fs::write(&report, text.replace(source, &file)).expect("a report");
        for format in ["text", "html"] {
            let words = ["report", "--source", "-F", format, &report];
            let finished = leaktap_with(words);
            let note = format!("the source of {file} ({why}) is not shown");
            said(&finished, &note);
            let all = String::from_utf8_lossy(&finished.stdout).into_owned();
            assert_eq!(all.matches(&note).count(), 1, "{all}");
            assert!(!all.contains("secret"), "{all}");
        }
    }
    let refused = leaktap_with(["report", "--source", "-F", "csv", &report]);
    assert_eq!(refused.status.code(), Some(2));
    said(&refused, "--source is for -F text and html");
}

#[test]
fn sources_of_another_machine_are_below_a_folder() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let elsewhere = concat!(
        "-ffile-prefix-map=",
        env!("CARGO_MANIFEST_DIR"),
        "=/nowhere"
    );
    let build = Build {
        flags: vec![elsewhere.to_owned()],
        ..Build::default()
    };
    let program = Fixture::built("compared.c", &build);
    let program = program.program().display().to_string();
    let capture = path("capture");
    leaktap_with(["run", "-q", "-o", &capture, "--", &program, "1"]).succeeded();
    let finished = leaktap_with(["report", "--source", &capture]);
    said(
        &finished,
        "the source of /nowhere/fixtures/compared.c (No such file",
    );
    fs::create_dir_all(path("root/nowhere/fixtures")).expect("folders");
    let text = "\tof another machine\n".repeat(30);
    let source = path("root/nowhere/fixtures/compared.c");
    fs::write(&source, text).expect("a file");
    let later = SystemTime::now() + Duration::from_secs(9);
    let file = File::options().write(true).open(source).expect("the file");
    file.set_modified(later).expect("a time");
    let root = path("root");
    let finished = leaktap_with(["report", "--source", "--sysroot", &root, &capture]);
    said(&finished, "       > 21 | of another machine\n");
    said(
        &finished,
        "changed after the trace began: lines may be others",
    );
}
