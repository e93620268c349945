//! Targets that seccomp(2) watches: our system calls kill nobody, and theirs are watched as before.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::clean::{Snapshot, left_behind};
use crate::compare::{differences, exact};
use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{Traced, Tracing, attach, attach_unprivileged, run};
use crate::truth::Mode;

/// The ways that `fixtures/filtered.c` knows, and what each ends by.
const WAYS: [(&str, Signal); 4] = [
    ("all", Signal::SIGSYS),
    ("late", Signal::SIGSYS),
    ("thread", Signal::SIGSYS),
    ("strict", Signal::SIGKILL),
];

fn start(fixture: &Fixture, way: &str) -> Target {
    Target::start(Command::new(fixture.program()).args(["wait", way]))
}

/// How the function numbered first, malloc, was watched.
fn kind_of_malloc(traced: &Traced) -> String {
    let first = traced.report().at("/probes/0");
    assert_eq!(first["function"], "malloc");
    first["kind"].to_string()
}

fn ends_by(target: Target, signal: Signal) {
    let finished = target.end();
    let ended = finished.status.signal();
    assert_eq!(ended, Some(signal as i32), "{}", finished.shown());
}

/// Works under `tracing`, is let go, and ends.
fn traced_to_the_end(
    fixture: &Fixture,
    mut target: Target,
    tracing: Tracing,
    end: Signal,
) -> Traced {
    target.work();
    let traced = tracing.detach();
    exact(fixture, &traced, Mode::Attach);
    ends_by(target, end);
    traced
}

/// Attaches to it, lets it work and go, finds it as it was `before`, and sees its end.
fn traced_without_a_trace(
    fixture: &Fixture,
    mut target: Target,
    engine: Engine,
    before: &Snapshot,
    end: Signal,
) {
    let tracing = attach(engine, target.pid(), &[]);
    target.work();
    let traced = tracing.detach();
    exact(fixture, &traced, Mode::Attach);
    let changes = before.changes(target.pid());
    if !changes.is_empty() {
        traced.fail("the target is not what it was", &changes);
    }
    ends_by(target, end);
}

engines! {
    fn a_filter_is_in_force_during_the_trace(engine) {
        let fixture = Fixture::new("filtered.c");
        for (way, end) in WAYS {
            let mut target = start(&fixture, way);
            let tracing = attach(engine, target.pid(), &[]);
            target.work();
            ends_by(target, end);
            exact(&fixture, &tracing.wait(), Mode::Attach);
        }
    }

    fn a_filter_is_in_force_afterwards_and_nothing_is_left(engine) {
        let fixture = Fixture::new("filtered.c");
        for (way, end) in WAYS {
            let target = start(&fixture, way);
            let before = Snapshot::of(target.pid());
            traced_without_a_trace(&fixture, target, engine, &before, end);
        }
    }

    fn a_launched_program_may_filter_itself(engine) {
        let fixture = Fixture::new("filtered.c");
        // The thread's own blocks are not in the fixture's truth.
        for (way, end) in WAYS.into_iter().filter(|(way, _)| *way != "thread") {
            let traced = run(engine, &[fixture.program().as_ref(), "run".as_ref(), way.as_ref()]);
            let status = traced.finished.status.code();
            assert_eq!(status, Some(128 + end as i32), "{way}: {}", traced.finished.shown());
            let wrong = differences(&fixture.truth(Mode::Run), traced.report());
            if !wrong.is_empty() {
                traced.fail("the report of a filtered program", &wrong);
            }
        }
    }

    fn without_the_privilege_no_call_is_tried(engine) {
        let fixture = Fixture::new("filtered.c");
        for (way, end) in WAYS.into_iter().filter(|(way, _)| *way != "late") {
            let target = start(&fixture, way);
            let tracing = attach_unprivileged(engine, target.pid());
            traced_to_the_end(&fixture, target, tracing, end);
        }
    }
}

#[test]
fn with_the_privilege_filtered_programs_get_detours() {
    let fixture = Fixture::new("filtered.c");
    for (way, end) in WAYS {
        let target = start(&fixture, way);
        let tracing = attach(Engine::Auto, target.pid(), &[]);
        let traced = traced_to_the_end(&fixture, target, tracing, end);
        assert_eq!(kind_of_malloc(&traced), "\"detour\"", "{way}");
    }
}

/// Its memory cannot be taken away then, and the report says so; all else is as it was.
#[test]
fn a_filter_that_comes_later_and_cannot_be_suspended_is_told_of() {
    let fixture = Fixture::new("filtered.c");
    let mut target = start(&fixture, "late");
    let tracing = attach_unprivileged(Engine::Auto, target.pid());
    target.work();
    let traced = tracing.detach();
    exact(&fixture, &traced, Mode::Attach);
    let notes = traced.report().notes();
    assert!(
        notes.iter().any(|note| note.contains("seccomp")),
        "{notes:?}"
    );
    let left = left_behind(target.pid());
    assert!(
        left.iter()
            .all(|what| what.starts_with("mapping") || what.contains("no file")),
        "{left:?}"
    );
    ends_by(target, Signal::SIGSYS);
}

#[test]
fn what_a_killed_leaktap_leaves_in_a_filtered_program_is_taken_out() {
    let fixture = Fixture::new("filtered.c");
    let target = start(&fixture, "all");
    let before = Snapshot::of(target.pid());
    let tracing = attach(Engine::Auto, target.pid(), &[]);
    tracing.process().signal(Signal::SIGKILL);
    assert!(!tracing.wait().has_report());
    traced_without_a_trace(&fixture, target, Engine::Auto, &before, Signal::SIGSYS);
}
