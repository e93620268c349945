//! Targets that look as if they could not be given an agent, and can: detours, and the truth.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::clean::Snapshot;
use crate::compare::exact;
use crate::compile::Build;
use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{attach, leaktap_with};
use crate::report::Report;
use crate::truth::Mode;

/// How each allocation function is watched, by the report: its kind and the reason.
fn told(report: &Report) -> BTreeMap<String, (String, Option<String>)> {
    let text = |probe: &serde_json::Value, name: &str| probe[name].as_str().map(str::to_owned);
    let probes = report.at("/probes").as_array().expect("probes");
    let probes = probes.iter().map(|probe| {
        let kind = text(probe, "kind").expect("a kind");
        let address = text(probe, "address").expect("an address");
        (address, (kind, text(probe, "reason")))
    });
    probes.collect()
}

/// The same by `leaktap doctor`: `  NAME KIND (REASON) MODULE ADDRESS`.
fn foreseen(target: &Target) -> BTreeMap<String, (String, Option<String>)> {
    let finished = leaktap_with(["doctor", "-p", &target.pid().to_string()]).succeeded();
    let text = finished.stdout_text();
    let words = text.lines().map(|line| line.split_whitespace().collect());
    let probes = words.filter_map(|words: Vec<&str>| {
        let kind = words.iter().position(|word| KINDS.contains(word))?;
        let reason = words[kind + 1].strip_prefix('(').map(|reason| {
            let reason = reason.strip_suffix(')').expect("a reason");
            reason.to_owned()
        });
        let address = words.last()?.to_string();
        Some((address, (words[kind].to_owned(), reason)))
    });
    probes.collect()
}

const KINDS: [&str; 3] = ["detour", "breakpoint", "none"];

/// Attaches: the report is exact, and doctor has foretold how each function is watched.
fn attached(fixture: &Fixture, mut target: Target, engine: Engine) -> Report {
    let foreseen = foreseen(&target);
    let tracing = attach(engine, target.pid(), &[]);
    target.work();
    let traced = tracing.detach();
    exact(fixture, &traced, Mode::Attach);
    target.end().succeeded();
    let report = traced.report();
    if engine == Engine::Auto {
        assert_eq!(foreseen, told(report), "doctor, report");
    }
    report.clone()
}

/// Kilobytes that are locked (`VmLck`).
fn locked(target: &Target) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", target.pid()));
    let status = status.expect("it lives");
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let kilobytes = locked.and_then(|line| line.split_whitespace().next());
    kilobytes.expect("VmLck").parse().expect("a number")
}

/// The kind and the reason of `function`.
fn probe(report: &Report, function: &str) -> (String, Option<String>) {
    let probes = report.at("/probes").as_array().expect("probes");
    let probe = probes.iter().find(|probe| probe["function"] == function);
    let probe = probe.unwrap_or_else(|| panic!("{function} is not watched"));
    let text = |name: &str| probe[name].as_str().map(str::to_owned);
    (text("kind").expect("a kind"), text("reason"))
}

/// malloc and free are watched as the engine would have it.
fn has_detours(report: &Report, engine: Engine) {
    let kind = match engine {
        Engine::Auto => "detour",
        Engine::Breakpoint => "breakpoint",
    };
    for function in ["malloc", "free"] {
        assert_eq!(probe(report, function), (kind.to_owned(), None));
    }
}

engines! {
    fn the_room_below_the_stack_is_used(engine) {
        let fixture = Fixture::new("low_stack.c");
        has_detours(&attached(&fixture, fixture.start(), engine), engine);
    }
    /// No jump fits into one byte. The functions that it is no reason for have the same, since all
    /// that free a heap go one way.
    fn a_function_of_one_byte_is_too_short(engine) {
        let fixture = Fixture::new("short_free.c");
        let report = attached(&fixture, fixture.start(), engine);
        let reason = (engine == Engine::Auto).then(|| "TooShort".to_owned());
        assert_eq!(probe(&report, "free"), ("breakpoint".to_owned(), reason));
    }
    /// What is mapped is locked, but not what we map: 18 GiB would be filled.
    fn locked_memory_is_no_hindrance(engine) {
        let fixture = Fixture::new("locked.c");
        for what in ["page", "future", "all"] {
            let mut command = Command::new(fixture.program());
            let mut target = Target::start(command.arg(what));
            let before = locked(&target);
            let tracing = attach(engine, target.pid(), &[]);
            target.work();
            assert!(locked(&target) - before < 1 << 10, "{what}: kilobytes");
            let traced = tracing.detach();
            exact(&fixture, &traced, Mode::Attach);
            has_detours(traced.report(), engine);
            assert!(locked(&target) - before < 1 << 10, "{what}: kilobytes afterwards");
            target.end().succeeded();
        }
    }

    /// What is mapped counts as locked for a moment, and that is limited.
    fn a_process_that_may_lock_little_is_attached_to(engine) {
        let fixture = Fixture::new("locked.c");
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-ipc_lock"]);
        let mut target = Target::start(command.arg(fixture.program()).arg("future"));
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        exact(&fixture, &traced, Mode::Attach);
        let reason = (engine == Engine::Auto).then(|| "MemoryLocked".to_owned());
        let kind = "breakpoint".to_owned();
        assert_eq!(probe(traced.report(), "malloc"), (kind, reason));
        target.end().succeeded();
    }
    /// What looks like a jump into free is part of another instruction.
    fn bytes_that_look_like_a_jump_are_none(engine) {
        let (fixture, target) = preloaded("libarena.so");
        has_detours(&attached(&fixture, target, engine), engine);
    }

    /// Where a function ends, call frame information says, too.
    fn a_function_whose_symbol_has_no_size_gets_a_detour(engine) {
        let (fixture, target) = preloaded("libunsized.so");
        has_detours(&attached(&fixture, target, engine), engine);
    }

    fn a_jump_from_elsewhere_into_free_is_refused(engine) {
        let (fixture, target) = preloaded("libbranched.so");
        let report = attached(&fixture, target, engine);
        let reason = (engine == Engine::Auto).then(|| "JumpIntoRegion".to_owned());
        assert_eq!(probe(&report, "free"), ("breakpoint".to_owned(), reason));
    }

    /// And the rest is the C library's: two code regions, with one agent.
    fn an_allocator_far_from_the_c_library_has_detours(engine) {
        for flag in ["-pie", "-no-pie"] {
            let fixture = far_malloc(flag);
            let report = attached(&fixture, fixture.start(), engine);
            has_detours(&report, engine);
            assert_eq!(probe(&report, "reallocarray"), probe(&report, "malloc"));
        }
    }
    /// With threads in either region.
    fn all_regions_are_taken_out_again_and_again(engine) {
        for flag in ["-pie", "-no-pie"] {
            let mut target = far_malloc(flag).start_for(LONG);
            let before = Snapshot::of(target.pid());
            for cycle in 0..CYCLES {
                let duration = format!("{}ms", 1 + cycle % 7);
                let traced = attach(engine, target.pid(), &["--duration", &duration]).wait();
                let report = traced.succeeded();
                assert_eq!(report.total("lost_events"), 0, "{}", report.summary());
                let changes = before.changes(target.pid());
                if !changes.is_empty() {
                    traced.fail("the target is not what it was", &changes);
                }
            }
            target.work();
            target.end().succeeded();
        }
    }
}

/// Nothing unwinds past a function that no table describes, so it may be called: Chromium's
/// operators are such. With tables it might let an exception pass.
#[test]
fn operators_that_no_exception_passes_have_detours() {
    const WITHOUT_TABLES: [&str; 3] = [
        "-fno-exceptions",
        "-fno-asynchronous-unwind-tables",
        "-fno-unwind-tables",
    ];
    // Else they end with jumps to functions of their own.
    let calling = [&WITHOUT_TABLES[..], &["-fno-optimize-sibling-calls"]].concat();
    for (flags, kind) in [
        (Vec::new(), "breakpoint"),
        (WITHOUT_TABLES.to_vec(), "breakpoint"),
        (calling, "detour"),
    ] {
        let build = Build {
            compiler: None,
            flags: flags.into_iter().map(str::to_owned).collect(),
        };
        let fixture = Fixture::built("own_new.cpp", &build);
        let report = attached(&fixture, fixture.start(), Engine::Auto);
        let probes = report.at("/probes").as_array().expect("probes");
        let mut new = probes.iter().filter(|probe| probe["function"] == "_Znwm");
        assert!(
            new.all(|probe| probe["kind"] == kind),
            "{kind}: {}",
            report.at("/probes")
        );
    }
}

/// A program with another allocator.
fn preloaded(library: &str) -> (Fixture, Target) {
    let fixture = Fixture::new("preloaded.c");
    let library = fixture.program().with_file_name(library);
    let target = Target::start(Command::new(fixture.program()).env("LD_PRELOAD", library));
    (fixture, target)
}

/// It has noted all regions, and the next one takes them out.
#[test]
fn all_regions_of_a_killed_leaktap_are_taken_out_by_the_next() {
    for flag in ["-pie", "-no-pie"] {
        let mut target = far_malloc(flag).start_for(LONG);
        let before = Snapshot::of(target.pid());
        for _ in 0..CYCLES {
            kill_while_attached(&target);
            let traced = attach(Engine::Auto, target.pid(), &["--duration", "5ms"]).wait();
            traced.succeeded();
            let changes = before.changes(target.pid());
            if !changes.is_empty() {
                traced.fail("the target is not what it was", &changes);
            }
        }
        target.work();
        target.end().succeeded();
    }
}

/// A forked child has all regions, too, and nothing else of the agent: they pass everything on.
#[test]
fn children_live_on_after_a_killed_leaktap() {
    for flag in ["-pie", "-no-pie"] {
        let mut target = far_malloc(flag).start();
        kill_while_attached(&target);
        let finished = leaktap_with(["doctor", "-p", &target.pid().to_string()]);
        let said = finished.stdout_text();
        assert!(said.contains("killed"), "{}", finished.shown());
        target.work();
        target.end().succeeded();
    }
}

fn kill_while_attached(target: &Target) {
    let tracing = attach(Engine::Auto, target.pid(), &[]);
    tracing.process().signal(Signal::SIGKILL);
    tracing.wait();
}

const CYCLES: u64 = 20;
const LONG: Duration = Duration::from_secs(300);

fn far_malloc(flag: &str) -> Fixture {
    let build = Build {
        compiler: None,
        flags: vec![flag.to_owned()],
    };
    Fixture::built("far_malloc.c", &build)
}
