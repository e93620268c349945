//! Reports while the trace goes on, and what is left out of them.

use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::child::Watched;
use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::leaktap;
use crate::report::Report;

/// Attaches; reports go to `r1`, `r2` and so on in `folder`.
fn attach(engine: Engine, pid: Pid, more: &[&str], folder: &Path) -> Watched {
    let mut command = leaktap();
    command
        .args([
            "attach",
            "-p",
            &pid.to_string(),
            "--engine",
            &engine.to_string(),
        ])
        .args(["--max-overhead", "100", "-F", "json", "--report-file"])
        .arg(folder.join("r%i"))
        .args(more);
    let attached = Watched::spawn(&mut command);
    attached.stderr_line("leaktap: attached to ");
    attached
}

/// The report of that number, which leaktap has written.
fn report(leaktap: &Watched, folder: &Path, number: u32) -> Report {
    let path = folder.join(format!("r{number}"));
    leaktap.stderr_line(&format!("leaktap: wrote {}", path.display()));
    Report::read(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn left(report: &Report) -> [u64; 2] {
    [report.blocks_of("first"), report.blocks_of("second")]
}

/// One that leaks its first three blocks.
fn half() -> (Fixture, Target) {
    let fixture = Fixture::new("phases.c");
    let target = fixture.start();
    (fixture, target)
}

engines! {
    fn a_signal_asks_for_a_report_and_another_begins_again(engine) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (_fixture, mut target) = half();
        let leaktap = attach(engine, target.pid(), &[], folder.path());
        target.begin();
        target.process().stdout_line("half");
        leaktap.signal(Signal::SIGUSR1);
        let now = report(&leaktap, folder.path(), 1);
        assert_eq!(left(&now), [3, 0]);
        assert_eq!(now.at("/target/detached"), true);
        leaktap.signal(Signal::SIGUSR2);
        leaktap.stderr_line("leaktap: what is there now will not be listed");
        target.work();
        leaktap.signal(Signal::SIGUSR1);
        assert_eq!(left(&report(&leaktap, folder.path(), 2)), [0, 5]);
        target.end().succeeded();
        let end = report(&leaktap, folder.path(), 3);
        assert_eq!(left(&end), [0, 5]);
        assert_eq!((end.total("live_blocks"), end.total("frees")), (7, 1));
        let note = "not listed, as asked for, for when they were made: 2 blocks";
        assert!(end.notes().iter().any(|text| text == note), "{:?}", end.notes());
        leaktap.finish().succeeded();
    }

    fn reports_come_again_and_again(engine) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (_fixture, mut target) = half();
        let leaktap = attach(engine, target.pid(), &["--every", "50ms"], folder.path());
        target.begin();
        target.process().stdout_line("half");
        let first = report(&leaktap, folder.path(), 1);
        let later = report(&leaktap, folder.path(), 4);
        let duration = |report: &Report| report.at("/duration").as_f64();
        assert!(duration(&first) < duration(&later));
        assert_eq!(left(&later), [3, 0]);
        target.work();
        target.end().succeeded();
        leaktap.finish().succeeded();
    }

    /// The busy program goes on to allocate.
    fn what_comes_after_the_duration_is_not_listed(engine) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut target = Fixture::new("courses.c").start();
        let drain = ["--duration", "300ms", "--drain", "300ms"];
        let leaktap = attach(engine, target.pid(), &drain, folder.path());
        target.begin();
        let end = report(&leaktap, folder.path(), 1);
        leaktap.finish().succeeded();
        let sites = end.at("/sites").as_array().expect("a list");
        let youngest = sites.iter().filter_map(|site| site["youngest"].as_f64());
        let youngest = youngest.reduce(f64::min).expect("a site");
        assert!(youngest >= 0.29, "{youngest}: {}", end.summary());
        target.close();
    }
}
