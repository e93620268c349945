//! System calls made in the target leave no trace in it.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::fs;

use common::{Target, Watch, code, run_out, run_to, until};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{
    CallCode, CallError, Command, Event, Memory, Options, Running, Signal, Stop, Stopped, Tid,
    Tracer,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal as NixSignal;

/// getpid in `stopped` of `process`, put back by dropping or by finishing.
fn ask_pid(tracer: &mut Tracer, stopped: &mut Stopped, process: Tid, at: CallCode) {
    let mut calls = tracer.calls(stopped, at).unwrap();
    let pid = calls.call(libc::SYS_getpid, [0; 6]).unwrap();
    assert_eq!(pid, process.get().cast_unsigned().into());
    if process.get() % 2 == 0 {
        calls.finish().unwrap();
    }
}

/// Attaches, resumes all and returns the leader.
fn attach(tracer: &mut Tracer, process: Tid) -> Running {
    let stopped = tracer
        .attach(process, Options::follow())
        .unwrap()
        .stopped
        .into_iter();
    let all: Vec<Running> = stopped.map(|stopped| stopped.resume().unwrap()).collect();
    all.into_iter()
        .find(|running| running.tid() == process)
        .unwrap()
}

fn stop(tracer: &mut Tracer, running: &Running) -> Stopped {
    running.interrupt().unwrap();
    let stopped = tracer.wait_for(running.tid()).unwrap();
    assert_eq!(stopped.stop(), Stop::Interrupt);
    stopped
}

#[test]
fn a_call_in_a_blocked_thread_interrupts_nothing() {
    let blocked = [
        ("blocked", "epoll_wait"),
        ("blocked", "poll"),
        ("blocked", "recv"),
        ("blocked", "read"),
        ("sleeping", "semop"),
        ("sleeping", "futex_timed"),
        ("sleeping", "nanosleep"),
    ];
    for (fixture, call) in blocked {
        let mut target = Target::start(fixture, &[call]);
        let number = target.line().parse().unwrap();
        let at = code(target.tid);
        let mut tracer = Tracer::new();
        let mut leader = attach(&mut tracer, target.tid);
        for _ in 0..if call == "nanosleep" { 5 } else { 50 } {
            target.until_in(target.tid, number);
            let mut stopped = stop(&mut tracer, &leader);
            let before = format!("{:?}", stopped.registers().unwrap());
            ask_pid(&mut tracer, &mut stopped, target.tid, at);
            assert_eq!(format!("{:?}", stopped.registers().unwrap()), before);
            leader = stopped.resume().unwrap();
        }
        common::assert_undisturbed(target, &mut tracer, call);
    }
}

#[test]
fn a_call_before_a_signal_is_delivered_changes_nothing_of_it() {
    let mut target = Target::start("signals", &[]);
    target.tell("go\n");
    let untraced = target.line();
    let at = code(target.tid);
    let mut tracer = Tracer::new();
    attach(&mut tracer, target.tid);
    for _ in 0..5 {
        target.tell("go\n");
        for _ in 0..42 {
            let mut stopped = run_to(&mut tracer, |_, stop| matches!(stop, Stop::Signal(_)));
            let before = stopped.stop();
            ask_pid(&mut tracer, &mut stopped, target.tid, at);
            assert_eq!(stopped.stop(), before);
            stopped.resume().unwrap();
        }
        assert_eq!(target.line(), untraced);
    }
}

#[test]
fn signals_that_come_meanwhile_come_later() {
    let mut target = Target::start("signals", &[]);
    let at = code(target.tid);
    let mut tracer = Tracer::new();
    let mut leader = attach(&mut tracer, target.tid);
    // Sent by a thread of its own: its children are not ours to wait for.
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8 9 10; do for s in 1 2 3 4; do kill -RTMIN+$s {}; done; done",
        target.tid
    );
    let storm = std::thread::spawn(move || {
        let send = || {
            std::process::Command::new("sh")
                .args(["-c", &script])
                .status()
                .unwrap()
        };
        assert!((0..5).all(|_| send().success()));
    });
    let (mut seen, mut last_round) = (0, false);
    while !last_round {
        last_round = storm.is_finished();
        leader.interrupt().unwrap();
        let mut stopped = tracer.wait_for(target.tid).unwrap();
        seen += usize::from(matches!(stopped.stop(), Stop::Signal(_)));
        ask_pid(&mut tracer, &mut stopped, target.tid, at);
        leader = stopped.resume().unwrap();
    }
    storm.join().unwrap();
    target.end_of_input();
    let (stops, end) = run_out(&mut tracer, target.tid);
    assert!(matches!(end, Event::Exited { code: 0, .. }), "{end:?}");
    seen += stops
        .iter()
        .filter(|(_, stop)| matches!(stop, Stop::Signal(_)))
        .count();
    assert_eq!((seen, target.rest()), (200, "200\n".to_owned()));
}

#[test]
fn a_sigtrap_of_somebody_else_is_kept_apart_from_the_step() {
    for at_signal in [false, true] {
        let mut target = Target::start("signals", &[]);
        let at = code(target.tid);
        let mut tracer = Tracer::new();
        let leader = attach(&mut tracer, target.tid);
        let mut stopped = if at_signal {
            target.kill(NixSignal::SIGTERM);
            tracer.wait_for(target.tid).unwrap()
        } else {
            stop(&mut tracer, &leader)
        };
        target.kill(NixSignal::SIGTRAP);
        ask_pid(&mut tracer, &mut stopped, target.tid, at);
        let next = if at_signal {
            Signal::TERM
        } else {
            Signal::TRAP
        };
        assert_eq!(stopped.stop(), Stop::Signal(next));
        assert_eq!(stopped.signal_info().unwrap().signal(), next);
        assert_eq!(stopped.signal_info().unwrap().code(), 0, "SI_USER");
        stopped.resume().unwrap();
        target.end_of_input();
        let (_, end) = run_out(&mut tracer, target.tid);
        assert!(matches!(end, Event::Exited { code: 0, .. }), "{end:?}");
        assert_eq!(target.rest(), if at_signal { "2\n" } else { "1\n" });
    }
}

#[test]
fn a_mapping_made_and_unmade_is_gone() {
    let target = Target::start("signals", &[]);
    let at = code(target.tid);
    // Another test may compile the program anew meanwhile.
    let maps = || {
        let maps = fs::read_to_string(format!("/proc/{}/maps", target.tid)).unwrap();
        maps.replace(" (deleted)", "")
    };
    let before = maps();
    let mut tracer = Tracer::new();
    let leader = attach(&mut tracer, target.tid);
    let mut stopped = stop(&mut tracer, &leader);
    let mut calls = tracer.calls(&mut stopped, at).unwrap();
    let (protection, flags) = (
        libc::PROT_READ as u64,
        (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64,
    );
    let arguments = [0, 65536, protection, flags, u64::MAX, 0];
    let mapped = calls.call(libc::SYS_mmap, arguments).unwrap();
    let line = format!("{mapped:x}-{:x} r--p", mapped + 65536);
    assert!(maps().contains(&line), "{line} in\n{}", maps());
    assert_eq!(
        calls
            .call(libc::SYS_munmap, [mapped, 65536, 0, 0, 0, 0])
            .unwrap(),
        0
    );
    let Err(CallError::Failed { number, source, .. }) = calls.call(libc::SYS_close, [99; 6]) else {
        panic!("descriptor 99 is open")
    };
    assert_eq!(
        (number, source.raw_os_error()),
        (libc::SYS_close, Some(Errno::EBADF as i32))
    );
    calls.finish().unwrap();
    stopped.detach().unwrap();
    assert_eq!(maps(), before);
}

#[test]
fn an_address_without_the_instruction_is_an_error_and_harmless() {
    let mut target = Target::start("signals", &[]);
    let at = code(target.tid);
    let mut tracer = Tracer::new();
    let leader = attach(&mut tracer, target.tid);
    let mut stopped = stop(&mut tracer, &leader);
    for nowhere in [
        Addr::new(0),
        Addr::new(8),
        at.syscall.wrapping_offset(1),
        Addr::new(u64::MAX),
    ] {
        let code = CallCode {
            syscall: nowhere,
            ..at
        };
        let mut calls = tracer.calls(&mut stopped, code).unwrap();
        let result = calls.call(libc::SYS_getpid, [0; 6]);
        assert!(
            matches!(result, Err(CallError::NoInstruction { .. })),
            "{nowhere}: {result:?}"
        );
        drop(calls);
        ask_pid(&mut tracer, &mut stopped, target.tid, at);
    }
    stopped.detach().unwrap();
    // Its handlers are there still.
    target.kill(NixSignal::SIGSEGV);
    target.kill(NixSignal::SIGTRAP);
    target.tell("go\n");
    assert!(target.line().ends_with("= 42"));
    target.end_of_input();
    assert_eq!(target.rest(), "0\n");
}

#[test]
fn a_group_stop_is_gone_back_to() {
    let mut target = Target::start("churn", &[]);
    let at = code(target.tid);
    let mut tracer = Tracer::new();
    attach(&mut tracer, target.tid);
    let grouped = |tracer: &mut Tracer| {
        run_to(tracer, |tid, stop| {
            tid == target.tid && stop == Stop::Group(Signal::STOP)
        })
    };
    for _ in 0..10 {
        target.kill(NixSignal::SIGSTOP);
        let mut stopped = grouped(&mut tracer);
        ask_pid(&mut tracer, &mut stopped, target.tid, at);
        stopped.resume().unwrap();
        grouped(&mut tracer).resume().unwrap();
        target.kill(NixSignal::SIGCONT);
        let last = Stop::Signal(Signal::CONT);
        run_to(&mut tracer, |_, stop| stop == last)
            .resume()
            .unwrap();
    }
    target.end_of_input();
    let (_, end) = run_out(&mut tracer, target.tid);
    assert!(matches!(end, Event::Exited { code: 0, .. }), "{end:?}");
}

#[test]
fn a_stop_of_the_process_meanwhile_is_obeyed_afterwards() {
    for detached in [false, true] {
        let mut target = Target::start("signals", &[]);
        let at = code(target.tid);
        let mut tracer = Tracer::new();
        let leader = attach(&mut tracer, target.tid);
        let mut stopped = stop(&mut tracer, &leader);
        target.kill(NixSignal::SIGSTOP);
        ask_pid(&mut tracer, &mut stopped, target.tid, at);
        if detached {
            stopped.detach().unwrap();
            until("stopped", || target.status("State").starts_with('T'));
        } else {
            stopped.resume().unwrap();
            let group = tracer.wait_for(target.tid).unwrap();
            assert_eq!(group.stop(), Stop::Group(Signal::STOP));
            group.detach().unwrap();
        }
        target.kill(NixSignal::SIGCONT);
        target.end_of_input();
        // SIGCONT has a handler in this program.
        assert_eq!(target.rest(), "1\n");
    }
}

/// The kernel forgets that SIGCONT has come when the thread stops for another signal, ours.
#[test]
fn a_stop_that_sigcont_has_undone_meanwhile_does_not_come() {
    for detached in [false, true] {
        let mut target = Target::start("signals", &[]);
        let at = code(target.tid);
        let mut tracer = Tracer::new();
        attach(&mut tracer, target.tid);
        target.kill(NixSignal::SIGSTOP);
        let mut stopped = run_to(&mut tracer, |_, stop| stop == Stop::Signal(Signal::STOP));
        target.kill(NixSignal::SIGCONT);
        ask_pid(&mut tracer, &mut stopped, target.tid, at);
        if detached {
            stopped.detach().unwrap();
        } else {
            stopped.resume().unwrap();
            let next = tracer.wait_for(target.tid).unwrap();
            assert_eq!(next.stop(), Stop::Signal(Signal::CONT));
            next.detach().unwrap();
        }
        target.end_of_input();
        assert_eq!(target.rest(), "1\n");
    }
}

#[test]
fn at_an_exec_or_clone_the_call_is_made_when_that_one_has_ended() {
    let mut tracer = Tracer::new();
    let command = Command::new("sh").args(["-c", "exit 3"]);
    let mut stopped = tracer
        .launch(&command, Options::follow().kill_on_exit())
        .unwrap();
    let tid = stopped.tid();
    let _watch = Watch::on(tid);
    ask_pid(&mut tracer, &mut stopped, tid, code(tid));
    stopped.resume().unwrap();
    assert!(matches!(
        run_out(&mut tracer, tid).1,
        Event::Exited { code: 3, .. }
    ));

    let mut target = Target::start("churn", &[]);
    let at = code(target.tid);
    attach(&mut tracer, target.tid);
    for _ in 0..100 {
        let mut stopped = run_to(&mut tracer, |_, stop| matches!(stop, Stop::Clone(_)));
        ask_pid(&mut tracer, &mut stopped, target.tid, at);
        stopped.resume().unwrap();
    }
    target.end_of_input();
    let (_, end) = run_out(&mut tracer, target.tid);
    assert!(matches!(end, Event::Exited { code: 0, .. }), "{end:?}");
}

#[test]
fn a_parent_in_vfork_is_unfit() {
    let mut target = Target::start("children", &[]);
    let at = code(target.tid);
    let mut tracer = Tracer::new();
    attach(&mut tracer, target.tid);
    target.tell("x");
    let mut stopped = run_to(&mut tracer, |_, stop| matches!(stop, Stop::Vfork(_)));
    assert!(matches!(
        tracer.calls(&mut stopped, at),
        Err(CallError::Unfit { .. })
    ));
    stopped.resume().unwrap();
    let (_, end) = run_out(&mut tracer, target.tid);
    assert!(matches!(end, Event::Exited { code: 0, .. }), "{end:?}");
}

#[test]
fn a_restartable_sequence_is_still_aborted() {
    let mut target = Target::start("sequence", &[]);
    let line = target.line();
    let mut words = line
        .split(' ')
        .map(|word| u64::from_str_radix(word, 16).unwrap());
    let [aborts, start, end] = std::array::from_fn(|_| Addr::new(words.next().unwrap()));
    let memory = Memory::open(target.tid).unwrap();
    let at = code(target.tid);
    let mut tracer = Tracer::new();
    let mut leader = attach(&mut tracer, target.tid);
    let mut inside = 0;
    while inside < 50 {
        let mut stopped = stop(&mut tracer, &leader);
        ask_pid(&mut tracer, &mut stopped, target.tid, at);
        let count = memory.read_u64(aborts).unwrap();
        let ip = stopped.registers().unwrap().ip();
        leader = stopped.resume().unwrap();
        if (start..end).contains(&ip) {
            inside += 1;
            until("an abort", || memory.read_u64(aborts).unwrap() > count);
        }
    }
}

#[test]
fn a_thread_killed_during_calls_has_died() {
    for round in 0_u32..40 {
        let target = Target::start("churn", &[]);
        let at = code(target.tid);
        let tid = target.tid;
        let mut tracer = Tracer::new();
        let leader = attach(&mut tracer, tid);
        leader.interrupt().unwrap();
        let killer = std::thread::spawn(move || {
            (0..round * 1000).for_each(|_| std::hint::spin_loop());
            target.kill(NixSignal::SIGKILL);
            target
        });
        if let Ok(mut stopped) = tracer.wait_for(tid)
            && let Ok(mut calls) = tracer.calls(&mut stopped, at)
        {
            let error = loop {
                match calls.call(libc::SYS_getpid, [0; 6]) {
                    Ok(pid) => assert_eq!(pid, tid.get().cast_unsigned().into()),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, CallError::Died(_)), "{error}");
        }
        let (_, end) = run_out(&mut tracer, tid);
        common::assert_killed(&end);
        drop(killer.join().unwrap());
    }
}

#[test]
fn an_ignored_sigtrap_stays_ignored() {
    let mut child = std::process::Command::new("sh")
        .args(["-c", "trap '' TRAP; echo; read x; exit 7"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
    let tid = Tid::new(child.id().cast_signed());
    let _watch = Watch::on(tid);
    let mut tracer = Tracer::new();
    let leader = attach(&mut tracer, tid);
    let ignored = || common::status(tid, "SigIgn");
    let before = ignored();
    let mut stopped = stop(&mut tracer, &leader);
    ask_pid(&mut tracer, &mut stopped, tid, code(tid));
    stopped.detach().unwrap();
    assert_eq!(ignored(), before);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(7));
}
