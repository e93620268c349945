//! Attaching to all threads, releasing them, and what is said when that cannot be.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use common::{Target, run_out, run_to, status, until};
use leaktap_tracee::{AttachError, Event, Options, Signal, Stop, Stopped, Tid, Tracer};
use nix::sys::signal::Signal as NixSignal;

fn task_count(process: Tid) -> usize {
    std::fs::read_dir(format!("/proc/{process}/task"))
        .unwrap()
        .count()
}

/// Detaches from all that is stopped, and from all threads and children that they have begun.
fn detach_all(tracer: &mut Tracer, stopped: Vec<Stopped>) {
    let here: BTreeSet<Tid> = stopped.iter().map(Stopped::tid).collect();
    for stopped in stopped {
        if let Stop::Clone(new) = stopped.stop() {
            assert!(
                here.contains(&new),
                "{new} was begun, but is not among the stopped"
            );
        }
        stopped.detach().unwrap();
    }
    while let Some(event) = tracer.poll() {
        match event {
            Event::Stopped(stopped) => panic!("{stopped:?} is not among the attached"),
            Event::NoChildren => break,
            _ => {}
        }
    }
}

#[test]
fn threads_that_come_and_go_are_each_stopped_once() {
    let mut target = Target::start("churn", &[]);
    let mut tracer = Tracer::new();
    for _ in 0..200 {
        let attached = tracer.attach(target.tid, Options::follow()).unwrap();
        let tids: BTreeSet<Tid> = attached.stopped.iter().map(Stopped::tid).collect();
        assert_eq!(
            tids.len(),
            attached.stopped.len(),
            "a thread is there twice"
        );
        assert_eq!(attached.late.len(), 0);
        // Threads that have ended, but are not reaped, are listed still.
        assert!(
            (9..=task_count(target.tid)).contains(&tids.len()),
            "{tids:?}"
        );
        detach_all(&mut tracer, attached.stopped);
    }
    assert_eq!(target.status("TracerPid"), "0");
    target.end_of_input();
    assert_eq!(target.rest(), "EXIT-SUCCESS\n");
}

#[test]
fn threads_begun_after_the_attach_are_traced() {
    let mut target = Target::start("churn", &[]);
    let mut tracer = Tracer::new();
    let attached = tracer.attach(target.tid, Options::follow()).unwrap();
    let mut known: BTreeSet<Tid> = attached.stopped.iter().map(Stopped::tid).collect();
    let mut begun = BTreeSet::new();
    for stopped in attached.stopped {
        if let Stop::Clone(new) = stopped.stop() {
            begun.insert(new);
        }
        stopped.resume().unwrap();
    }
    target.end_of_input();
    let (stops, end) = run_out(&mut tracer, target.tid);
    assert!(matches!(end, Event::Exited { code: 0, .. }), "{end:?}");
    for (tid, stop) in stops {
        if let Stop::Clone(new) = stop {
            begun.insert(new);
        }
        known.insert(tid);
    }
    assert_eq!(
        begun.difference(&known).count(),
        0,
        "begun, but never stopped"
    );
    assert_eq!(target.rest(), "EXIT-SUCCESS\n");
}

#[test]
fn a_target_killed_at_any_moment_is_reported_as_killed() {
    for round in 0_u32..60 {
        let target = Target::start("churn", &[]);
        let tid = target.tid;
        let killer = std::thread::spawn(move || {
            // Moments of all kinds: during the attach, the stop, the run.
            (0..round * 1000).for_each(|_| std::hint::spin_loop());
            target.kill(NixSignal::SIGKILL);
            target
        });
        let mut tracer = Tracer::new();
        match tracer.attach(tid, Options::follow()) {
            Ok(attached) => {
                for stopped in attached.stopped {
                    let _ = stopped.resume();
                }
                let (_, end) = run_out(&mut tracer, tid);
                common::assert_killed(&end);
            }
            Err(AttachError::NoSuchProcess { .. } | AttachError::Zombie { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        drop(killer.join().unwrap());
    }
}

#[test]
fn a_stopped_process_is_attached_to_and_left_stopped() {
    let mut target = Target::start("churn", &[]);
    target.kill(NixSignal::SIGSTOP);
    until("stopped", || target.status("State").starts_with('T'));
    let mut tracer = Tracer::new();
    for _ in 0..20 {
        let attached = tracer.attach(target.tid, Options::follow()).unwrap();
        for stopped in &attached.stopped {
            assert_eq!(stopped.stop(), Stop::Group(Signal::STOP), "{stopped:?}");
        }
        detach_all(&mut tracer, attached.stopped);
        until("stopped again", || target.status("State").starts_with('T'));
    }
    target.kill(NixSignal::SIGCONT);
    target.end_of_input();
    assert_eq!(target.rest(), "EXIT-SUCCESS\n");
}

#[test]
fn a_group_stop_lasts_until_sigcont() {
    let mut target = Target::start("churn", &[]);
    let mut tracer = Tracer::new();
    let attached = tracer.attach(target.tid, Options::follow()).unwrap();
    attached
        .stopped
        .into_iter()
        .for_each(|stopped| drop(stopped.resume()));
    let leader = target.tid;
    for _ in 0..10 {
        target.kill(NixSignal::SIGTSTP);
        let stopped = run_to(&mut tracer, |tid, stop| {
            tid == leader && matches!(stop, Stop::Group(_))
        });
        assert_eq!(stopped.stop(), Stop::Group(Signal::TSTP));
        let running = stopped.resume().unwrap();
        // An interrupt finds it in the group-stop still.
        running.interrupt().unwrap();
        let stopped = tracer.wait_for(leader).unwrap();
        assert_eq!(stopped.stop(), Stop::Group(Signal::TSTP));
        stopped.listen().unwrap();
        target.kill(NixSignal::SIGCONT);
        let stopped = tracer.wait_for(leader).unwrap();
        assert_eq!(stopped.stop(), Stop::Interrupt);
        stopped.resume().unwrap();
    }
    target.end_of_input();
    let (_, end) = run_out(&mut tracer, leader);
    assert!(matches!(end, Event::Exited { code: 0, .. }), "{end:?}");
}

#[test]
fn every_refusal_is_told() {
    let mut tracer = Tracer::new();
    let refused = |tid: i32, tracer: &mut Tracer| {
        let error = tracer.attach(Tid::new(tid), Options::follow()).unwrap_err();
        let line = error.to_string();
        assert!(!line.contains('\n'));
        (error, line)
    };
    for none in [0, -1, i32::MAX] {
        assert!(matches!(
            refused(none, &mut tracer).0,
            AttachError::NoSuchProcess { .. }
        ));
    }
    let own = std::process::id().cast_signed();
    assert!(matches!(
        refused(own, &mut tracer).0,
        AttachError::Itself { .. }
    ));
    // kthreadd, unless this is a container with a pid namespace.
    if status(Tid::new(2), "Name") == "kthreadd" {
        assert!(matches!(
            refused(2, &mut tracer).0,
            AttachError::KernelThread { .. }
        ));
    }
    let mut target = Target::start("churn", &[]);
    let task = std::fs::read_dir(format!("/proc/{}/task", target.tid)).unwrap();
    let task = task.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap());
    let second = task
        .min_by_key(|&tid: &i32| (tid == target.tid.get(), tid))
        .unwrap();
    let (_, line) = refused(second, &mut tracer);
    assert!(
        line.ends_with(&format!("attach to {}", target.tid)),
        "{line}"
    );
    target.end_of_input();
}

#[test]
fn a_zombie_is_told() {
    let mut zombie = Command::new("true").spawn().unwrap();
    let tid = Tid::new(zombie.id().cast_signed());
    until("a zombie", || status(tid, "State").starts_with('Z'));
    let error = Tracer::new().attach(tid, Options::follow()).unwrap_err();
    assert!(matches!(error, AttachError::Zombie { .. }), "{error}");
    zombie.wait().unwrap();
}

#[test]
fn another_tracer_is_told_by_number() {
    let target = Target::start("churn", &[]);
    let tid = target.tid;
    let mut tracer = Tracer::new();
    let attached = tracer.attach(tid, Options::follow()).unwrap();
    let other = std::thread::spawn(move || {
        Tracer::new()
            .attach(tid, Options::follow())
            .map(drop)
            .unwrap_err()
            .to_string()
    });
    let line = other.join().unwrap();
    assert!(
        line.contains(&format!("traced by process {}", status(tid, "TracerPid"))),
        "{line}"
    );
    detach_all(&mut tracer, attached.stopped);
}

#[test]
fn a_process_whose_leader_has_ended_is_attached_to() {
    let mut target = Target::start("headless", &[]);
    until("a dead leader", || target.status("State").starts_with('Z'));
    let mut tracer = Tracer::new();
    let attached = tracer.attach(target.tid, Options::follow()).unwrap();
    assert_eq!(attached.stopped.len(), 1);
    assert_ne!(attached.stopped[0].tid(), target.tid);
    detach_all(&mut tracer, attached.stopped);
    target.end_of_input();
    assert_eq!(target.rest(), "EXIT-SUCCESS\n");
}

#[test]
fn a_parent_in_vfork_is_late_and_its_child_is_attached_to() {
    let mut target = Target::start("vfork", &[]);
    until("in vfork", || target.status("State").starts_with('D'));
    let mut tracer = Tracer::new();
    let attached = tracer.attach(target.tid, Options::follow()).unwrap();
    assert_eq!(attached.late.len(), 1);
    assert_eq!(attached.late[0].tid(), target.tid);
    let stopped: BTreeSet<Tid> = attached.stopped.iter().map(Stopped::tid).collect();
    assert_eq!(stopped, attached.sharers);
    assert_eq!(attached.stopped.len(), 1);
    assert_ne!(attached.stopped[0].tid().process(), Some(target.tid));
    for child in attached.stopped {
        child.detach().unwrap();
    }
    target.end_of_input();
    // The first stop that comes takes the place of the interrupt.
    let stopped = tracer.wait_for(target.tid).unwrap();
    assert!(matches!(stopped.stop(), Stop::VforkDone(_)), "{stopped:?}");
    stopped.detach().unwrap();
    assert_eq!(target.rest(), "EXIT-SUCCESS\n");
}

/// Whether a thread of `process` is traced.
fn is_traced(process: Tid) -> bool {
    let entries = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let tids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut tracers = tids.map(|tid| status(Tid::new(tid), "TracerPid"));
    tracers.any(|tracer| !matches!(&*tracer, "" | "0"))
}

/// An exec waits until all other threads have ended, and a traced one ends when its tracer reaps
/// it; PTRACE_SEIZE of the next thread waits for the exec.
#[test]
fn an_exec_and_its_tracer_do_not_wait_for_each_other() {
    let mut target = Target::start("execs", &[]);
    let mut tracer = Tracer::new();
    for _ in 0..25 {
        match tracer.attach(target.tid, Options::follow()) {
            // One that an exec has ended meanwhile tells of that below.
            Ok(attached) => attached.stopped.into_iter().for_each(|stopped| {
                let _ = stopped.detach();
            }),
            Err(AttachError::Restless { .. } | AttachError::Zombie { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        until("all are let go", || {
            if let Some(Event::Stopped(stopped)) = tracer.poll() {
                let _ = stopped.detach();
            }
            !is_traced(target.tid)
        });
    }
    target.end_of_input();
    assert_eq!(target.rest(), "EXIT-SUCCESS\n");
}
