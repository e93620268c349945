//! A tracer that is killed before any of its system calls leaves a thread that goes on as it
//! should.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::io::{Read, Write};

use common::{Target, code, until};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{CallCode, Memory, Options, Stop, Stopped, Tracer};
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// What a tracer does that is to be killed.
type Work = fn(&mut Tracer, Stopped, CallCode);

/// Traces `target` in a process of its own, and does `work` with the thread `tid`. That process is
/// killed before it makes system call `n` since it traces. False if it makes fewer.
fn killed_at(n: usize, target: &Target, code: CallCode, work: Work) -> bool {
    let (mut reads, mut writes) = std::io::pipe().unwrap();
    // SAFETY: the child uses what the C library makes safe after a fork: memory, and threads.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            reads.read_exact(&mut [0]).unwrap();
            let mut tracer = Tracer::new();
            let attached = tracer.attach(target.tid, Options::follow()).unwrap();
            let mut stopped = attached.stopped.into_iter();
            let first = stopped.next().unwrap();
            assert_eq!(first.tid(), target.tid);
            for other in stopped {
                other.resume().unwrap();
            }
            nix::unistd::getppid(); // from here on
            work(&mut tracer, first, code);
            // SAFETY: nothing is to be cleaned up.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            ptrace::seize(child, ptrace::Options::PTRACE_O_TRACESYSGOOD).unwrap();
            ptrace::interrupt(child).unwrap();
            writes.write_all(&[0]).unwrap();
            run_to_call(child, n)
        }
    }
}

/// Lets `child` run to its system call `n` from getppid(2) on, and kills it there. False if it ends
/// before.
fn run_to_call(child: Pid, n: usize) -> bool {
    let (mut is_entry, mut count) = (true, None);
    loop {
        match waitpid(child, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::PtraceSyscall(_) => {
                let call = ptrace::getregs(child).unwrap().orig_rax;
                if is_entry && (count.is_some() || call == libc::SYS_getppid as u64) {
                    count = Some(count.map_or(0, |count| count + 1));
                }
                is_entry = !is_entry;
                if count == Some(n) {
                    kill(child, Signal::SIGKILL).unwrap();
                    count = None;
                }
            }
            WaitStatus::Exited(_, 0) => return false,
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => return true,
            WaitStatus::Stopped(_, signal) => {
                ptrace::syscall(child, signal).unwrap();
                continue;
            }
            WaitStatus::PtraceEvent(..) => {}
            other => panic!("{other:?}"),
        }
        // Fails for one that has just been killed.
        let _ = ptrace::syscall(child, None);
    }
}

/// Kills a tracer of `target` at each of its calls while it does `work`. Returns how many.
fn killed_everywhere(target: &Target, rounds: Addr, code: CallCode, work: Work) -> usize {
    let memory = Memory::open(target.tid).unwrap();
    let rounds = || memory.read_u64(rounds).unwrap_or(u64::MAX);
    let mut n = 1;
    while killed_at(n, target, code, work) {
        let before = rounds();
        until(&format!("it goes on after call {n}"), || {
            rounds() >= before.saturating_add(2)
        });
        assert_eq!(target.status("TracerPid"), "0", "after call {n}");
        n += 1;
    }
    n
}

fn calls(tracer: &mut Tracer, mut stopped: Stopped, code: CallCode) {
    let mut calls = tracer.calls(&mut stopped, code).unwrap();
    for _ in 0..2 {
        calls.call(libc::SYS_getpid, [0; 6]).unwrap();
    }
    calls.finish().unwrap();
    stopped.detach().unwrap();
}

#[test]
fn while_it_makes_calls() {
    let mut target = Target::start("whole", &[]);
    let rounds = Addr::new(u64::from_str_radix(&target.line(), 16).unwrap());
    let code = code(target.tid);
    assert!(code.sigreturn.is_some());
    assert!(killed_everywhere(&target, rounds, code, calls) > 20);
    target.tell("x");
    assert_eq!(target.rest(), "whole\n");
}

/// As [`calls`], by a thread that is about to get a signal.
fn calls_at_signal(tracer: &mut Tracer, stopped: Stopped, code: CallCode) {
    let tid = stopped.tid();
    let process = tid.process().unwrap().get();
    // SAFETY: only sends a signal.
    unsafe { libc::syscall(libc::SYS_tgkill, process, tid.get(), libc::SIGURG) };
    stopped.resume().unwrap();
    let mut stopped = tracer.wait_for(tid).unwrap();
    while !matches!(stopped.stop(), Stop::Signal(_)) {
        stopped.resume().unwrap();
        stopped = tracer.wait_for(tid).unwrap();
    }
    calls(tracer, stopped, code);
}

#[test]
fn while_a_thread_that_gets_a_signal_makes_calls() {
    let mut target = Target::start("whole", &[]);
    let rounds = Addr::new(u64::from_str_radix(&target.line(), 16).unwrap());
    let code = code(target.tid);
    assert!(killed_everywhere(&target, rounds, code, calls_at_signal) > 20);
    target.tell("x");
    assert_eq!(target.rest(), "whole\n");
}

/// Calls whose rest the kernel has noted (poll(2) with a timeout) need a tracer, once it has begun
/// with that. So do those that answer `EINTR` after any stop (epoll_wait(2)), until that is seen.
#[test]
fn while_a_thread_waits_in_the_kernel() {
    let blocked = [
        ("blocked", "select"),
        ("blocked", "tee"),
        ("sleeping", "futex"),
    ];
    for (fixture, call) in blocked {
        let mut target = Target::start(fixture, &[call]);
        let number = target.line().parse().unwrap();
        let code = code(target.tid);
        let mut n = 1;
        target.until_in(target.tid, number);
        while killed_at(n, &target, code, calls) {
            target.until_in(target.tid, number);
            n += 1;
        }
        assert!(n > 20);
        target.tell("x");
        assert_eq!(
            target.rest(),
            "0 0\n",
            "errno of {call}, and signals handled"
        );
    }
}
