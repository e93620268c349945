//! Forks, vforks, execs and their sequences of stops.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::collections::BTreeSet;

use common::{Target, run_out};
use leaktap_tracee::{Died, Event, Options, Stop, Tid, Tracer};
use nix::sys::signal::{Signal as NixSignal, kill};
use nix::unistd::Pid;

fn follow(tracer: &mut Tracer, process: Tid, options: Options) {
    for stopped in tracer.attach(process, options).unwrap().stopped {
        stopped.resume().unwrap();
    }
}

#[test]
fn children_stop_before_they_run_and_their_parents_are_told() {
    let mut target = Target::start("children", &[]);
    let leader = target.tid;
    let mut tracer = Tracer::new();
    follow(&mut tracer, leader, Options::follow());
    target.tell("x");
    let (stops, end) = run_out(&mut tracer, leader);
    assert!(matches!(end, Event::Exited { code: 0, .. }), "{end:?}");
    let of_leader = |(tid, stop): &(Tid, Stop)| (*tid == leader).then_some(*stop);
    let own: Vec<Stop> = stops.iter().filter_map(of_leader).collect();
    let children = |stop: &Stop| match stop {
        Stop::Fork(child) | Stop::Vfork(child) => Some(*child),
        _ => None,
    };
    let begun: Vec<Tid> = own.iter().filter_map(children).collect();
    let &[forked, vforked, spawned] = begun.as_slice() else {
        panic!("{stops:?}")
    };
    let at = |wanted: Stop| own.iter().position(|stop| *stop == wanted).unwrap();
    let in_order = [
        Stop::Fork(forked),
        Stop::Vfork(vforked),
        Stop::VforkDone(vforked),
        Stop::Vfork(spawned),
        Stop::VforkDone(spawned),
    ];
    assert!(in_order.map(at).is_sorted(), "{own:?}");
    for child in begun {
        let first = stops.iter().find(|(tid, _)| *tid == child).unwrap();
        assert_eq!(first.1, Stop::Interrupt, "first stop of {child}");
        let executed = stops.contains(&(child, Stop::Exec { former: child }));
        assert_eq!(executed, child != forked);
    }
}

#[test]
fn of_a_child_that_was_killed_at_once_nothing_is_to_come() {
    let mut target = Target::start("children", &[]);
    let mut tracer = Tracer::new();
    follow(&mut tracer, target.tid, Options::follow());
    target.tell("x");
    let child = loop {
        if let Event::Stopped(stopped) = tracer.wait(100) {
            match stopped.stop() {
                Stop::Fork(child) => break child,
                _ => drop(stopped.resume().unwrap()),
            }
        }
    };
    assert!(tracer.has(child));
    kill(Pid::from_raw(child.get()), NixSignal::SIGKILL).unwrap();
    assert_eq!(tracer.wait_for(child).unwrap_err(), Died { tid: child });
    common::assert_killed(&tracer.wait(100));
    assert!(!tracer.has(child));
}

#[test]
fn a_child_detached_at_its_first_stop_runs_untraced() {
    let mut target = Target::start("children", &[]);
    let leader = target.tid;
    let mut tracer = Tracer::new();
    follow(&mut tracer, leader, Options::follow());
    target.tell("x");
    loop {
        match tracer.wait(100) {
            Event::Stopped(stopped) if stopped.tid() != leader => stopped.detach().unwrap(),
            Event::Stopped(stopped) => drop(stopped.resume().unwrap()),
            Event::Exited { tid, code: 0 } if tid == leader => break,
            Event::Interrupted => {}
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(target.rest(), "EXIT-SUCCESS\n");
}

#[test]
fn an_exec_by_another_thread_continues_as_the_leader() {
    for _ in 0..20 {
        let mut target = Target::start("exec", &["3", "wait"]);
        let leader = target.tid;
        let mut tracer = Tracer::new();
        follow(&mut tracer, leader, Options::follow().exit_events());
        target.tell("x");
        let (stops, end) = run_out(&mut tracer, leader);
        assert!(matches!(end, Event::Exited { code: 7, .. }), "{end:?}");
        let mut former = BTreeSet::new();
        for (tid, stop) in &stops {
            if let Stop::Exec { former: of } = stop {
                assert_eq!(*tid, leader);
                assert_ne!(*of, leader);
                former.insert(*of);
            }
        }
        assert_eq!(former.len(), 3, "{stops:?}");
        let last = stops
            .iter()
            .rev()
            .find(|(_, stop)| matches!(stop, Stop::Exit { .. }));
        assert_eq!(last, Some(&(leader, Stop::Exit { status: 7 << 8 })));
        assert_eq!(target.rest(), "EXIT-SUCCESS\n");
    }
}

#[test]
fn waiting_for_a_killed_leader_neither_hangs_nor_loses_its_end() {
    for _ in 0..20 {
        let target = Target::start("churn", &[]);
        let mut tracer = Tracer::new();
        let attached = tracer.attach(target.tid, Options::follow()).unwrap();
        target.kill(NixSignal::SIGKILL);
        assert_eq!(
            tracer.wait_for(target.tid).unwrap_err(),
            Died { tid: target.tid }
        );
        for stopped in attached.stopped {
            assert!(stopped.resume().is_err());
        }
        let (_, end) = run_out(&mut tracer, target.tid);
        common::assert_killed(&end);
    }
}
