//! Libraries that come and go: leaktap knows of each before its first call, without a trap, and who
//! loads them waits for leaktap, but not for long.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::compare::exact;
use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{Tracing, attach, leaktap_with, run, run_with};
use crate::report::Report;
use crate::truth::Mode;

/// What the dynamic linker calls.
const LINKER: &str = "_dl_debug_state";

/// All waits of a target for a leaktap that does not answer: one second, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// How that is watched, and why not by a detour.
fn linker(report: &Report) -> (String, String) {
    let probes = report.at("/probes").as_array().expect("probes");
    let mut probes = probes.iter();
    let probe = probes
        .find(|probe| probe["function"] == LINKER)
        .expect("is watched");
    (probe["kind"].to_string(), probe["reason"].to_string())
}

fn foreseen(target: &Target) -> String {
    let doctor = leaktap_with(["doctor", "-p", &target.pid().to_string()]).succeeded();
    let text = doctor.stdout_text();
    let line = text
        .lines()
        .find(|line| line.contains(LINKER) && line.contains('/'));
    line.expect("is looked for").to_owned()
}

/// The process that stands by for `tracing`.
fn guard_of(tracing: &Tracing) -> Pid {
    let leaktap = tracing.process().pid();
    let children = fs::read_to_string(format!("/proc/{leaktap}/task/{leaktap}/children"));
    let guard = children.expect("children").trim().parse();
    Pid::from_raw(guard.expect("one child"))
}

fn state(pid: Pid) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    state.chars().take(1).collect()
}

/// Waits until `pid` is in one of these states of proc_pid_stat(5), or is gone where one is empty.
fn await_state(pid: Pid, expected: &[&str]) {
    let begun = Instant::now();
    while !expected.contains(&&*state(pid)) {
        assert!(
            begun.elapsed() < PATIENCE,
            "{pid} is in state {}",
            state(pid)
        );
        std::thread::yield_now();
    }
}

/// The target loads its libraries, and does not wait long for that.
fn works_soon(target: &mut Target) {
    let begun = Instant::now();
    target.work();
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

/// Attached to, it does its work, and all of it is in the report.
fn works_under_trace(engine: Engine, fixture: &Fixture) {
    let mut target = fixture.start();
    let tracing = attach(engine, target.pid(), &[]);
    target.work();
    let traced = tracing.detach();
    exact(fixture, &traced, Mode::Attach);
    target.end().succeeded();
}

engines! {
    fn a_library_is_known_before_its_first_call(engine) {
        let fixture = Fixture::new("loads_under_signals.c");
        let traced = run(engine, &[fixture.program().as_os_str(), "run".as_ref()]);
        exact(&fixture, &traced, Mode::Run);
        works_under_trace(engine, &fixture);
    }

    fn where_system_calls_are_forbidden_too(engine) {
        works_under_trace(engine, &Fixture::new("loads_filtered.c"));
    }

    fn an_int3_stays_where_there_is_no_room_for_a_jump(engine) {
        for (name, doctor, kind, reason) in [
            ("no_padding.c", "breakpoint (NoPadding)", "\"breakpoint\"", "\"NoPadding\""),
            ("dlopen.c", "detour", "\"detour\"", "null"),
        ] {
            let fixture = Fixture::new(name);
            let mut target = fixture.start();
            let foreseen = foreseen(&target);
            assert!(foreseen.contains(doctor), "{foreseen}");
            let tracing = attach(engine, target.pid(), &[]);
            target.work();
            let traced = tracing.detach();
            exact(&fixture, &traced, Mode::Attach);
            if engine == Engine::Auto {
                assert_eq!(linker(traced.report()), (kind.to_owned(), reason.to_owned()));
                let says_so = traced.finished.stderr_text().contains(LINKER);
                assert_eq!(says_so, kind != "\"detour\"", "{}", traced.finished.shown());
            }
            target.end().succeeded();
        }
    }
}

/// Nobody continues leaktap here: its guard is stopped, too.
#[test]
fn a_leaktap_that_is_stopped_holds_up_nobody_for_long() {
    let mut target = Fixture::new("dlopen.c").start();
    let tracing = attach(Engine::Auto, target.pid(), &[]);
    let (leaktap, guard) = (tracing.process().pid(), guard_of(&tracing));
    for pid in [guard, leaktap] {
        kill(pid, Signal::SIGSTOP).expect("alive");
        await_state(pid, &["T"]);
    }
    works_soon(&mut target);
    assert_eq!(state(leaktap), "T");
    for pid in [leaktap, guard] {
        kill(pid, Signal::SIGCONT).expect("alive");
    }
    let traced = tracing.detach();
    let notes = traced.succeeded().notes().join("\n");
    assert!(notes.contains("in vain"), "{notes}");
    target.end().succeeded();
}

/// Nor does one that was killed, whether or not its guard says so.
#[test]
fn a_leaktap_that_was_killed_is_not_waited_for() {
    for is_guarded in [true, false] {
        let mut target = Fixture::new("dlopen.c").start();
        let tracing = attach(Engine::Auto, target.pid(), &[]);
        if !is_guarded {
            let guard = guard_of(&tracing);
            kill(guard, Signal::SIGKILL).expect("alive");
            await_state(guard, &["Z", ""]);
        }
        tracing.process().signal(Signal::SIGKILL);
        tracing.wait();
        works_soon(&mut target);
        let traced = attach(Engine::Auto, target.pid(), &["--duration", "5ms"]).wait();
        traced.succeeded();
        target.end().succeeded();
    }
}

/// What would need an int3 is not watched, and named.
#[test]
fn nothing_traps_where_that_is_asked_for() {
    let fixture = Fixture::new("pool.c");
    let program = [fixture.program().as_os_str(), "run".as_ref()];
    let spec = "pool_get:size=1,returns pool_put:ptr=1";
    let options = ["--detours-only", "--alloc-fn", spec];
    let traced = run_with(Engine::Auto, &options, &program);
    let report = traced.succeeded();
    let probes = report.at("/probes").as_array().expect("probes");
    let told = |name: &str| {
        let probe = probes.iter().find(|probe| probe["function"] == name);
        let probe = probe.expect("is looked for");
        (probe["kind"].as_str(), probe["reason"].as_str())
    };
    for name in ["pool_get", "pool_put"] {
        assert_eq!(told(name), (Some("none"), Some("MayUnwind")), "{name}");
    }
    assert_eq!(told("malloc"), (Some("detour"), None));
    let traps = probes.iter().any(|probe| probe["kind"] == "breakpoint");
    assert!(!traps, "{probes:?}");
    assert!(report.total("allocations") > 0, "{}", report.summary());
    let notes = report.notes().join("\n");
    assert!(
        notes.contains("without probes on pool_get, pool_put"),
        "{notes}"
    );
}

/// A forked child has no tracer to wait for.
#[test]
fn a_child_that_loads_libraries_waits_for_nobody() {
    let fixture = Fixture::new("loads_in_children.c");
    let mut target = Target::start(&mut Command::new(fixture.program()));
    let tracing = attach(Engine::Auto, target.pid(), &[]);
    target.work();
    exact(&fixture, &tracing.detach(), Mode::Attach);
    target.end().succeeded();
}
