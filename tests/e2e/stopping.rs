//! Job control: a traced process stops and goes on as an untraced one, and its parent is told.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::clean::left_behind;
use crate::engines::engines;
use crate::fixture::Fixture;
use crate::leaktap::attach;

/// Waits, as its parent, until `pid` has stopped.
fn stopped(pid: Pid) {
    let status = waitid(Id::Pid(pid), WaitPidFlag::WSTOPPED).expect("a child");
    assert!(
        matches!(
            status,
            WaitStatus::Stopped(_, Signal::SIGSTOP | Signal::SIGTSTP)
        ),
        "{status:?}"
    );
}

fn continued(pid: Pid) {
    let status = waitid(Id::Pid(pid), WaitPidFlag::WCONTINUED).expect("a child");
    assert!(matches!(status, WaitStatus::Continued(_)), "{status:?}");
}

fn state(pid: Pid) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("alive");
    status
        .lines()
        .find_map(|line| line.strip_prefix("State:\t"))
        .expect("a state")
        .to_owned()
}

engines! {
    fn a_traced_process_stops_and_goes_on(engine) {
        for signal in [Signal::SIGSTOP, Signal::SIGTSTP] {
            let mut target = Fixture::new("threads.c").start();
            let pid = target.pid();
            let tracing = attach(engine, pid, &[]);
            kill(pid, signal).expect("alive");
            stopped(pid);
            kill(pid, Signal::SIGCONT).expect("alive");
            continued(pid);
            target.work();
            tracing.detach().succeeded();
            target.end().succeeded();
        }
    }

    /// A leaktap that is stopped would hold its target.
    fn a_leaktap_that_is_to_stop_detaches(engine) {
        for (signal, text) in [(Signal::SIGTSTP, ""), (Signal::SIGSTOP, "leaktap was stopped")] {
            let mut target = Fixture::new("threads.c").start();
            let tracing = attach(engine, target.pid(), &[]);
            tracing.process().signal(signal);
            let traced = tracing.wait();
            let notes = traced.succeeded().notes().join("\n");
            assert!(notes.contains(text), "{notes}");
            target.work();
            target.end().succeeded();
        }
    }

    /// SIGCONT alone says nothing to a leaktap that runs.
    fn a_leaktap_that_is_continued_goes_on(engine) {
        let mut target = Fixture::new("threads.c").start();
        let tracing = attach(engine, target.pid(), &[]);
        tracing.process().signal(Signal::SIGCONT);
        target.work();
        let traced = tracing.detach();
        assert!(traced.succeeded().total("allocations") > 0);
        target.end().succeeded();
    }

    fn a_busy_process_stops_and_goes_on(engine) {
        let mut target = Fixture::new("busy.c").start();
        let pid = target.pid();
        let tracing = attach(engine, pid, &[]);
        for _ in 0..10 {
            kill(pid, Signal::SIGSTOP).expect("alive");
            stopped(pid);
            kill(pid, Signal::SIGCONT).expect("alive");
            continued(pid);
        }
        tracing.detach().succeeded();
        target.work();
        target.end().succeeded();
    }

    /// Some of its threads stay stopped in the injected code: nobody else gets them out.
    fn a_busy_process_that_is_stopped_is_left_clean(engine) {
        for _ in 0..5 {
            let mut target = Fixture::new("busy.c").start();
            let pid = target.pid();
            let tracing = attach(engine, pid, &[]);
            kill(pid, Signal::SIGSTOP).expect("alive");
            stopped(pid);
            tracing.detach().succeeded();
            kill(pid, Signal::SIGCONT).expect("alive");
            continued(pid);
            assert_eq!(left_behind(pid), Vec::<String>::new());
            target.work();
            target.end().succeeded();
        }
    }

    /// Attaching to a stopped process does not wake it up, and detaching leaves it stopped.
    fn a_stopped_process_stays_stopped(engine) {
        let mut target = Fixture::new("portable.c").start();
        let pid = target.pid();
        kill(pid, Signal::SIGSTOP).expect("alive");
        stopped(pid);
        attach(engine, pid, &[]).detach().succeeded();
        assert!(state(pid).starts_with('T'), "{}", state(pid));
        kill(pid, Signal::SIGCONT).expect("alive");
        target.work();
        target.end().succeeded();
    }

    /// An epoll_wait(2) that is interrupted waits its whole time again: no thread is, more than
    /// once.
    fn a_timeout_ends_a_wait(engine) {
        let mut target = Fixture::new("waits_long.c").start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        tracing.detach().succeeded();
        target.end().succeeded();
    }

    /// Its memory and its files go. Its parent is told when leaktap goes on: that is the kernel's
    /// rule for all tracees.
    fn a_target_ends_while_leaktap_is_stopped(engine) {
        let mut target = Fixture::new("portable.c").start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let leaktap = tracing.process().pid();
        // Or its guard continues it.
        let children = format!("/proc/{leaktap}/task/{leaktap}/children");
        let children = fs::read_to_string(children).expect("children");
        let guard = Pid::from_raw(children.trim().parse().expect("one child"));
        kill(guard, Signal::SIGSTOP).expect("alive");
        kill(leaktap, Signal::SIGSTOP).expect("alive");
        stopped(leaktap);
        target.close();
        target.process().stdout_end();
        assert!(state(leaktap).starts_with('T'), "{}", state(leaktap));
        kill(leaktap, Signal::SIGCONT).expect("alive");
        kill(guard, Signal::SIGCONT).expect("alive");
        tracing.wait().succeeded();
        target.end().succeeded();
    }
}
