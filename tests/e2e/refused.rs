//! Targets that cannot be given an agent: watched all the same, and told why not by detours.

use std::ffi::OsStr;
use std::process::Command;

use crate::compare::exact;
use crate::engines::Engine;
use crate::fixture::{Fixture, Target};
use crate::leaktap::{Traced, attach, attach_unprivileged, run};
use crate::truth::Mode;

/// Runs its arguments with four gigabytes of addresses.
const LIMITED: &str = "ulimit -v 4000000; exec \"$@\"";

/// The report is exact; it says of each function of the heap, and in a note, that there was `refusal`.
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
    let mut command = Command::new("sh");
    let mut target = Target::start(command.args(["-c", LIMITED, "sh"]).arg(fixture.program()));
    let tracing = attach(Engine::Auto, target.pid(), &[]);
    target.work();
    let traced = tracing.detach();
    told(&fixture, &traced, Mode::Attach, "NoMemoryInReach");
    assert!(target.end().status.success());
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
