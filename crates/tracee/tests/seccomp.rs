//! System calls in a target that a seccomp filter watches.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Target, code};
use leaktap_tracee::{CallError, Options, SeccompMode, Stopped, Tracer, may_suspend_seccomp};
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
    assert!(target.tid.is_filtered() && target.tid.has_filtered_thread());
    let at = code(target.tid);
    let mut tracer = Tracer::new();
    let mut stopped = attach(&mut tracer, &target);
    match tracer.calls(&mut stopped, at) {
        Err(CallError::Filtered { tid }) => {
            assert_eq!(tid, target.tid);
            assert!(!may_suspend_seccomp());
        }
        calls => {
            let mut calls = calls.unwrap();
            let pid = calls.call(libc::SYS_getpid, [0; 6]).unwrap();
            assert_eq!(pid, target.tid.get().cast_unsigned().into());
            calls.finish().unwrap();
            assert!(may_suspend_seccomp());
        }
    }
    stopped.detach().unwrap();
    target.end_of_input();
    assert_eq!(target.rest(), "EXIT-SUCCESS\n");
}
