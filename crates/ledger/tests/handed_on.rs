//! Blocks that one thread allocates and another frees, as an allocator hands their addresses round.
//!
//! Miri tries orders of memory that this processor does not. It takes some minutes and a nightly
//! toolchain, so it is no part of `tests/run`:
//!
//!     MIRIFLAGS="-Zmiri-many-seeds=0..16 -Zmiri-ignore-leaks" cargo +nightly miri test -p
//!     leaktap-ledger thread
#![allow(
    clippy::unwrap_used,
    reason = "a failure to prepare is a failure of the test"
)]

mod support;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use leaktap_ledger::{Block, FamilyId, Kept, Ledger, StackId};
use support::ledger;

const TABLES: u32 = if cfg!(miri) { 1 } else { 6 };
const ADDRESSES: u64 = if cfg!(miri) { 40 } else { 200_000 };
const ROUNDS: u64 = if cfg!(miri) { 60 } else { 300_000 };
const THREADS: u64 = 3;
/// Blocks that each thread keeps.
const HELD: usize = if cfg!(miri) { 2 } else { 20_000 };

/// Any of `pool`, by a number that changes from call to call.
fn any<T>(pool: &Mutex<Vec<T>>, number: u64) -> Option<T> {
    let mut pool = pool.lock().unwrap();
    let len = pool.len();
    (len > 0).then(|| pool.swap_remove(number as usize % len))
}

#[test]
fn a_block_is_found_by_whichever_thread_frees_it() {
    let ledger = ledger(TABLES);
    // What the allocator has, and what the program has. Neighbours meet in the same buckets.
    let free = Mutex::new((1..=ADDRESSES).map(|n| n * 16).collect::<Vec<u64>>());
    let held = Mutex::new(Vec::new());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (free, held) = (&free, &held);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let number = (round * THREADS + thread).wrapping_mul(0x9e37_79b9) >> 7;
                        if let Some(addr) = any(free, number) {
                            let block = Block {
                                key: addr.into(),
                                size: round * THREADS + thread,
                                stack: StackId(round as u32 % 1000),
                                time: round as u32,
                            };
                            let replaced = ledger.allocated(thread as usize, &block);
                            assert_eq!(replaced, Ok(None), "nobody else has {addr:#x}");
                            held.lock().unwrap().push(block);
                        }
                        if number % 5 < 4
                            && let Some(block) = any(held, number)
                        {
                            assert_eq!(
                                ledger.freed(thread as usize, block.key.addr()),
                                Some(block)
                            );
                            free.lock().unwrap().push(block.key.addr());
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !over.load(Relaxed) {
                for block in ledger.live() {
                    let is_ours = block.key.addr() % 16 == 0 && block.key.addr() <= 16 * ADDRESSES;
                    assert!(is_ours, "{block:?} was never entered");
                }
            }
        });
        // A panic in there must not leave the reader running.
        let ends: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        over.store(true, Relaxed);
        assert!(ends.iter().all(Result::is_ok));
    });
    for block in held.into_inner().unwrap() {
        assert_eq!(ledger.freed(0, block.key.addr()), Some(block));
    }
    let totals = ledger.totals(FamilyId::FIRST);
    assert_eq!(totals.allocations, totals.frees);
    assert_eq!((totals.unmatched_frees, totals.missed_frees), (0, 0));
    assert_eq!(ledger.live().count(), 0);
}

/// The only block that is ever at `addr`, by a stack of its own.
fn only_block(ledger: Ledger<'_>, addr: u64) -> Block {
    Block {
        key: addr.into(),
        size: addr * 3,
        stack: ledger.intern(&frames(addr), Kept::default()).unwrap(),
        time: !addr as u32,
    }
}

fn frames(addr: u64) -> [u64; 2] {
    [0x7000 + addr % 97, 0x6000 + addr % 5]
}

#[test]
fn what_is_seen_of_a_block_is_its_own_while_threads_use_places_again() {
    let ledger = ledger(TABLES);
    let at_work = AtomicU64::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let at_work = &at_work;
            scope.spawn(move || {
                let mut held = VecDeque::new();
                for round in 0..ROUNDS {
                    let block = only_block(ledger, 16 * (1 + thread + THREADS * round));
                    ledger.allocated(thread as usize, &block).unwrap();
                    held.push_back(block);
                    if held.len() > HELD {
                        let oldest = held.pop_front().unwrap();
                        let freed = ledger.freed(thread as usize, oldest.key.addr());
                        assert_eq!(freed, Some(oldest));
                    }
                }
                at_work.fetch_sub(1, Relaxed);
            });
        }
        scope.spawn(|| {
            while at_work.load(Relaxed) > 0 {
                for block in ledger.live() {
                    let Block {
                        key, size, time, ..
                    } = block;
                    let addr = key.addr();
                    assert_eq!((size, time), (addr * 3, !addr as u32), "{addr:#x}");
                    let mut seen = Vec::new();
                    let kept = ledger.stack(block.stack, |frame| seen.push(frame));
                    assert_eq!(
                        (&seen[..], kept),
                        (&frames(addr)[..], Some(Kept::default()))
                    );
                }
            }
        });
    });
    assert_eq!(ledger.live().count() as u64, THREADS * HELD as u64);
}

#[test]
fn threads_give_a_stack_one_number_or_two_that_mean_it() {
    const STACKS: u64 = if cfg!(miri) { 6 } else { 2000 };
    let ledger = ledger(TABLES);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for n in 0..2 * STACKS {
                    let stack = [0x7000 + n % STACKS, 0x6000 + n % 3, 0x5000];
                    let id = ledger.intern(&stack, Kept::default()).unwrap();
                    let mut frames = Vec::new();
                    let kept = ledger.stack(id, |frame| frames.push(frame));
                    assert_eq!((frames, kept), (stack.to_vec(), Some(Kept::default())));
                }
            });
        }
    });
}
