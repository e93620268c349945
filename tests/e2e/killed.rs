//! leaktap is killed at any moment of attach and detach, and its target does not notice.

use std::fs;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::libc::{SYS_clock_nanosleep, SYS_ptrace, SYS_pwrite64, user_regs_struct};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill as send};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::clean::{Snapshot, left_behind};
use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{Tracing, attach, begin_to_attach};

/// How often leaktap is killed, half of them while it attaches.
const DRAWS: u64 = 100;

/// For tests that go on for as long as `DRAWS` take.
const ALL_DRAWS: Duration = Duration::from_secs(1200);

/// Reproducible, and different for each draw: as likely in each power of two of microseconds.
fn moment(draw: u64) -> Duration {
    let mixed = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let below = 1 << (4 + (mixed >> 32) % 13);
    Duration::from_micros((mixed >> 36) % below)
}

/// Lets the processes run on for so long: the moment is what these tests vary, nothing is awaited
/// by it.
fn let_run(time: Duration) {
    let (_sender, receiver) = mpsc::channel::<()>();
    let _ = receiver.recv_timeout(time);
}

/// Waits until leaktap has begun to stop the target.
fn await_tracer(target: Pid) {
    let begun = Instant::now();
    let status = || fs::read_to_string(format!("/proc/{target}/status")).unwrap_or_default();
    while status().contains("\nTracerPid:\t0\n") {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", status());
        std::thread::yield_now();
    }
}

fn kill(tracing: Tracing, draw: u64) {
    let_run(moment(draw));
    tracing.process().signal(Signal::SIGKILL);
    tracing.wait();
}

fn die(engine: Engine, target: &Target, draw: u64) {
    if draw.is_multiple_of(2) {
        let tracing = begin_to_attach(engine, target.pid(), &[]);
        await_tracer(target.pid());
        return kill(tracing, draw);
    }
    let tracing = attach(engine, target.pid(), &[]);
    tracing.process().signal(Signal::SIGTERM);
    kill(tracing, draw);
}

/// The request of ptrace(2) that takes a thread from one end of a system call to the other.
const PTRACE_SYSCALL: u64 = 24;

/// What comes before it where the call is ours: PTRACE_SETREGS, PTRACE_SETSIGMASK.
const CHANGES: [u64; 2] = [13, 0x420b];

/// Attaches for a moment, and is killed where it would make that request for the `n`th time. False
/// if it makes it less often.
fn is_killed_at(n: usize, engine: Engine, target: &Target) -> bool {
    let tracing = begin_to_attach(engine, target.pid(), &["--duration", "1ms"]);
    let leaktap = tracing.process().pid();
    trace(leaktap);
    let is_killed = run_to_request(leaktap, n, is_of_our_call);
    tracing.wait();
    is_killed
}

fn trace(leaktap: Pid) {
    ptrace::seize(leaktap, Options::PTRACE_O_TRACESYSGOOD).expect("leaktap can be traced");
    ptrace::interrupt(leaktap).expect("it lives");
}

/// Whether the request of ptrace(2) that is `call`, and comes after `last`, takes a thread on its
/// way through a call of ours.
fn is_of_our_call(call: u64, last: u64) -> bool {
    call == PTRACE_SYSCALL && CHANGES.contains(&last)
}

/// Whether it takes a thread to the next system call of a program that is being linked.
fn is_of_linking(call: u64, last: u64) -> bool {
    call == PTRACE_SYSCALL && !CHANGES.contains(&last)
}

/// Lets leaktap run to the `n`th request of ptrace(2) that `is_it` is true of, and kills it there.
fn run_to_request(leaktap: Pid, n: usize, is_it: fn(u64, u64) -> bool) -> bool {
    let (mut count, mut last) = (0, 0);
    run_to(leaktap, |call| {
        if call.orig_rax == SYS_ptrace as u64 {
            count += usize::from(is_it(call.rdi, last));
            last = call.rdi;
        }
        count == n
    })
}

/// Lets leaktap run to the first of its system calls that `is_it` is true of, and kills it there.
/// False if it ends before.
fn run_to(leaktap: Pid, mut is_it: impl FnMut(user_regs_struct) -> bool) -> bool {
    let mut is_entry = false;
    loop {
        let is_over = WaitPidFlag::WNOWAIT | WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED;
        let id = nix::sys::wait::Id::Pid(leaktap);
        let now = nix::sys::wait::waitid(id, is_over | WaitPidFlag::__WALL).expect("a child");
        if let WaitStatus::Exited(..) | WaitStatus::Signaled(..) = now {
            return false; // whoever started it reaps it
        }
        let signal = match waitpid(leaktap, Some(WaitPidFlag::__WALL)).expect("a stop") {
            WaitStatus::PtraceSyscall(_) => {
                is_entry = !is_entry;
                if is_entry && is_it(ptrace::getregs(leaktap).expect("registers")) {
                    send(leaktap, Signal::SIGKILL).expect("it lives");
                    return true;
                }
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            _ => None,
        };
        let _ = ptrace::syscall(leaktap, signal); // it has been killed
    }
}

engines! {
    /// Nor does a program that was executed under trace notice.
    fn a_program_that_was_executed_goes_on_after_a_kill_at_any_call(engine) {
        let fixture = Fixture::new("exec.c");
        let mut n = 1;
        loop {
            let mut target = fixture.start();
            let tracing = attach(engine, target.pid(), &["--duration", "5s"]);
            let leaktap = tracing.process().pid();
            trace(leaktap);
            target.begin();
            let is_killed = run_to_request(leaktap, n, is_of_our_call);
            tracing.wait();
            target.process().stdout_line("done");
            target.end().succeeded();
            if !is_killed {
                break;
            }
            n += 1;
        }
        assert!(n > 20 || engine == Engine::Breakpoint, "{n} requests");
    }

    /// Whatever a leaktap has made before it was killed, the next one takes out.
    fn nothing_stays_of_a_leaktap_that_was_killed_at_any_call(engine) {
        let target = Fixture::new("realloc.c").start_for(ALL_DRAWS);
        let before = Snapshot::of(target.pid());
        let mut n = 1;
        while is_killed_at(n, engine, &target) {
            attach(engine, target.pid(), &["--duration", "1ms"]).wait().succeeded();
            let changes = before.changes_of_idle(target.pid());
            assert!(changes.is_empty(), "request {n}: {changes:#?}");
            n += 1;
        }
        target.end().succeeded();
    }

    fn a_target_that_looks_at_itself_stays_whole(engine) {
        let mut target = Fixture::new("whole.c").start_for(ALL_DRAWS);
        for draw in 0..DRAWS {
            die(engine, &target, draw);
        }
        attach(engine, target.pid(), &["--duration", "5ms"]).wait().succeeded();
        target.work();
        target.end().succeeded();
    }
}

/// What awaits the end of a program's linking is code that stays if leaktap is killed, and is taken
/// out by the next one.
#[test]
fn nothing_stays_of_a_leaktap_that_was_killed_while_a_program_is_linked() {
    let fixture = Fixture::new("exec.c");
    for n in (1..).step_by(7) {
        let mut target = fixture.start();
        let tracing = attach(Engine::Auto, target.pid(), &["--duration", "5s"]);
        let leaktap = tracing.process().pid();
        trace(leaktap);
        target.begin();
        let is_killed = run_to_request(leaktap, n, is_of_linking);
        tracing.wait();
        target.process().stdout_line("done");
        let next = attach(Engine::Auto, target.pid(), &["--duration", "1ms"]);
        next.wait().succeeded();
        let left = left_behind(target.pid());
        assert!(left.is_empty(), "request {n}: {left:#?}");
        target.end().succeeded();
        if !is_killed {
            assert!(n > 20, "{n} requests");
            break;
        }
    }
}

/// PTRACE_GETEVENTMSG: here, which child has been forked.
const GETEVENTMSG: u64 = 0x4201;

/// The process that stands by for `target`.
fn guard_of(target: Pid) -> Option<Pid> {
    let orders = format!("guard\0{target}\0");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let is_it = |process: &fs::DirEntry| {
        let line = fs::read(process.path().join("cmdline"));
        line.is_ok_and(|line| line.ends_with(orders.as_bytes()))
    };
    let mut guards = processes.filter(is_it);
    let name = guards.next()?.file_name();
    Some(Pid::from_raw(name.to_str()?.parse().ok()?))
}

fn await_end_of_guard(target: Pid) {
    let begun = Instant::now();
    while guard_of(target).is_some() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{target}");
        std::thread::yield_now();
    }
}

/// Attaches to `target`, and is killed as it detaches while the agent's exits are shut, after the
/// process that stands by. False if they were not, as no thread was in the agent.
fn dies_with_shut_exits(target: &Target) -> bool {
    /// `jmp`, of two bytes.
    const SHUT: u8 = 0xeb;
    let tracing = attach(Engine::Auto, target.pid(), &[]);
    let leaktap = tracing.process().pid();
    let guard = guard_of(target.pid()).expect("it stands by");
    send(guard, Signal::SIGKILL).expect("it lives");
    trace(leaktap);
    tracing.process().signal(Signal::SIGTERM);
    let mut is_shut = false;
    let is_killed = run_to(leaktap, |call| {
        if call.orig_rax == SYS_pwrite64 as u64 && call.rdx == 1 {
            let byte = ptrace::read(leaktap, call.rsi as *mut _).unwrap_or_default();
            is_shut = byte.to_le_bytes()[0] == SHUT;
        }
        // While threads run to them.
        is_shut && call.orig_rax == SYS_clock_nanosleep as u64
    });
    tracing.wait();
    is_killed
}

/// Threads go round there until the next leaktap takes them out.
#[test]
fn exits_that_a_killed_leaktap_has_shut_are_left_by_the_next_one() {
    let mut target = Fixture::new("busy.c").start_for(ALL_DRAWS);
    while !dies_with_shut_exits(&target) {}
    let traced = attach(Engine::Auto, target.pid(), &["--duration", "1ms"]).wait();
    let notes = traced.succeeded().at("/notes").to_string();
    assert!(notes.contains("an earlier leaktap"), "{notes}");
    target.work();
    target.end().succeeded();
}

/// A child that is forked as leaktap is killed has the same breakpoints, and they are taken out of
/// it, too.
#[test]
fn a_child_that_is_forked_as_leaktap_is_killed_has_no_breakpoints() {
    let mut target = Fixture::new("fork_waits.c").start();
    let tracing = attach(Engine::Breakpoint, target.pid(), &[]);
    let leaktap = tracing.process().pid();
    trace(leaktap);
    target.begin();
    assert!(run_to_request(leaktap, 1, |call, _| call == GETEVENTMSG));
    tracing.wait();
    target.process().stdout_line("forked");
    await_end_of_guard(target.pid());
    target.work();
    target.end().succeeded();
}
