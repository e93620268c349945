//! What threads of the agent, and the tracer, share without locks: keys, spare states, tables that
//! are exchanged.
//!
//! The agent's own sources, called by threads of this process. Miri tries orders of memory that
//! this processor does not, and tells where nothing orders two accesses. It needs a nightly
//! toolchain, so it is no part of `tests/run`:
//!
//!     MIRIFLAGS="-Zmiri-many-seeds=0..16 -Zmiri-permissive-provenance -Zmiri-ignore-leaks" \
//!         cargo +nightly miri test -p leaktap-agent --test threads
#![allow(
    clippy::unwrap_used,
    reason = "a failure to prepare is a failure of the test"
)]

#[path = "../blob/agent.rs"]
#[allow(dead_code, reason = "how a detour finds the agent is not needed")]
mod agent;
#[path = "../blob/frees.rs"]
#[allow(dead_code, reason = "nor who has freed what")]
mod frees;
#[path = "../blob/kernel.rs"]
#[allow(dead_code, reason = "nor is the tracer waited for")]
mod kernel;
#[path = "../blob/record.rs"]
#[allow(dead_code, reason = "only what is not remembered is needed")]
mod record;
#[path = "../blob/rules.rs"]
mod rules;
#[path = "../blob/stack.rs"]
#[allow(dead_code, reason = "nor is what gates do")]
mod stack;

use std::alloc::{Layout, alloc_zeroed};
use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc;

use agent::{Agent, stripe};
use leaktap_agent::layout::{self, BUSY, Control, KEYS, Module, Region, SPARES, STACKS, Thread};
use leaktap_agent::tally::{self, Sum};
use leaktap_ledger::{Ledger, reserved};
use leaktap_unwind::{Cfa, Row, Rule, SavedBp, Step};
use record::{Allocated, Sought};

const KEY_BITS: u32 = 1;
const THREADS: usize = if cfg!(miri) { 3 } else { KEYS };
const ROUNDS: u32 = if cfg!(miri) { 20 } else { 20_000 };
const PAGE: usize = 4096;
/// Words of a place for a table.
const PLACE: usize = 64;

/// Zeroed memory. Leaked.
fn zeroed(len: usize, align: usize) -> *mut u8 {
    // SAFETY: none of the lengths here is 0.
    unsafe { alloc_zeroed(Layout::from_size_align(len, align).unwrap()) }
}

/// The two places of a table, written to in turn as the tracer does. Leaked.
struct Places(u64, u64);

impl Places {
    fn new() -> Places {
        let place = || zeroed(8 * PLACE, 64) as u64;
        Places(place(), place())
    }

    /// A table, where it was the time before last.
    fn put(&mut self, entries: &[u64]) -> u64 {
        let Places(next, last) = self;
        std::mem::swap(next, last);
        let place = *last as *const AtomicU64;
        for (index, word) in [entries.len() as u64].iter().chain(entries).enumerate() {
            // SAFETY: within the place, which has room for more words than any of the tables here.
            unsafe { (*place.add(index)).store(*word, Relaxed) };
        }
        *last
    }
}

/// The agent of a process without a stack or a module.
fn agent() -> Agent {
    let keys = KEYS << KEY_BITS;
    let control = zeroed(size_of::<Control>(), align_of::<Control>()).cast::<Control>();
    // SAFETY: zeroed memory is a Control; nobody else has it yet.
    let control = unsafe { &mut *control };
    control.keys = zeroed(8 * keys, 64) as u64;
    control.threads = zeroed(size_of::<Thread>() * (keys + SPARES), PAGE) as u64;
    control.ledger = zeroed(reserved(1), PAGE) as u64;
    control.sums = zeroed(STACKS * size_of::<Sum>(), PAGE) as u64;
    control.key_bits = KEY_BITS;
    control.tables = 1;
    control.depth = 8;
    Agent { control }
}

/// Fs bases that share a set of keys.
fn neighbours() -> impl Iterator<Item = u64> {
    let first = (1..).map(|n| n << 6);
    first.filter(|&fs| layout::set_of_keys(fs, KEY_BITS) == 1)
}

/// Work that is only right if no other thread does it on the same state.
fn work_on(state: *mut Thread) {
    // SAFETY: the state is this thread's, which is what is tested.
    unsafe { (*state).stack.low += 1 };
}

#[test]
fn a_key_is_one_threads_until_the_tracer_frees_it() {
    let agent = agent();
    let (ends, ended) = mpsc::channel();
    let done: u64 = std::thread::scope(|scope| {
        // As a new thread each time.
        let work = |thread: usize, ends: mpsc::Sender<usize>| {
            let mut done = 0;
            for fs in neighbours()
                .skip(thread)
                .step_by(THREADS)
                .take(ROUNDS as usize)
            {
                // All keys of the set may be taken by threads whose end has not been seen yet.
                if let Some(state) = agent.thread(fs) {
                    work_on(state);
                    assert_eq!(agent.thread(fs), Some(state));
                    ends.send(stripe(state)).unwrap();
                    done += 1;
                }
            }
            done
        };
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| (thread, ends.clone()))
            .map(|(thread, ends)| scope.spawn(move || work(thread, ends)))
            .collect();
        drop(ends);
        for index in ended {
            let keys = agent.control.keys as *const AtomicU64;
            // SAFETY: one of them; as `Shared::forget_thread` does.
            unsafe { (*keys.add(index)).store(0, Release) };
        }
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(worked(agent, KEYS..2 * KEYS), done);
}

/// How often [`work_on`] has run on these states, all of whose threads have ended.
fn worked(agent: Agent, states: Range<usize>) -> u64 {
    let first = agent.control.threads as *const Thread;
    // SAFETY: made by `agent`; nobody else works on them any more.
    let times = |index| unsafe { (*first.add(index)).stack.low };
    states.map(times).sum()
}

#[test]
fn a_spare_state_is_one_handlers_until_it_is_given_back() {
    let agent = agent();
    let done: u64 = std::thread::scope(|scope| {
        let work = || {
            let mut done = 0;
            for _ in 0..ROUNDS {
                if let Some(state) = agent.state(std::ptr::null_mut(), BUSY) {
                    work_on(state);
                    agent.done(state, BUSY);
                    done += 1;
                }
            }
            done
        };
        // More than there are spares.
        let threads: Vec<_> = (0..SPARES + 2).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    let first = KEYS << KEY_BITS;
    assert_eq!(worked(agent, first..first + SPARES), done);
    let lost = agent.control.told.losses[layout::Loss::NoSpare as usize].load(Relaxed);
    assert_eq!(done + lost, (SPARES as u64 + 2) * u64::from(ROUNDS));
}

/// Where the program's code seems to be.
const CODE: u64 = 0x40_0000;
/// The caller in a walk by rows number 0, and 16 bytes on that by the next ones.
const CALLER: u64 = 0x80_0000;
const VERSIONS: u64 = 30;

/// A table of one module, all of whose frames have `version + 1` words.
fn modules(version: u64) -> [u64; 5] {
    let rule = Rule::pack(Step::Call {
        cfa: Cfa::Sp(8 * (version as i32 + 1)),
        bp: SavedBp::Unchanged,
    });
    let rows = vec![Row::new(0, rule)].leak();
    let module = Module {
        range: Region {
            start: CODE,
            end: CODE + 0x1000,
        },
        base: CODE,
        rows: rows.as_ptr() as u64,
        len: 1,
    };
    module.words()
}

/// A stack of a call from [`CODE`], with a caller for each version; its range.
fn a_stack() -> Region {
    let words = zeroed(PAGE, PAGE).cast::<u64>();
    for index in 0..=VERSIONS {
        // SAFETY: within the page; nobody else has it yet.
        unsafe { *words.add(1 + index as usize) = CALLER + 16 * index };
    }
    // SAFETY: as above.
    unsafe { *words = CODE + 16 };
    let start = words as u64;
    Region {
        start,
        end: start + PAGE as u64,
    }
}

/// The version of the rows by which the stack of a block was taken that is allocated now.
fn version_of_a_walk(agent: Agent, thread: *mut Thread, sp: u64) -> u64 {
    let call = Allocated {
        key: sp.into(),
        size: 1,
        kind: 3,
        sp,
        bp: 0,
    };
    agent.allocated(thread, &call, Sought::NotYet);
    let ledger: Ledger<'_> = agent.ledger();
    let block = ledger.freed(stripe(thread), sp).unwrap();
    let mut frames = Vec::new();
    let kept = ledger.stack(block.stack, |frame| frames.push(frame));
    assert_eq!(kept.unwrap().kind, 3);
    assert_eq!((frames.len(), frames[0]), (2, CODE + 16), "{frames:x?}");
    (frames[1] - CALLER) / 16
}

#[test]
fn tables_are_exchanged_while_threads_walk_by_them() {
    let agent = agent();
    let live = &agent.control.live;
    let mut stacks: Vec<Region> = (0..THREADS).map(|_| a_stack()).collect();
    stacks.sort_by_key(|stack| stack.start);
    let (mut of_modules, mut of_stacks) = (Places::new(), Places::new());
    let ranges = stacks.iter().flat_map(|stack| [stack.start, stack.end]);
    let ranges: Vec<u64> = ranges.collect();
    live.publish_stacks(of_stacks.put(&ranges));
    live.modules.publish(of_modules.put(&modules(0)));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (fs, stack) in neighbours().zip(&stacks) {
            let over = &over;
            scope.spawn(move || {
                let thread = agent.thread(fs).unwrap();
                let mut last = false;
                while !last {
                    last = over.load(Acquire);
                    let generation = u64::from(live.generation.load(Acquire));
                    let version = version_of_a_walk(agent, thread, stack.start);
                    assert!(version >= generation, "{version} after {generation}");
                    assert!(version <= u64::from(live.generation.load(Acquire)) + 1);
                }
            });
        }
        for version in 1..=VERSIONS {
            live.publish_modules(of_modules.put(&modules(version)));
            live.publish_stacks(of_stacks.put(&ranges));
            std::thread::yield_now();
        }
        over.store(true, Release);
    });
    assert_eq!(
        agent
            .control
            .told
            .losses
            .iter()
            .map(|loss| loss.load(Relaxed))
            .sum::<u64>(),
        0
    );
}
