//! No system call fails with EINTR because of a stop of ours.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::Target;
use leaktap_tracee::{Options, Running, Stop, Stopped, Tracer};
use nix::errno::Errno;
use nix::sys::signal::Signal as NixSignal;

const ON_DESCRIPTORS: [&str; 15] = [
    "epoll_wait",
    "epoll_pwait",
    "poll",
    "select",
    "read",
    "readv",
    "recv",
    "recvmsg",
    "send",
    "write",
    "accept",
    "preadv2",
    "splice",
    "tee",
    "vmsplice",
];
const OTHERS: [&str; 9] = [
    "semop",
    "semtimedop",
    "nanosleep",
    "futex",
    "futex_timed",
    "sigtimedwait",
    "msgrcv",
    "io_getevents",
    "wait4",
];
/// Those that end by themselves, after some tenths of a second.
const TIMED: [&str; 2] = ["nanosleep", "io_getevents"];

/// A fixture blocked in `call`, and that call's number.
fn blocked_in(fixture: &str, call: &str) -> (Target, i64) {
    let mut target = Target::start(fixture, &[call]);
    let number = target.line().parse().unwrap();
    target.until_in(target.tid, number);
    (target, number)
}

/// Stops and resumes the leader `times` times, each time in its system call.
fn interrupt(tracer: &mut Tracer, mut leader: Running, target: &Target, number: i64, times: u32) {
    for _ in 0..times {
        target.until_in(target.tid, number);
        leader.interrupt().unwrap();
        let stopped = tracer.wait_for(target.tid).unwrap();
        assert_eq!(stopped.stop(), Stop::Interrupt);
        leader = stopped.resume().unwrap();
    }
}

fn survives(fixture: &str, call: &str) {
    let (target, number) = blocked_in(fixture, call);
    let times = if TIMED.contains(&call) { 5 } else { 100 };
    let mut tracer = Tracer::new();
    for _ in 0..times / 5 {
        target.until_in(target.tid, number);
        for stopped in tracer
            .attach(target.tid, Options::follow())
            .unwrap()
            .stopped
        {
            stopped.detach().unwrap();
        }
    }
    for stopped in tracer
        .attach(target.tid, Options::follow())
        .unwrap()
        .stopped
    {
        let is_leader = stopped.tid() == target.tid;
        let running = stopped.resume().unwrap();
        if is_leader {
            interrupt(&mut tracer, running, &target, number, times);
        }
    }
    common::assert_undisturbed(target, &mut tracer, call);
}

#[test]
fn calls_on_descriptors_are_made_again_after_a_stop() {
    ON_DESCRIPTORS
        .into_iter()
        .for_each(|call| survives("blocked", call));
}

#[test]
fn other_calls_are_made_again_after_a_stop() {
    OTHERS
        .into_iter()
        .for_each(|call| survives("sleeping", call));
}

/// Attached, the leader is sent `signals`; whatever comes is resumed, with interrupts besides.
fn errno_after(call: &str, signals: &[NixSignal]) -> String {
    let (mut target, number) = blocked_in("blocked", call);
    let mut tracer = Tracer::new();
    common::follow(&mut tracer, &target);
    target.until_in(target.tid, number);
    for &signal in signals {
        target.kill(signal);
        let stopped = tracer.wait_for(target.tid).unwrap();
        assert!(matches!(stopped.stop(), Stop::Signal(_)), "{stopped:?}");
        // It stops again on its way to the handler, or back to the call, if it has not got there.
        let running = stopped.resume().unwrap();
        if running.interrupt().is_ok() {
            let _ = tracer.wait_for(target.tid).map(Stopped::resume);
        }
    }
    target.tell("x");
    common::run_out(&mut tracer, target.tid);
    target.rest()
}

#[test]
fn an_ignored_signal_interrupts_nothing() {
    // SIGUSR2 is ignored, SIGCHLD and SIGWINCH are by default.
    let ignored = [NixSignal::SIGUSR2, NixSignal::SIGCHLD, NixSignal::SIGWINCH];
    for call in ["epoll_wait", "recv", "accept", "poll", "read"] {
        assert_eq!(errno_after(call, &ignored), "0 0\n", "{call}");
    }
}

#[test]
fn a_handled_signal_interrupts_what_it_would_untraced() {
    let interrupted = format!("{} 1\n", Errno::EINTR as i32);
    for _ in 0..20 {
        for call in ["epoll_wait", "epoll_pwait", "recv", "accept", "select"] {
            assert_eq!(
                errno_after(call, &[NixSignal::SIGUSR1]),
                interrupted,
                "{call}"
            );
        }
    }
}
