//! Targets that are in the middle of something when leaktap comes.

use std::fs::{self, File};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode as Permissions;
use nix::unistd::{Pid, mkfifo};

use crate::child::Watched;
use crate::compare::exact;
use crate::engines::engines;
use crate::fixture::{Fixture, Target};
use crate::leaktap::{attach, begin_to_attach, leaktap_with, run};
use crate::truth::Mode;

/// Longer than leaktap waits for a dynamic linker. A deadline, not a measure.
const BOUND: Duration = Duration::from_secs(20);

fn executes_all_the_time(mode: &str) -> Target {
    let fixture = Fixture::new("execs.c");
    let mut target = Target::start(Command::new(fixture.program()).arg(mode));
    target.begin();
    target
}

/// A program whose dynamic linker waits for somebody to write to a fifo.
struct Slow {
    process: Watched,
    fifo: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Slow {
    fn start() -> Slow {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let fifo = folder.path().join("fifo");
        mkfifo(&fifo, Permissions::S_IRWXU).expect("a fifo");
        let fixture = Fixture::new("portable.c");
        let mut command = Command::new(fixture.program());
        let process = Watched::spawn(command.env("LD_PRELOAD", &fifo));
        let slow = Slow {
            process,
            fifo,
            _folder: folder,
        };
        slow.until_it_waits();
        slow
    }

    fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// In its open(2): system call 257, openat(2).
    fn until_it_waits(&self) {
        let file = format!("/proc/{}/syscall", self.pid());
        let waits = || {
            let call = fs::read_to_string(&file).unwrap_or_default();
            let is_linking = fs::read_to_string(format!("/proc/{}/comm", self.pid()));
            call.starts_with("257 ") && is_linking.is_ok_and(|name| name == "portable\n")
        };
        let begun = Instant::now();
        while !waits() {
            assert!(begun.elapsed() < BOUND);
            std::thread::yield_now();
        }
    }

    fn let_go(&self) {
        drop(
            File::options()
                .write(true)
                .open(&self.fifo)
                .expect("a fifo"),
        );
    }
}

engines! {
    fn a_target_that_executes_all_the_time_is_attached_to(engine) {
        for mode in ["leader", "thread"] {
            let target = executes_all_the_time(mode);
            for _ in 0..10 {
                let options = ["--duration", "20ms"];
                begin_to_attach(engine, target.pid(), &options).wait().succeeded();
            }
            target.end().succeeded();
        }
    }

    fn a_target_that_starts_threads_all_the_time_is_attached_to(engine) {
        let mut target = Fixture::new("births.c").start();
        for _ in 0..10 {
            attach(engine, target.pid(), &["--duration", "20ms"]).wait().succeeded();
        }
        target.work();
        target.end().succeeded();
    }

    fn a_target_that_links_slowly_is_waited_for(engine) {
        let slow = Slow::start();
        let tracing = begin_to_attach(engine, slow.pid(), &[]);
        // Whatever it has looked at by then.
        let (_sender, receiver) = mpsc::channel::<()>();
        let _ = receiver.recv_timeout(Duration::from_millis(700));
        slow.let_go();
        let mut process = slow.process;
        process.stdout_line("ready");
        let line = tracing.process().stderr_line("leaktap: attached to ");
        assert!(line.is_some(), "{}", tracing.wait().finished.shown());
        process.send(b"\n");
        process.stdout_line("done");
        let traced = tracing.detach();
        exact(&Fixture::new("portable.c"), &traced, Mode::Attach);
        process.close_stdin();
        process.finish().succeeded();
    }

    fn a_target_whose_leader_has_ended_is_read_through_another_thread(engine) {
        let fixture = Fixture::new("leaderless.c");
        let mut target = fixture.start();
        for _ in 0..3 {
            attach(engine, target.pid(), &["--duration", "5ms"]).wait().succeeded();
        }
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        exact(&fixture, &traced, Mode::Attach);
        let program = &traced.report().at("/target")["program"];
        assert!(program.as_str().is_some_and(|path| path.ends_with("/leaderless")), "{program}");
        // Its end is seen, too, though nobody tells of the leader's.
        let tracing = attach(engine, target.pid(), &[]);
        let begun = Instant::now();
        target.end().succeeded();
        let traced = tracing.wait();
        assert_eq!(traced.succeeded().at("/target")["exit"], serde_json::json!({ "code": 0 }));
        assert!(begun.elapsed() < Duration::from_secs(4));
        exact(&fixture, &run(engine, &[fixture.program().as_ref(), "run".as_ref()]), Mode::Run);
    }
}

/// Within bounds, and by the true reason; nothing is changed in it.
#[test]
fn a_target_that_never_links_is_refused() {
    let slow = Slow::start();
    let pid = slow.pid().to_string();
    let begun = Instant::now();
    for arguments in [["attach", "-p", &pid], ["doctor", "-p", &pid]] {
        let finished = leaktap_with(arguments);
        let said = finished.stdout_text() + &finished.stderr_text();
        if finished.status.code() != Some(125) || !said.contains("has not mapped the libraries") {
            finished.fail("the dynamic linker is to be named");
        }
    }
    assert!(begun.elapsed() < BOUND);
    slow.let_go();
    slow.process.stdout_line("ready");
}

/// While leaktap waits for the target, too.
#[test]
fn a_signal_ends_the_wait_for_a_target() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let slow = Slow::start();
        let pid = slow.pid().to_string();
        let mut command = crate::leaktap::leaktap();
        let leaktap = Watched::spawn(command.args(["attach", "-p", &pid]));
        until_it_waits(&leaktap);
        let begun = Instant::now();
        leaktap.signal(signal);
        let finished = leaktap.finish();
        assert_eq!(finished.status.code(), Some(125), "{}", finished.shown());
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}

/// Its signal handlers are set by then: it handles SIGTERM, of proc_pid_status(5).
fn until_it_waits(leaktap: &Watched) {
    const SIGTERM: u64 = 1 << (Signal::SIGTERM as i32 - 1);
    let file = format!("/proc/{}/status", leaktap.pid());
    let handles = || {
        let status = fs::read_to_string(&file).unwrap_or_default();
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:\t"));
        caught.is_some_and(|set| u64::from_str_radix(set, 16).is_ok_and(|set| set & SIGTERM != 0))
    };
    let begun = Instant::now();
    while !handles() {
        assert!(begun.elapsed() < BOUND);
        std::thread::yield_now();
    }
}

/// The numbers of another pid namespace's /proc are those of strangers.
#[test]
fn a_foreign_proc_is_refused() {
    let leaktap = env!("CARGO_BIN_EXE_leaktap");
    for arguments in [
        &["run", "--", "true"][..],
        &["attach", "-p", "1"],
        &["doctor", "-p", "1"],
    ] {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--pid", "--fork", leaktap]);
        let finished = Watched::spawn(command.args(arguments)).finish();
        let said = finished.stderr_text();
        if finished.status.code() != Some(125) || !said.contains("/proc is not that of") {
            finished.fail("the foreign /proc is to be named");
        }
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
