//! leaktap is killed at any moment of attach and detach, and its target does not notice.

use std::fs;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

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

engines! {
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
