//! The dynamic linker's changes: told, and awaited, by who calls the function that tells of them.
#![allow(
    clippy::unwrap_used,
    reason = "a failure to prepare is a failure of the test"
)]

mod host;

use std::mem::transmute;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::{Duration, Instant};

use host::Host;
use leaktap_agent::Shape;
use leaktap_agent::layout::{ALL, SERVED};
use leaktap_api::Action;

/// Longer than any wait.
const LONG: Duration = Duration::from_secs(10);

extern "C" fn original() {}

/// What the linker calls, as leaktap leaves it.
fn detour(host: &Host) -> extern "C" fn() {
    let original = original as *const () as usize;
    let stub = host.stub(Shape::Change, original, original, Action::CHANGE_MODULES);
    // SAFETY: a stub is called as its original is.
    unsafe { transmute(stub) }
}

/// Calls it; a tracer sees each change as soon as it is told of, or not until then.
fn changes(host: &Host, times: u32) {
    let (told, live) = (&host.control().told.changes, &host.control().live);
    live.served.store(SERVED, Relaxed);
    let change = detour(host);
    thread::scope(|scope| {
        let tracer = scope.spawn(|| {
            let begun = Instant::now();
            while live.seen.load(Relaxed) != times && begun.elapsed() < LONG {
                live.seen.store(told.load(Acquire), Release);
                thread::yield_now();
            }
        });
        for count in 1..=times {
            change();
            assert_eq!(live.seen.load(Acquire), count);
        }
        tracer.join().unwrap();
    });
    assert_eq!(live.served.load(Relaxed), SERVED);
}

#[test]
fn each_change_is_awaited() {
    let host = Host::new();
    host.control().live.kernel.store(1, Relaxed);
    changes(&host, 50); // nobody is woken here: some take 10 ms
}

#[test]
fn each_is_without_system_calls_too() {
    let host = Host::new();
    host.control().live.kernel.store(0, Relaxed);
    changes(&host, 50);
}

#[test]
fn nobody_waits_where_there_is_no_tracer() {
    let host = Host::new();
    let change = detour(&host);
    change();
    assert_eq!(host.control().told.changes.load(Acquire), 1);
    host.header().control.store(0, Relaxed);
    change();
    assert_eq!(host.control().told.changes.load(Acquire), 1);
}

#[test]
fn a_wait_in_vain_is_the_last_one() {
    for kernel in [1, 0] {
        let host = Host::new();
        let live = &host.control().live;
        live.kernel.store(kernel, Relaxed);
        live.served.store(SERVED, Relaxed);
        let change = detour(&host);
        let begun = Instant::now();
        change();
        assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
        assert_eq!(live.served.load(Relaxed), 0);
        (0..1000).for_each(|_| change());
        assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    }
}

/// Only the thread that is named, or all, go on without the tracer.
#[test]
fn a_thread_that_is_taken_out_does_not_wait() {
    let host = Host::new();
    let (change, live) = (detour(&host), &host.control().live);
    live.served.store(SERVED, Relaxed);
    let fs: u64;
    // SAFETY: glibc keeps the fs base there.
    unsafe { std::arch::asm!("mov {}, fs:0", out(reg) fs) };
    for leaving in [fs, ALL] {
        live.leaving.store(leaving, Relaxed);
        change();
        assert_eq!(
            live.served.load(Relaxed),
            SERVED,
            "it has not waited in vain"
        );
    }
    live.leaving.store(fs + 8, Relaxed);
    change();
    assert_eq!(live.served.load(Relaxed), 0, "it has waited");
    assert_eq!(live.seen.load(Relaxed), 0);
}

/// Callers may keep values anywhere: the function has changed no register.
#[test]
fn all_registers_are_as_they_were() {
    let host = Host::new();
    host.control().live.served.store(SERVED, Relaxed);
    host.control().live.kernel.store(1, Relaxed);
    host.control().live.seen.store(1, Relaxed);
    let change = detour(&host) as usize;
    let (mut rax, mut rcx, mut rdx, mut rsi, mut rdi) = (1_u64, 2_u64, 3_u64, 4_u64, 5_u64);
    let (mut r8, mut r9, mut r10, mut r11) = (6_u64, 7_u64, 8_u64, 9_u64);
    // SAFETY: a call that changes no register; there is no red zone below a call.
    unsafe {
        std::arch::asm!(
            "call {change}",
            change = in(reg) change,
            inout("rax") rax, inout("rcx") rcx, inout("rdx") rdx, inout("rsi") rsi,
            inout("rdi") rdi, inout("r8") r8, inout("r9") r9, inout("r10") r10, inout("r11") r11,
        );
    }
    let all = [rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11];
    assert_eq!(all, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}
