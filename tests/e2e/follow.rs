//! `--follow-forks`: children are traced from their first instruction on, each for itself.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::Command;

use nix::unistd::Pid;

use crate::child::Watched;
use crate::clean::left_behind;
use crate::engines::engines;
use crate::fixture::Fixture;
use crate::leaktap::{attach, begin_to_attach, leaktap, run_all};
use crate::report::Report;

/// The blocks that `leaks` of a fixture has left in each process, smallest first. Each process has
/// lost nothing, ended with 0, and a parent that is here, too, but for the first.
fn left(reports: &[Report]) -> Vec<u64> {
    let pids: Vec<_> = reports
        .iter()
        .map(|report| report.at("/target/pid"))
        .collect();
    for (number, report) in reports.iter().enumerate() {
        let parent = report.at("/target/parent");
        match number {
            0 => assert!(parent.is_null(), "{}", report.summary()),
            _ => assert!(pids.contains(&parent), "{}", report.summary()),
        }
        assert_eq!(report.total("lost_events"), 0, "{}", report.summary());
        assert_eq!(report.at("/target/exit/code"), 0, "{}", report.summary());
    }
    let mut left: Vec<_> = reports
        .iter()
        .map(|report| report.blocks_of("leaks"))
        .collect();
    left.sort_unstable();
    left
}

fn words(fixture: &Fixture) -> [&OsStr; 2] {
    [fixture.program().as_ref(), "run".as_ref()]
}

/// Each child that a report lists is traced, and has a report.
fn are_listed(reports: &[Report]) {
    let mut listed = BTreeMap::new();
    for report in reports {
        let children = report.at("/children").as_array().expect("a list").iter();
        listed.extend(children.map(|child| (child["pid"].as_i64(), child["traced"].as_bool())));
    }
    assert_eq!(listed.len() + 1, reports.len(), "{listed:?}");
    assert!(
        listed.values().all(|traced| *traced == Some(true)),
        "{listed:?}"
    );
}

engines! {
    fn children_of_every_kind_have_reports_of_their_own(engine) {
        let fixture = Fixture::new("family.c");
        let reports = run_all(engine, &["-f"], &words(&fixture));
        assert_eq!(left(&reports), [11, 12, 12, 13, 13, 14, 15, 16]);
        are_listed(&reports);
        // Of its parent's: each of both children of fork(2) has freed it, and its own children not.
        let freed_inherited = |report: &&Report| report.total("unmatched_frees") == 1;
        assert_eq!(reports.iter().filter(freed_inherited).count(), 2);
    }

    fn sixty_children_at_once_are_told_apart(engine) {
        let fixture = Fixture::new("family_storm.c");
        let reports = run_all(engine, &["-f"], &words(&fixture));
        let expected = [0].into_iter().chain(100..130).chain(200..230);
        assert_eq!(left(&reports), expected.collect::<Vec<_>>());
        are_listed(&reports);
    }

    fn children_that_come_after_the_attach_are_traced(engine) {
        let fixture = Fixture::new("family.c");
        let mut target = fixture.start();
        let tracing = attach(engine, target.pid(), &["-f"]);
        target.work();
        target.end().succeeded();
        let reports = tracing.wait_for_all();
        assert_eq!(left(&reports), [11, 12, 12, 13, 13, 14, 15, 16]);
        are_listed(&reports);
    }

    /// A shell, which waits for what it has started.
    fn children_that_there_are_at_the_attach_are_traced(engine) {
        let fixture = Fixture::new("family.c");
        let script = format!("{}; true", fixture.program().display());
        let mut shell = Watched::spawn(Command::new("sh").args(["-c", &script]));
        shell.stdout_line("ready");
        let tracing = begin_to_attach(engine, shell.pid(), &["-f"]);
        for _ in 0..2 {
            assert!(tracing.process().stderr_line("leaktap: attached to ").is_some());
        }
        shell.close_stdin();
        shell.finish().succeeded();
        let reports = tracing.wait_for_all();
        assert_eq!(left(&reports), [0, 11, 12, 12, 13, 13, 14, 15, 16]);
        are_listed(&reports);
    }

    /// The shell ends at once; what it has left behind has a session of its own, and leaks then.
    fn what_outlives_the_program_is_traced_to_its_end_if_asked_for(engine) {
        let fixture = Fixture::new("family.c");
        let program = fixture.program().display();
        let script = format!("setsid sh -c '{program} leak 17; {program} leak 18' <&- >&- 2>&- &");
        let words = ["sh".as_ref(), "-c".as_ref(), OsStr::new(&script)];
        let reports = run_all(engine, &["-f", "--wait-all"], &words);
        let left: Vec<_> = reports.iter().map(|report| report.blocks_of("leaks")).collect();
        assert!(left.contains(&17) && left.contains(&18), "{left:?}");
    }

    fn a_leak_of_a_child_counts(engine) {
        let fixture = Fixture::new("family.c");
        let cases = [(&["-f"][..], "5", 9), (&["-f"], "0", 0), (&[], "5", 0)];
        for (options, blocks, status) in cases {
            let mut command = leaktap();
            command.args(["run", "--error-exitcode", "9", "--engine", &engine.to_string()]);
            command.args(options).arg("--").arg(fixture.program()).args(["spawn", blocks]);
            let finished = Watched::spawn(&mut command).finish();
            if finished.status.code() != Some(status) {
                finished.fail(format_args!("{options:?} {blocks}: exit status {status} expected"));
            }
        }
    }

    /// All three allocate all the time, and are what they were afterwards.
    fn busy_children_are_let_go_with_their_parent(engine) {
        let mut target = Fixture::new("busy_children.c").start();
        for round in 0..6 {
            let duration = format!("{}ms", 20 + 30 * round);
            let tracing = attach(engine, target.pid(), &["-f", "--duration", &duration]);
            let reports = tracing.wait_for_all();
            assert_eq!(reports.len(), 3);
            for report in reports {
                assert_eq!(report.total("lost_events"), 0, "{}", report.summary());
                assert!(report.total("live_blocks") <= 1, "{}", report.summary());
                let pid = report.at("/target/pid").as_i64().expect("a process");
                let left = left_behind(Pid::from_raw(pid as i32));
                assert!(left.is_empty(), "{left:?}: {}", report.summary());
            }
        }
        target.work();
        target.end().succeeded();
    }

    fn several_processes_are_attached_to_at_once(engine) {
        let fixture = Fixture::new("busy.c");
        let mut targets = [fixture.start(), fixture.start()];
        let pids = targets.each_ref().map(|target| target.pid());
        for duration in ["30ms", "150ms"] {
            let first = pids[0].to_string();
            let more = ["--duration", duration, "-p", &first];
            let reports = begin_to_attach(engine, pids[1], &more).wait_for_all();
            let of = |report: &Report| report.at("/target/pid").as_i64();
            let expected = pids.map(|pid| Some(i64::from(pid.as_raw())));
            assert_eq!(reports.iter().map(of).collect::<Vec<_>>(), expected);
            for (report, pid) in reports.iter().zip(pids) {
                assert_eq!(report.total("lost_events"), 0, "{}", report.summary());
                let left = left_behind(pid);
                assert!(left.is_empty(), "{left:?}: {}", report.summary());
            }
        }
        for target in &mut targets {
            target.work();
        }
        targets.into_iter().for_each(|target| drop(target.end().succeeded()));
    }
}
