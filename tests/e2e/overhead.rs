//! A target that stops would slow down is let go, unless breakpoints were asked for.

use std::ffi::OsStr;
use std::process::Command;

use crate::child::Finished;
use crate::fixture::{Fixture, Target};
use crate::leaktap::leaktap_with;

/// Runs its arguments with too few addresses for an agent.
const LIMITED: &str = "ulimit -v 4000000; exec \"$@\"";

/// A program that does nothing but allocate and free, and that detours cannot be made for.
fn hot() -> Target {
    let fixture = Fixture::new("hot.c");
    let mut command = Command::new("sh");
    let mut target = Target::start(command.args(["-c", LIMITED, "sh"]).arg(fixture.program()));
    target.begin();
    target
}

fn attach(target: &Target, options: &[&str]) -> Finished {
    let pid = target.pid().to_string();
    let words = ["attach", "--leak-check", "none", "-p", &pid];
    leaktap_with(words.iter().chain(options)).succeeded()
}

#[test]
fn a_live_process_is_let_go_when_stops_take_its_time() {
    let target = hot();
    let told = attach(&target, &["--duration", "1h"]);
    let (first, report) = (told.stderr_text(), told.stdout_text());
    let first = first.lines().next().unwrap_or_default();
    let expected = format!(
        "leaktap: attached to {}, with breakpoints: NoMemoryInReach",
        target.pid()
    );
    assert!(first.starts_with(&expected), "{first}");
    assert!(report.contains("the trace ended early"), "{report}");
    assert!(report.contains("--max-overhead is 10"), "{report}");
    target.end().succeeded();
}

#[test]
fn who_asks_for_breakpoints_gets_the_whole_trace() {
    let target = hot();
    for options in [["--engine", "breakpoint"], ["--max-overhead", "100"]] {
        let told = attach(&target, &[&options[..], &["--duration", "500ms"]].concat());
        let report = told.stdout_text();
        assert!(!report.contains("ended early"), "{report}");
    }
    target.end().succeeded();
}

/// Five million pairs of calls with breakpoints would take longer than a test may.
#[test]
fn a_program_that_was_launched_with_a_limit_runs_on() {
    let fixture = Fixture::new("hot.c");
    let program = fixture.program().as_os_str();
    let words = ["run", "--engine", "breakpoint", "--max-overhead", "5", "--"];
    let told = leaktap_with(
        words
            .map(OsStr::new)
            .into_iter()
            .chain([program, "run".as_ref()]),
    );
    let report = told.succeeded().stderr_text();
    assert!(report.contains("--max-overhead is 5"), "{report}");
}
