//! Targets that stop for a tracer, but do not run for one: the cgroup freezer holds them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::{attach, attach_by, leaktap_with};

/// Of an end that leaktap is told of. A deadline, not a measure.
const BOUND: Duration = Duration::from_secs(20);

/// How a hierarchy freezes a group: the mount's type and option, and what is to be written where.
struct Freezer {
    kind: &'static str,
    option: &'static str,
    switch: &'static str,
    frozen: &'static str,
    thawed: &'static str,
}

const VERSION_1: Freezer = Freezer {
    kind: "cgroup",
    option: "freezer",
    switch: "freezer.state",
    frozen: "FROZEN",
    thawed: "THAWED",
};

const VERSION_2: Freezer = Freezer {
    kind: "cgroup2",
    option: "rw",
    switch: "cgroup.freeze",
    frozen: "1",
    thawed: "0",
};

/// A group of its own; gone, and thawed, when it is dropped.
struct Group<'a> {
    freezer: &'a Freezer,
    folder: PathBuf,
    pid: Pid,
}

impl Freezer {
    /// Puts `pid` into a group of its own, if there is such a hierarchy here, and we may.
    fn hold(&self, pid: Pid) -> Option<Group<'_>> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
        let is_it = |line: &&str| {
            let fields: Vec<_> = line.split(' ').collect();
            fields[2] == self.kind && fields[3].split(',').any(|option| option == self.option)
        };
        let mount = mounts.lines().find(is_it)?.split(' ').nth(1)?;
        let folder = Path::new(mount).join(format!("leaktap-test-{pid}"));
        fs::create_dir(&folder).ok()?;
        let group = Group {
            freezer: self,
            folder,
            pid,
        };
        fs::write(group.folder.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(group)
    }
}

impl Group<'_> {
    fn freeze(&self) {
        self.set(self.freezer.frozen);
    }

    fn thaw(&self) {
        self.set(self.freezer.thawed);
    }

    fn set(&self, what: &str) {
        fs::write(self.folder.join(self.freezer.switch), what).expect("a group of ours");
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.thaw();
        let above = self.folder.with_file_name("cgroup.procs");
        let _ = fs::write(above, self.pid.to_string()); // it has ended
        let _ = fs::remove_dir(&self.folder); // not before it has been reaped
    }
}

/// Each freezer that there is, with a target of its own.
fn with_each(test: impl Fn(&Fixture, &Freezer)) {
    for freezer in [VERSION_1, VERSION_2] {
        test(&Fixture::new("threads.c"), &freezer);
    }
}

fn none_here(freezer: &Freezer) {
    eprintln!("SKIPPED: no {} freezer that we may use", freezer.kind);
}

#[test]
fn a_frozen_target_is_refused() {
    with_each(|fixture, freezer| {
        let mut target = fixture.start();
        let Some(group) = freezer.hold(target.pid()) else {
            return none_here(freezer);
        };
        group.freeze();
        let pid = target.pid().to_string();
        let begun = Instant::now();
        let finished = leaktap_with(["attach", "-p", &pid]);
        let said = finished.stderr_text();
        if finished.status.code() != Some(125) || !said.contains("is frozen: thaw it first") {
            finished.fail("the freezer is to be named");
        }
        let doctor = leaktap_with(["doctor", "-p", &pid]);
        assert!(
            doctor.stdout_text().contains("is frozen"),
            "{}",
            doctor.shown()
        );
        assert!(begun.elapsed() < BOUND);
        group.thaw();
        target.work();
        target.end().succeeded();
    });
}

engines! {
    /// And there is nothing to be done in it: leaktap ends when it is told to.
    fn a_target_that_is_frozen_meanwhile_is_let_go(engine) {
        with_each(|fixture, freezer| {
            for signal in [Signal::SIGTERM, Signal::SIGINT] {
                let mut target = fixture.start();
                let Some(group) = freezer.hold(target.pid()) else {
                    return none_here(freezer);
                };
                let tracing = attach(engine, target.pid(), &[]);
                group.freeze();
                let begun = Instant::now();
                tracing.process().signal(signal);
                tracing.wait().succeeded();
                assert!(begun.elapsed() < BOUND);
                group.thaw();
                target.work();
                target.end().succeeded();
            }
        });
    }

    /// In a container, say. A thread that is to make a system call for us does not get to it, and
    /// is put back.
    fn a_freezer_that_leaktap_cannot_see_is_found_out(engine) {
        let mut target = Fixture::new("threads.c").start();
        let Some(group) = VERSION_2.hold(target.pid()) else {
            return none_here(&VERSION_2);
        };
        group.freeze();
        let hide = "umount -l -a -t cgroup2 && exec \"$@\"";
        let by = ["unshare", "--mount", "sh", "-c", hide, "sh"];
        let begun = Instant::now();
        let traced = attach_by(&by, engine, target.pid()).detach();
        let report = traced.succeeded();
        assert!(begun.elapsed() < BOUND);
        assert!(engine == Engine::Breakpoint || report.at("/probes/0")["kind"] == "breakpoint");
        group.thaw();
        target.work();
        target.end().succeeded();
    }
}
