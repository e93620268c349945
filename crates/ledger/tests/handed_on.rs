//! Blocks that one thread allocates and another frees, as an allocator hands their addresses round.
//!
//! Miri tries orders of memory that this processor does not. It takes some minutes and a nightly toolchain, so it
//! is no part of `tests/run`; looking through all buckets, which nothing orders, is left out there:
//!
//!     MIRIFLAGS="-Zmiri-many-seeds=0..16 -Zmiri-ignore-leaks" cargo +nightly miri test -p leaktap-ledger --test handed_on
#![allow(
    clippy::unwrap_used,
    reason = "a failure to prepare is a failure of the test"
)]

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use leaktap_ledger::{Block, Kept, Ledger, StackId, reserved};

const TABLES: u32 = if cfg!(miri) { 1 } else { 6 };
const ADDRESSES: u64 = if cfg!(miri) { 40 } else { 200_000 };
const ROUNDS: u64 = if cfg!(miri) { 60 } else { 300_000 };
/// Looks through all buckets meanwhile.
const PASSES: u64 = if cfg!(miri) { 0 } else { u64::MAX };
const THREADS: u64 = 3;

/// An empty ledger. Leaked.
fn ledger() -> Ledger {
    let layout = std::alloc::Layout::from_size_align(reserved(TABLES), 4096).unwrap();
    // SAFETY: new, zeroed memory of the length and alignment that are asked for, and never freed.
    unsafe { Ledger::at(std::alloc::alloc_zeroed(layout), TABLES) }
}

/// Any of `pool`, by a number that changes from call to call.
fn any<T>(pool: &Mutex<Vec<T>>, number: u64) -> Option<T> {
    let mut pool = pool.lock().unwrap();
    let len = pool.len();
    (len > 0).then(|| pool.swap_remove(number as usize % len))
}

#[test]
fn a_block_is_found_by_whichever_thread_frees_it() {
    let ledger = ledger();
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
                                addr,
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
                            assert_eq!(ledger.freed(thread as usize, block.addr), Some(block));
                            free.lock().unwrap().push(block.addr);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            for _ in 0..PASSES {
                if over.load(Relaxed) {
                    break;
                }
                for block in ledger.live() {
                    let is_ours = block.addr % 16 == 0 && block.addr <= 16 * ADDRESSES;
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
        assert_eq!(ledger.freed(0, block.addr), Some(block));
    }
    let totals = ledger.totals();
    assert_eq!(totals.allocations, totals.frees);
    assert_eq!((totals.unmatched_frees, totals.missed_frees), (0, 0));
    if !cfg!(miri) {
        assert_eq!(ledger.live().count(), 0);
    }
}

#[test]
fn threads_give_a_stack_one_number_or_two_that_mean_it() {
    const STACKS: u64 = if cfg!(miri) { 6 } else { 2000 };
    let ledger = ledger();
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
