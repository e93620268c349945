//! Calls of mmap(2) and its kin: which are noted, and how; and which stacks are forgotten.
#![allow(
    clippy::unwrap_used,
    reason = "a failure to prepare is a failure of the test"
)]

mod host;

use std::mem::transmute;
use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};

use host::{Host, backtrace};
use leaktap_agent::Shape;
use leaktap_agent::layout::{Control, Loss, MAPPINGS, Region};
use leaktap_agent::mapping::Noted;
use leaktap_api::Action;
use leaktap_ledger::StackId;

type Six = extern "C" fn(usize, usize, usize, usize, usize, usize) -> usize;

/// All arguments arrive, in their order.
extern "C" fn original(a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> usize {
    [a, b, c, d, e, f]
        .iter()
        .fold(0, |sum: usize, n| sum.wrapping_mul(31).wrapping_add(*n))
}

extern "C" fn succeeds(_: usize, _: usize, _: usize, _: usize, _: usize, _: usize) -> usize {
    0
}

extern "C" fn fails(_: usize, _: usize, _: usize, _: usize, _: usize, _: usize) -> usize {
    usize::MAX
}

/// A detour as leaktap makes one for a function that does this.
fn detour(host: &Host, original: Six, action: Action) -> Six {
    let shape = match action {
        Action::PROTECT | Action::LOCK => Shape::Gate,
        _ => Shape::FullAround,
    };
    let original = original as *const () as usize;
    // SAFETY: a stub is called as its original is.
    unsafe { transmute(host.stub(shape, original, original, action)) }
}

#[inline(never)]
fn call(detour: Six, at: usize, len: usize) -> (usize, Vec<u64>) {
    (detour(at, len, 3, 4, 5, 6), backtrace())
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

fn seen(at: usize, len: usize) -> usize {
    original(at, len, 3, 4, 5, 6)
}

#[test]
fn calls_of_the_program_are_noted_with_their_stacks() {
    let host = Host::new();
    let map = detour(&host, original, Action::MAP);
    let unmap = detour(&host, succeeds, Action::UNMAP);
    let (result, stack) = call(map, 0x1000, 0x2000);
    assert_eq!(result, seen(0x1000, 0x2000));
    call(unmap, 0x1000, 0x2000);
    let [mapped, unmapped] = host.noted(0)[..] else {
        panic!("two notes")
    };
    let mut frames = Vec::new();
    let kept = host
        .ledger()
        .stack(StackId(mapped.stack), |frame| frames.push(frame));
    assert_eq!(kept.unwrap().kind, 7);
    assert_eq!(frames[1..], stack[1..], "the callers of `call`");
    let expected = Noted {
        action: Action::MAP,
        kind: 7,
        ret: frames[0],
        arguments: [0x1000, 0x2000, 3],
        result: result as u64,
        stack: mapped.stack,
        time: 0,
        begun: 0,
    };
    assert_eq!(mapped, expected);
    let expected = (Action::UNMAP, [0x1000, 0x2000, 3], 0, 1);
    let Noted {
        action,
        arguments,
        result,
        begun,
        ..
    } = unmapped;
    assert_eq!((action, arguments, result, begun), expected);
    assert_eq!(host.thread().outer.load(Relaxed), 0);
    assert_eq!(host.losses(), 0);
}

#[test]
fn calls_that_fail_or_mean_nothing_are_not_noted() {
    let host = Host::new();
    for action in [
        Action::MAP,
        Action::UNMAP,
        Action::REMAP,
        Action::SET_BREAK,
        Action::MOVE_BREAK,
        Action::GIVE_BACK,
    ] {
        assert_eq!(
            call(detour(&host, fails, action), 0x1000, 0x2000).0,
            usize::MAX
        );
    }
    assert_eq!(host.noted(0), []);
    let give_back = detour(&host, succeeds, Action::GIVE_BACK);
    let all = !0xffff_ffff;
    for advice in [3, 4, all | 8, all | 3, 5, 0] {
        give_back(0x1000, 0x2000, advice, 4, 5, 6);
    }
    let advice = |noted: &Noted| noted.arguments[2] as u32;
    let noted: Vec<_> = host.noted(0).iter().map(advice).collect();
    assert_eq!(noted, [4, 8]);
}

#[test]
fn the_end_of_the_heap_segment_is_noted_as_it_was() {
    static END: AtomicU64 = AtomicU64::new(0x7000);
    extern "C" fn moves(to: usize, _: usize, _: usize, _: usize, _: usize, _: usize) -> usize {
        END.store(to as u64, Relaxed);
        0
    }
    let host = Host::new();
    let set = detour(&host, moves, Action::SET_BREAK);
    call(set, 0x9000, 0);
    assert_eq!(host.noted(0), [], "nobody knows where it was");
    // SAFETY: as in `be_the_library`.
    unsafe { (*control(&host)).current_break = END.as_ptr() as u64 };
    call(set, 0xb000, 0);
    let noted = host.noted(0);
    assert_eq!(noted[0].arguments[..2], [0xb000, 0x9000]);
}

#[test]
fn what_an_allocator_maps_is_its_own() {
    static MAP: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn allocates(size: usize) -> usize {
        // SAFETY: what the test has put there.
        let map: Six = unsafe { transmute(MAP.load(Relaxed)) };
        map(0, size, 3, 4, 5, 6);
        0x5000
    }
    let host = Host::new();
    MAP.store(detour(&host, original, Action::MAP) as usize, Relaxed);
    let malloc = host.probe(allocates as *const () as usize, Action::ALLOCATE.sized(0));
    // SAFETY: a stub is called as its original is.
    let malloc: extern "C" fn(usize) -> usize = unsafe { transmute(malloc) };
    assert_eq!(malloc(100), 0x5000);
    assert_eq!((host.noted(0), host.live().len()), (vec![], 1));
}

#[test]
fn calls_of_the_library_pass_and_stacks_are_forgotten() {
    let host = Host::new();
    let [protect, unmap, map_at] =
        [Action::PROTECT, Action::UNMAP, Action::MAP].map(|action| detour(&host, original, action));
    let stacks = |known: &[AtomicU64]| {
        let entries = known[1..].chunks(2);
        let stacks = entries.filter(|e| e[0].load(Relaxed) < e[1].load(Relaxed));
        stacks.count()
    };
    let ranges = || host.control().live.ranges.load(Acquire);
    be_the_library(&host);
    let before = ranges();
    assert_eq!(call(protect, 0x1000, 0x2000).0, seen(0x1000, 0x2000));
    assert_eq!(call(unmap, 0, 0x2000).0, seen(0, 0x2000));
    assert_eq!(ranges(), before, "nothing was unmapped");
    assert_eq!(call(unmap, 0x1000, 0x2000).0, seen(0x1000, 0x2000));
    assert_eq!(ranges(), before + 1);

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
        assert_eq!(call(unmap, at, len).0, seen(at, len));
        assert_eq!(stacks(known), left, "{at:#x} {len:#x}");
        assert_eq!(ranges(), before + 1);
    }
    // A place that mmap is only wished to choose need not be it.
    for (flags, left) in [(0x22, 3), (0x32, 2), (0x10_0022, 3)] {
        let known = know(&host, [0x2000..0x4000, 0x4000..0x5000, 0x6000..0x8000]);
        map_at(0x2000, 0x1000, 3, flags, 5, 6);
        assert_eq!(stacks(known), left, "{flags:#x}");
    }
    assert_eq!((host.noted(0), host.losses()), (vec![], 0));
}

#[test]
fn what_nobody_reads_is_lost_once_there_is_no_room() {
    let host = Host::new();
    let unmap = detour(&host, succeeds, Action::UNMAP);
    for _ in 0..MAPPINGS + 3 {
        unmap(0x1000, 0x2000, 3, 4, 5, 6);
    }
    let lost = &host.control().told.losses[Loss::Unread as usize];
    assert_eq!(lost.load(Relaxed), 3);
    assert_eq!(host.noted(0).len(), MAPPINGS);
    unmap(0x1000, 0x2000, 3, 4, 5, 6);
    assert_eq!(host.noted(MAPPINGS as u64).len(), 1);
    assert_eq!(host.losses(), 3);
}

/// What the tracer may have to be gone for is told, and the tracer waited for.
#[test]
fn the_tracer_is_asked_where_code_is_made_writable_or_all_is_locked() {
    let host = Host::new();
    let protect = detour(&host, original, Action::PROTECT);
    let lock = detour(&host, original, Action::LOCK);
    let code = (original as *const () as usize) & !0xfff;
    let asked = |function: Six, at: usize, protection: usize| {
        let changes = &host.control().told.changes;
        let before = changes.load(Relaxed);
        let result = function(at, 0x1000, protection, 4, 5, 6);
        assert_eq!(result, original(at, 0x1000, protection, 4, 5, 6));
        changes.load(Relaxed) - before
    };
    assert_eq!(
        [
            asked(protect, code, 5),
            asked(protect, code, 7),
            asked(protect, 0x1000, 7),
            asked(lock, 1, 0),
            asked(lock, 2, 0),
            asked(lock, 5, 0),
        ],
        [0, 1, 0, 1, 0, 0]
    );
    let noted = host.noted(0);
    let told: Vec<_> = noted
        .iter()
        .map(|n| (n.arguments[0], n.arguments[2]))
        .collect();
    let (code_at, at) = (code as u64, 0x1000);
    assert_eq!(
        told,
        [(code_at, 5), (code_at, 7), (at, 7), (1, 0), (2, 0), (5, 0)]
    );
    // In a forked child there is nobody to ask: there the header page is wiped.
    host.header().control.store(0, Release);
    assert_eq!(asked(protect, code, 7), 0);
    assert_eq!((host.noted(6), host.losses()), (vec![], 0));
}

/// A page that was found readable may be so no more.
#[test]
fn what_closes_pages_is_told() {
    let host = Host::new();
    let [protect, give_back] =
        [Action::PROTECT, Action::GIVE_BACK].map(|action| detour(&host, original, action));
    let ranges = || host.control().live.ranges.load(Relaxed);
    for (detour, how, closes) in [
        (protect, 0, 1),
        (protect, 1, 0),
        (give_back, 102, 1),
        (give_back, 4, 0),
    ] {
        let before = ranges();
        detour(0x1000, 0x1000, how, 4, 5, 6);
        assert_eq!(ranges() - before, closes, "{how}");
    }
}
