//! The target never notices: cycles of attach and detach, and deaths of either side, at random
//! moments.

use std::fs;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::child::Watched;
use crate::clean::{Snapshot, left_behind};
use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{Traced, Tracing, attach, begin_to_attach, begin_to_run, leaktap_with};
use crate::report::Report;

/// How often the target is attached to: what the time of the whole suite allows. `tests/campaign`
/// goes on.
fn cycles(engine: Engine) -> u64 {
    match engine {
        Engine::Breakpoint => 200,
        Engine::Auto => 500,
    }
}
/// A deadline, not a measure.
const ALL_CYCLES: Duration = Duration::from_secs(1200);
const DEATHS: u64 = 40;
const BLOCKS_OF_DEPARTS: u64 = 300_000;

/// What `fixtures/busy.c` holds at any moment: 8 threads, 16 blocks each.
const HELD: u64 = 8 * 16;
const SIZE: u64 = 160;

/// Reproducible, and different for each cycle: milliseconds below `limit`.
fn moment(cycle: u64, limit: u64) -> Duration {
    let mixed = cycle.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    Duration::from_micros(mixed % (limit * 1000))
}

/// Lets the processes run on for so long: the moment is what these tests vary, nothing is awaited
/// by it.
fn let_run(time: Duration) {
    let (_sender, receiver) = mpsc::channel::<()>();
    let _ = receiver.recv_timeout(time);
}

/// Nothing but whole blocks of the one site, no more than the program holds, and sums that add up.
fn is_of_busy(traced: &Traced, report: &Report) {
    let total = |name| report.total(name);
    let matched = total("frees") - total("unmatched_frees");
    let mut wrong = Vec::new();
    let mut expect = |what: &str, holds: bool| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    expect(
        "allocations - matched frees = live blocks",
        total("allocations") == matched + total("live_blocks"),
    );
    expect(
        "whole blocks",
        total("live_bytes") == total("live_blocks") * SIZE,
    );
    expect(
        "no more live blocks than are held",
        total("live_blocks") <= HELD,
    );
    expect(
        "no more unmatched frees than were held",
        total("unmatched_frees") <= HELD,
    );
    expect("nothing lost", total("lost_events") == 0);
    let site_lines: Vec<u64> = report
        .sites()
        .iter()
        .filter(|s| s.source == "heap")
        .map(|s| s.frames[0].line)
        .collect();
    expect("one call site", site_lines.iter().all(|line| *line == 18));
    if !wrong.is_empty() {
        traced.fail("the books of busy.c", &wrong);
    }
}

/// Waits for the end of leaktap, which has been told to end.
fn ends_without_a_trace(tracing: Tracing, target: &Target) {
    let traced = tracing.wait();
    let left = left_behind(target.pid());
    if !left.is_empty() {
        traced.fail("left behind", &left);
    }
}

engines! {
    fn many_attaches_to_eight_threads_that_allocate(engine) {
        let mut target = Fixture::new("busy.c").start_for(ALL_CYCLES);
        let before = Snapshot::of(target.pid());
        for cycle in 0..cycles(engine) {
            let duration = format!("{}ms", 1 + moment(cycle, 40).as_millis());
            let traced = attach(engine, target.pid(), &["--duration", &duration]).wait();
            is_of_busy(&traced, traced.succeeded());
            let changes = before.changes(target.pid());
            if !changes.is_empty() {
                traced.fail(
                    &format!("cycle {cycle}: the target is not what it was"),
                    &changes,
                );
            }
        }
        target.work();
        target.end().succeeded();
    }

    /// Whatever we have put into a library goes with it, at a moment of which the dynamic linker
    /// tells too late.
    fn a_library_may_be_unloaded_while_we_attach_and_detach(engine) {
        let mut target = Fixture::new("reload.c").start_for(ALL_CYCLES);
        let mut allocations = 0;
        for cycle in 0..50 {
            let duration = format!("{}ms", 1 + moment(cycle, 20).as_millis());
            let traced = attach(engine, target.pid(), &["--duration", &duration]).wait();
            let report = traced.succeeded();
            allocations += report.total("allocations");
            assert_eq!(report.total("lost_events"), 0, "{}", report.summary());
            let kind = &report.at("/probes/0")["kind"];
            assert!(
                engine == Engine::Breakpoint || kind == "detour",
                "{}",
                report.summary()
            );
            // The library itself may be half gone.
            let mut left = left_behind(target.pid());
            left.retain(|what| !what.contains("libplugin"));
            if !left.is_empty() {
                traced.fail("something is left", &left);
            }
        }
        assert!(allocations > 0);
        target.work();
        target.end().succeeded();
    }

    /// What was read of it before may be another program's: the shell's, here.
    fn a_process_that_has_just_executed_a_program_is_read_afresh(engine) {
        let fixture = Fixture::new("recursion.c");
        for _ in 0..20 {
            let mut shell = Command::new("sh");
            let script = ["-c", "exec \"$0\" wait"];
            let mut target = Watched::spawn(shell.args(script).arg(fixture.program()));
            let traced = begin_to_attach(engine, target.pid(), &["--duration", "20ms"]).wait();
            target.stdout_line("ready");
            target.send(b"\n");
            target.stdout_line("done");
            target.close_stdin();
            target.finish().succeeded();
            // It may have come too early: before there was an allocator.
            if traced.has_report() {
                let probes = traced
                    .report()
                    .at("/probes")
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let unprobed = probes.iter().find(|probe| probe["kind"] == "none");
                assert_eq!(unprobed, None, "{}", traced.report().summary());
            }
        }
    }

    /// The thread that unmaps the agent's memory for us, part by part, may end between two parts.
    fn nothing_is_left_where_threads_end_while_we_detach(engine) {
        const BLOCKS: u64 = 400_000;
        for _ in 0..5 {
            let mut target = Fixture::new("many_blocks.c").start();
            let tracing = attach(engine, target.pid(), &[]);
            if engine == Engine::Auto {
                target.work();
            }
            let traced = tracing.detach();
            let report = traced.succeeded();
            assert!(
                engine == Engine::Breakpoint || report.total("live_blocks") >= BLOCKS,
                "{}",
                report.summary()
            );
            let left = left_behind(target.pid());
            if !left.is_empty() {
                traced.fail("something is left", &left);
            }
        }
    }

    fn a_target_killed_while_attached_is_reported(engine) {
        for death in 0..DEATHS {
            let target = Fixture::new("busy.c").start();
            let tracing = attach(engine, target.pid(), &[]);
            let_run(moment(death, 30));
            target.process().signal(Signal::SIGKILL);
            let traced = tracing.wait();
            let report = traced.succeeded();
            assert_eq!(
                report.at("/target/exit"),
                &json!({"signal": 9}),
                "{}",
                report.summary()
            );
            assert!(report.total("live_blocks") <= HELD, "{}", report.summary());
        }
    }

    /// Either it was attached by then, and reports, or it says in one line that there is no such
    /// process.
    fn a_target_killed_while_leaktap_attaches_is_no_crash(engine) {
        for death in 0..DEATHS {
            let target = Fixture::new("busy.c").start();
            let tracing = begin_to_attach(engine, target.pid(), &[]);
            let_run(moment(death, 60));
            target.process().signal(Signal::SIGKILL);
            target.end();
            let traced = tracing.wait();
            match traced.finished.status.code() {
                Some(0) => assert!(traced.has_report(), "{}", traced.finished.shown()),
                Some(125) => assert_eq!(
                    traced.finished.stderr_text().lines().count(),
                    1,
                    "{}",
                    traced.finished.shown()
                ),
                _ => traced.fail("a report, or one line", &[]),
            }
        }
    }

    fn an_impatient_user_leaves_a_clean_target(engine) {
        let mut target = Fixture::new("busy.c").start();
        for cycle in 0..20 {
            let tracing = attach(engine, target.pid(), &[]);
            tracing.process().signal(Signal::SIGINT);
            let_run(moment(cycle, 3));
            tracing.process().signal(Signal::SIGINT);
            tracing.process().signal(Signal::SIGTERM);
            ends_without_a_trace(tracing, &target);
        }
        target.work();
        target.end().succeeded();
    }

    /// Ctrl-C, or the like, while it still attaches: whatever it had done by then is undone.
    fn a_user_who_changes_his_mind_leaves_a_clean_target(engine) {
        let mut target = Fixture::new("busy.c").start();
        for cycle in 0..20 {
            let tracing = begin_to_attach(engine, target.pid(), &[]);
            let_run(moment(cycle, 60));
            let signals = [
                Signal::SIGINT,
                Signal::SIGQUIT,
                Signal::SIGTERM,
                Signal::SIGHUP,
            ];
            tracing
                .process()
                .signal(signals[cycle as usize % signals.len()]);
            ends_without_a_trace(tracing, &target);
        }
        target.work();
        target.end().succeeded();
    }

    /// A launched program must not live on with probes that nobody serves (docs/ptrace.md, failure
    /// modes).
    fn a_launched_program_ends_with_a_killed_leaktap(engine) {
        let busy = Fixture::new("busy.c");
        let tracing = begin_to_run(engine, &[busy.program().as_os_str()]);
        tracing.process().stdout_line("ready");
        let pid = tracing.process().pid();
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
        let program = children.trim().to_owned();
        assert!(!program.is_empty());
        tracing.process().signal(Signal::SIGKILL);
        tracing.process().stdout_end();
        // Its descriptors are closed by now; that it is over follows at once.
        let state = || fs::read_to_string(format!("/proc/{program}/stat")).unwrap_or_default();
        let is_over = || state().is_empty() || state().contains(") Z ") || state().contains(") X ");
        let begun = Instant::now();
        while !is_over() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", state());
            std::thread::yield_now();
        }
    }
}

/// With detours a target needs nobody: it runs on, and the next leaktap takes out what the killed
/// one has left.
#[test]
fn a_target_survives_a_killed_leaktap_and_the_next_one_cleans_up() {
    let mut target = Fixture::new("busy.c").start_for(ALL_CYCLES);
    // Until each thread has allocated, and so has its arena.
    while attach(Engine::Auto, target.pid(), &["--duration", "50ms"])
        .wait()
        .succeeded()
        .total("unmatched_frees")
        < HELD
    {}
    let before = Snapshot::of(target.pid());
    for death in 0..DEATHS {
        let tracing = attach(Engine::Auto, target.pid(), &[]);
        let_run(moment(death, 20));
        tracing.process().signal(Signal::SIGKILL);
        tracing.wait();
        let pid = target.pid().to_string();
        let doctor = leaktap_with(["doctor", "-p", &pid]);
        assert!(
            doctor.stdout_text().contains("killed"),
            "{}",
            doctor.shown()
        );
        let traced = attach(Engine::Auto, target.pid(), &["--duration", "5ms"]).wait();
        is_of_busy(&traced, traced.succeeded());
        let changes = before.changes(target.pid());
        if !changes.is_empty() {
            traced.fail("the target is not what it was", &changes);
        }
    }
    target.work();
    target.end().succeeded();
}

/// What the C library maps and unmaps for itself runs into no int3 that a killed leaktap could
/// leave.
#[test]
fn a_target_whose_heap_comes_and_goes_survives_a_killed_leaktap() {
    survives_deaths("heaps.c", 0);
}

/// Nor does it for the stacks of threads, of which the agent has to know.
#[test]
fn a_target_whose_threads_come_and_go_survives_a_killed_leaktap() {
    survives_deaths("stacks.c", 0);
}

/// Nor where it maps and unmaps memory by itself, as coroutines do.
#[test]
fn a_target_that_maps_by_itself_survives_a_killed_leaktap() {
    survives_deaths("own_maps_busy.c", 2);
}

/// Nor where libraries come and go, of which the dynamic linker tells.
#[test]
fn a_target_that_loads_libraries_survives_a_killed_leaktap() {
    survives_deaths("reload.c", 0);
}

/// Nor where it makes code writable, and sets handlers and masks of signals.
#[test]
fn a_target_that_changes_its_code_and_signals_survives_a_killed_leaktap() {
    survives_deaths("own_code_busy.c", 0);
}

/// Nor where a thread gets signals in the agent's code that nobody handles: it is not stepped out.
#[test]
fn a_target_whose_children_end_survives_a_killed_leaktap() {
    survives_deaths("children_end.c", 0);
}

/// Nor where it executes itself all the time: nothing traps while it is linked.
#[test]
fn a_target_that_executes_itself_survives_a_killed_leaktap() {
    let mut target = Fixture::new("execs.c").start_for(ALL_CYCLES);
    target.begin();
    for death in 0..DEATHS {
        let tracing = attach(Engine::Auto, target.pid(), &[]);
        let_run(moment(death, 20));
        tracing.process().signal(Signal::SIGKILL);
        tracing.wait();
    }
    attach(Engine::Auto, target.pid(), &["--duration", "100ms"])
        .wait()
        .succeeded();
    target.end().succeeded();
}

/// A fixture that has mapped, at any moment, so many regions at most.
fn survives_deaths(fixture: &str, held: u64) {
    let mut target = Fixture::new(fixture).start_for(ALL_CYCLES);
    for death in 0..DEATHS {
        let tracing = attach(Engine::Auto, target.pid(), &[]);
        let_run(moment(death, 20));
        tracing.process().signal(Signal::SIGKILL);
        tracing.wait();
    }
    let traced = attach(Engine::Auto, target.pid(), &["--duration", "500ms"]).wait();
    let report = traced.succeeded();
    assert!(report.total("allocations") > 0, "{}", report.summary());
    let regions = report.total("mapped_regions");
    assert!(regions <= held, "{}", report.summary());
    target.work();
    target.end().succeeded();
}

/// It shares the books with its target, and is no target for that.
#[test]
fn a_leaktap_at_work_is_a_program_like_any_other() {
    let mut target = Fixture::new("busy.c").start_for(ALL_CYCLES);
    let tracing = attach(Engine::Auto, target.pid(), &[]);
    let own = tracing.process().pid();
    for engine in [Engine::Auto, Engine::Breakpoint] {
        let traced = attach(engine, own, &["--duration", "50ms"]).wait();
        traced.succeeded();
    }
    let traced = tracing.detach();
    is_of_busy(&traced, traced.succeeded());
    target.work();
    target.end().succeeded();
}

/// The thread that is to unmap what is left may be gone when it comes to that, and the kernel says
/// nothing of a leader.
#[test]
fn nothing_is_left_where_the_first_thread_ends_while_we_detach() {
    for _ in 0..10 {
        let mut target = Fixture::new("departs.c").start();
        let tracing = attach(Engine::Auto, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        let live = traced.succeeded().total("live_blocks");
        // And what the C library keeps for a thread.
        let expected = BLOCKS_OF_DEPARTS..BLOCKS_OF_DEPARTS + 9;
        assert!(expected.contains(&live), "{live}");
        // The leader shows no mappings any more.
        let tasks = fs::read_dir(format!("/proc/{}/task", target.pid())).unwrap();
        for task in tasks {
            let maps = fs::read_to_string(task.unwrap().path().join("maps")).unwrap_or_default();
            assert!(!maps.contains("memfd:"), "{maps}");
        }
        target.end().succeeded();
    }
}

/// Breakpoints that a killed leaktap has left are taken out by a process that stands by for that.
#[test]
fn a_killed_leaktap_leaves_no_breakpoints() {
    for death in 0..10 {
        let mut target = Fixture::new("mappings.c").start();
        let tracing = attach(Engine::Auto, target.pid(), &[]);
        let_run(moment(death, 20));
        tracing.process().signal(Signal::SIGKILL);
        tracing.wait();
        let traced = attach(Engine::Auto, target.pid(), &[]);
        target.work();
        traced.detach().succeeded();
        target.end().succeeded();
    }
}

/// Nothing of this holds for a target that stands still: it is the same in every mapping.
#[test]
fn an_idle_target_is_the_same_in_every_mapping() {
    for engine in [Engine::Breakpoint, Engine::Auto] {
        let target = Fixture::new("allocators.c").start();
        let before = Snapshot::of(target.pid());
        let traced = attach(engine, target.pid(), &["--duration", "10ms"]).wait();
        traced.succeeded();
        let changes = before.changes_of_idle(target.pid());
        if !changes.is_empty() {
            traced.fail("the target is not what it was", &changes);
        }
    }
}
