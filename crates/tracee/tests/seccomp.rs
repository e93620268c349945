//! System calls in a target that a seccomp filter watches.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Target, instruction, run_out};
use leaktap_tracee::{Event, Options, OptionsError, SeccompMode, Signal, Stopped, Tracer};
use nix::libc;

/// Attaches to a target of one thread.
fn attach(tracer: &mut Tracer, target: &Target) -> Stopped {
    let mut attached = tracer.attach(target.tid, Options::follow()).unwrap();
    attached.stopped.remove(0)
}

#[test]
fn a_filter_is_seen_and_suspended_for_our_calls_only() {
    let mut target = Target::start("filtered", &[]);
    assert_eq!(target.tid.seccomp(), Some(SeccompMode::Filter));
    let at = instruction(target.tid);
    let mut tracer = Tracer::new();
    let mut stopped = attach(&mut tracer, &target);
    let suspended = stopped.set_options(Options::follow().suspend_seccomp());
    if let Err(OptionsError::Refused { .. }) = suspended {
        // Without CAP_SYS_ADMIN, or under a filter of our own: then no call may be tried.
        assert!(!nix::unistd::Uid::effective().is_root());
    } else {
        suspended.unwrap();
        let mut calls = tracer.calls(&mut stopped, at).unwrap();
        let pid = calls.call(libc::SYS_getpid, [0; 6]).unwrap();
        assert_eq!(pid, target.tid.get().cast_unsigned().into());
        calls.finish().unwrap();
        stopped.set_options(Options::follow()).unwrap();
    }
    stopped.detach().unwrap();
    target.end_of_input();
    assert_eq!(target.rest(), "EXIT-SUCCESS\n");
}

#[test]
fn a_call_that_a_filter_kills_for_is_a_death() {
    let target = Target::start("filtered", &[]);
    let at = instruction(target.tid);
    let mut tracer = Tracer::new();
    let mut stopped = attach(&mut tracer, &target);
    let mut calls = tracer.calls(&mut stopped, at).unwrap();
    calls.call(libc::SYS_getpid, [0; 6]).unwrap_err();
    drop(calls);
    let (_, end) = run_out(&mut tracer, target.tid);
    let sys = Signal::new(libc::SIGSYS);
    assert!(
        matches!(end, Event::Killed { signal, .. } if signal == sys),
        "{end:?}"
    );
}
