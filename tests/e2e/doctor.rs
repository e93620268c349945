//! `leaktap doctor` and `leaktap demo`.

use nix::sys::signal::Signal;

use crate::child::Watched;
use crate::clean::Snapshot;
use crate::fixture::Fixture;
use crate::leaktap::{leaktap, leaktap_with};

#[test]
fn doctor_tells_what_would_be_probed_and_touches_nothing() {
    let target = Fixture::new("portable.c").start();
    let before = Snapshot::of(target.pid());
    let finished = leaktap_with(["doctor", "-p", &target.pid().to_string()]).succeeded();
    for text in ["malloc", "free", "libc.so.6"] {
        assert!(
            finished.stdout_text().contains(text),
            "{text}: {}",
            finished.shown()
        );
    }
    assert_eq!(before.changes_of_idle(target.pid()), Vec::<String>::new());
    target.end().succeeded();
}

#[test]
fn doctor_needs_no_process() {
    let finished = leaktap_with(["doctor"]);
    assert!(!finished.stdout.is_empty(), "{}", finished.shown());
}

#[test]
fn doctor_names_the_tracer_of_a_traced_process() {
    let target = Fixture::new("portable.c").start();
    let mut command = leaktap();
    let tracer = Watched::spawn(command.args(["attach", "-p", &target.pid().to_string()]));
    tracer
        .stderr_line("leaktap: attached to")
        .expect("attached");
    let finished = leaktap_with(["doctor", "-p", &target.pid().to_string()]);
    let said = finished.stdout_text() + &finished.stderr_text();
    assert!(
        said.contains(&tracer.pid().to_string()),
        "{}",
        finished.shown()
    );
    tracer.signal(Signal::SIGINT);
    tracer.finish().succeeded();
    target.end().succeeded();
}

/// The demo attaches to a program of its own and reports its leaks with function and line.
#[test]
fn demo_reports_its_own_leaks() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = leaktap();
    let demo = command.arg("demo").env("TMPDIR", directory.path());
    let finished = Watched::spawn(demo).finish().succeeded();
    let left = std::fs::read_dir(directory.path()).expect("a folder");
    assert_eq!(left.count(), 0, "the program's own file is removed");
    for text in ["demo.rs", "log_line", "open_session"] {
        assert!(
            finished.stdout_text().contains(text),
            "{text}: {}",
            finished.shown()
        );
    }
}
