//! Targets that cannot be given an agent: watched all the same, and told why not by detours.

use std::ffi::OsStr;
use std::process::Command;

use crate::compare::exact;
use crate::engines::Engine;
use crate::fixture::{Fixture, Target};
use crate::leaktap::{Traced, attach, attach_by, attach_unprivileged, run};
use crate::truth::Mode;

/// Runs its arguments with four gigabytes of addresses, or thirty: more than would be reserved,
/// which they would then lack.
const LIMITED: &str = "ulimit -v 4000000; exec \"$@\"";
const LESS_LIMITED: &str = "ulimit -v 30000000; exec \"$@\"";

/// Runs its arguments, none of whose files may grow beyond half a megabyte.
const SMALL_FILES: &str = "ulimit -f 1000; exec \"$@\"";

/// The report is exact; it says of each function of the heap, and in a note, that there was
/// `refusal`.
fn told(fixture: &Fixture, traced: &Traced, mode: Mode, refusal: &str) {
    exact(fixture, traced, mode);
    let report = traced.report();
    let malloc = report.at("/probes/0");
    assert_eq!(malloc["function"], "malloc");
    assert_eq!(malloc["kind"], "breakpoint");
    assert_eq!(malloc["reason"], refusal);
    let notes = report.notes();
    assert!(notes.iter().any(|note| note.contains(refusal)), "{notes:?}");
}

#[test]
fn a_process_with_few_addresses_is_attached_to() {
    let fixture = Fixture::new("recursion.c");
    for limited in [LIMITED, LESS_LIMITED] {
        let mut command = Command::new("sh");
        let mut target = Target::start(command.args(["-c", limited, "sh"]).arg(fixture.program()));
        let tracing = attach(Engine::Auto, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        told(&fixture, &traced, Mode::Attach, "NoMemoryInReach");
        assert!(target.end().status.success());
    }
}

#[test]
fn a_user_whose_files_may_not_grow_attaches() {
    let fixture = Fixture::new("recursion.c");
    let mut target = fixture.start();
    let tracing = attach_by(&["sh", "-c", SMALL_FILES, "sh"], Engine::Auto, target.pid());
    target.work();
    let traced = tracing.detach();
    told(&fixture, &traced, Mode::Attach, "TracerFileSize");
    target.end().succeeded();
}

#[test]
fn a_program_with_few_addresses_is_launched() {
    let fixture = Fixture::new("recursion.c");
    let words = ["sh", "-c", LIMITED, "sh"].map(OsStr::new).into_iter();
    let words = words.chain([fixture.program().as_ref()]);
    let traced = run(Engine::Auto, &words.collect::<Vec<_>>());
    told(&fixture, &traced, Mode::Run, "NoMemoryInReach");
}

#[test]
fn a_process_whose_calls_are_filtered_is_attached_to() {
    let fixture = Fixture::new("filtered.c");
    let mut command = Command::new(fixture.program());
    let mut target = Target::start(command.args(["wait", "all"]));
    let tracing = attach_unprivileged(Engine::Auto, target.pid());
    target.work();
    let traced = tracing.detach();
    told(&fixture, &traced, Mode::Attach, "InjectionForbidden");
    target.end();
}

/// What is reserved is not filled: the trace ends before that.
#[test]
fn a_program_that_locks_its_memory_is_let_go_first() {
    let fixture = Fixture::new("locks.c");
    let is_let_go = |traced: &Traced| {
        let report = traced.report();
        let notes = report.notes();
        assert!(
            notes.iter().any(|note| note.contains("mlockall")),
            "{notes:?}"
        );
        // The ten blocks from before, what the C library keeps for a thread, and perhaps one that
        // is being freed.
        let live = report.total("live_bytes");
        assert!((10_000..12_000).contains(&live), "{live}");
    };
    let traced = run(Engine::Auto, &[fixture.program().as_ref(), "run".as_ref()]);
    is_let_go(&traced);
    assert_eq!(traced.finished.status.code(), Some(7));

    let mut target = fixture.start();
    let tracing = attach(Engine::Auto, target.pid(), &[]);
    target.work();
    let traced = tracing.wait();
    is_let_go(&traced);
    assert_eq!(target.end().status.code(), Some(7));

    // No agent, nothing reserved: it goes on.
    let traced = run(
        Engine::Breakpoint,
        &[fixture.program().as_ref(), "run".as_ref()],
    );
    assert!(
        traced.report().total("live_bytes") >= 30_000,
        "{}",
        traced.report().summary()
    );
    assert_eq!(traced.report().notes(), [""; 0]);
    assert_eq!(traced.finished.status.code(), Some(7));
}
