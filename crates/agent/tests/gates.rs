//! Gates: who runs into the int3, and who passes.
#![allow(
    clippy::unwrap_used,
    reason = "a failure to prepare is a failure of the test"
)]

mod host;

use std::mem::transmute;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};

use host::Host;
use leaktap_agent::Shape;
use leaktap_agent::layout::{Control, Region};
use leaktap_api::Action;
use nix::libc;

type Six = extern "C" fn(usize, usize, usize, usize, usize, usize) -> usize;

static TRAPS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_trap(_: i32) {
    TRAPS.fetch_add(1, Relaxed);
}

/// All arguments arrive, in their order.
extern "C" fn original(a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> usize {
    [a, b, c, d, e, f]
        .iter()
        .fold(0, |sum: usize, n| sum.wrapping_mul(31).wrapping_add(*n))
}

/// A call of a gate: its result, and how often it ran into the int3.
#[inline(never)]
fn call(gate: Six, at: usize, len: usize) -> (usize, usize) {
    let before = TRAPS.load(Relaxed);
    let result = gate(at, len, 3, 4, 5, 6);
    (result, TRAPS.load(Relaxed) - before)
}

fn control(host: &Host) -> *mut Control {
    (host.control() as *const Control).cast_mut()
}

/// As if this whole program were the C library.
fn be_the_library(host: &Host) {
    let start = 0;
    let end = u64::MAX;
    // SAFETY: nobody reads it meanwhile: this test has one thread, and an agent of its own.
    unsafe { (*control(host)).system[1] = Region { start, end } };
}

/// Has `stacks` be the stacks of threads: the table.
fn know<const N: usize>(host: &Host, stacks: [Range<u64>; N]) -> &'static [AtomicU64] {
    let ranges = stacks.iter().flat_map(|stack| [stack.start, stack.end]);
    let table = [2 * N as u64].into_iter().chain(ranges);
    let table: Vec<_> = table.map(AtomicU64::new).collect();
    let table = table.leak();
    host.control().live.stacks.publish(table.as_ptr() as u64);
    table
}

#[test]
fn calls_of_the_library_pass_and_others_do_not_and_stacks_are_forgotten() {
    // SAFETY: the handler only counts.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &action, null_mut()), 0);
    }
    let host = Host::new();
    let [map, unmap, map_at] = [Action::PROTECT, Action::UNMAP, Action::MAP].map(|action| {
        let original = original as *const () as usize;
        let gate = host.stub(Shape::Gate, original, original, action);
        // SAFETY: a stub is called as its original is.
        unsafe { transmute::<usize, Six>(gate) }
    });
    // SAFETY: a stub is called as its original is.
    let give_back: Six = unsafe {
        let original = original as *const () as usize;
        transmute(host.stub(Shape::Gate, original, original, Action::GIVE_BACK))
    };
    let stacks = |known: &[AtomicU64]| {
        let entries = known[1..].chunks(2);
        let stacks = entries.filter(|e| e[0].load(Relaxed) < e[1].load(Relaxed));
        stacks.count()
    };
    let ranges = || host.control().live.ranges.load(Acquire);
    let seen = original(0x1000, 0x2000, 3, 4, 5, 6);
    for gate in [map, unmap] {
        assert_eq!(call(gate, 0x1000, 0x2000), (seen, 1));
    }
    let all = !0xffff_ffff;
    for (advice, traps) in [(3, 0), (4, 1), (all | 8, 1), (all | 3, 0), (5, 0)] {
        let before = TRAPS.load(Relaxed);
        give_back(0x1000, 0x2000, advice, 4, 5, 6);
        assert_eq!(TRAPS.load(Relaxed) - before, traps, "{advice}");
    }
    be_the_library(&host);
    let before = ranges();
    assert_eq!(call(map, 0x1000, 0x2000), (seen, 0));
    assert_eq!(call(unmap, 0, 0x2000), (original(0, 0x2000, 3, 4, 5, 6), 0));
    assert_eq!(ranges(), before, "nothing was unmapped");
    assert_eq!(call(unmap, 0x1000, 0x2000), (seen, 0));
    assert_eq!(ranges(), before + 1);

    // Whose stacks they are, nobody needs to be told.
    for (at, len, left) in [
        (0x1000, 0x1000, 3),
        (0x1000, 0x1001, 2),
        (0x2000, 0x2000, 2),
        (0x3fff, 1, 2),
        (0x3fff, 2, 1),
        (0x2000, usize::MAX, 0),
        (0x3000, usize::MAX, 0),
        (0x4000, 0x1000, 2),
        (0x6000, 0x1000, 2),
        (0x5000, 0x1000, 3),
        (0x8000, usize::MAX, 3),
    ] {
        let before = ranges();
        let known = know(&host, [0x2000..0x4000, 0x4000..0x5000, 0x6000..0x8000]);
        assert_eq!(call(unmap, at, len), (original(at, len, 3, 4, 5, 6), 0));
        assert_eq!(stacks(known), left, "{at:#x} {len:#x}");
        assert_eq!(ranges(), before + 1);
    }
    // A place that mmap is only wished to choose need not be it.
    for (flags, left) in [(0x22, 3), (0x32, 2), (0x10_0022, 3)] {
        let known = know(&host, [0x2000..0x4000, 0x4000..0x5000, 0x6000..0x8000]);
        map_at(0x2000, 0x1000, 3, flags, 5, 6);
        assert_eq!(stacks(known), left, "{flags:#x}");
    }
    // In a forked child nobody serves an int3: there the header page is wiped.
    host.header().control.store(0, Release);
    assert_eq!(call(unmap, 0x2000, 0x2000).1, 0);
    assert_eq!(host.losses(), 0);
}
