//! The program's own signals pass unchanged.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{Target, run_to, until};
use leaktap_tracee::{Event, Options, Running, Signal, Stop, Tid, Tracer};
use nix::sys::signal::Signal as NixSignal;

/// Attaches and lets everything run.
fn follow(tracer: &mut Tracer, process: Tid) {
    for stopped in tracer.attach(process, Options::follow()).unwrap().stopped {
        stopped.resume().unwrap();
    }
}

#[test]
fn queued_signals_keep_order_number_code_and_value() {
    let mut target = Target::start("signals", &[]);
    target.tell("go\n");
    let untraced = target.line();
    assert!(untraced.ends_with("= 42"), "{untraced}");
    let tid = target.tid;
    let mut tracer = Tracer::new();
    follow(&mut tracer, tid);
    for _ in 0..5 {
        target.tell("go\n");
        let mut delivered = Vec::new();
        while delivered.len() < 42 {
            let stopped = run_to(&mut tracer, |_, stop| matches!(stop, Stop::Signal(_)));
            let info = stopped.signal_info().unwrap();
            assert_eq!(stopped.stop(), Stop::Signal(info.signal()));
            delivered.push(format!("{}/{}", info.signal().number(), info.code()));
            // A stop on the way changes nothing.
            let running: Running = stopped.resume().unwrap();
            let _ = running.interrupt();
        }
        let answer = loop {
            match tracer.poll() {
                Some(Event::Stopped(stopped)) => drop(stopped.resume().unwrap()),
                Some(event) => panic!("{event:?}"),
                None if target.has_line() => break target.line(),
                None => {}
            }
        };
        assert_eq!(answer, untraced);
        let words = answer
            .split(' ')
            .map(|word| word.rsplit_once('/').unwrap_or_default().0);
        assert_eq!(words.take(42).collect::<Vec<_>>(), delivered);
    }
}

#[test]
fn detaching_at_a_signal_delivers_it() {
    let mut target = Target::start("signals", &[]);
    let tid = target.tid;
    let mut tracer = Tracer::new();
    for round in 1..=50 {
        follow(&mut tracer, tid);
        target.kill(if round % 2 == 0 {
            NixSignal::SIGTERM
        } else {
            NixSignal::SIGUSR1
        });
        let stopped = run_to(&mut tracer, |_, stop| matches!(stop, Stop::Signal(_)));
        stopped.detach().unwrap();
        until("signal delivered", || {
            target.status("SigPnd").trim_matches('0').is_empty()
        });
    }
    target.end_of_input();
    assert_eq!(target.rest(), "50\n");
}

#[test]
fn a_signal_of_ours_is_swallowed_on_request_only() {
    let mut target = Target::start("signals", &[]);
    let mut tracer = Tracer::new();
    follow(&mut tracer, target.tid);
    for signal in [NixSignal::SIGTRAP, NixSignal::SIGTRAP, NixSignal::SIGTERM] {
        target.kill(signal);
        let stopped = run_to(&mut tracer, |_, stop| matches!(stop, Stop::Signal(_)));
        match stopped.stop() {
            Stop::Signal(Signal::TRAP) => drop(stopped.resume_without().unwrap()),
            _ => drop(stopped.resume().unwrap()),
        }
    }
    target.end_of_input();
    let (_, end) = common::run_out(&mut tracer, target.tid);
    assert!(matches!(end, Event::Exited { code: 0, .. }), "{end:?}");
    assert_eq!(target.rest(), "1\n");
}
