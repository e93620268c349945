use super::*;
use crate::layout::STACKS;
use crate::tally::COUNTED;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

fn shared() -> Shared {
    let file = File::from(memfd_create("test", MFdFlags::MFD_ALLOW_SEALING).unwrap());
    Shared::in_file(file).unwrap()
}

/// As the agent does it.
fn count(shared: &Shared, thread: usize, stack: u32, more: (u64, u64)) {
    let tally = shared.tally(tally_at(thread)).unwrap();
    if more.0 != 1 || !tally.count_again(stack, more.1) {
        let (_, sums) = shared.sums_in(&(SUMS_AT..LEDGER_AT));
        tally.count(stack, more, |stack| sums.get(stack as usize));
    }
}

#[test]
fn what_has_no_room_in_a_tally_is_in_the_sums() {
    let shared = shared();
    assert_eq!(shared.counts(), Counts::default());
    let stacks = 3 * COUNTED as u32;
    for round in 0..3 {
        for stack in 0..stacks {
            count(&shared, round % 2, stack * 7, (1, 10));
        }
    }
    // Of another stack after all.
    count(&shared, 0, 7, (1_u64.wrapping_neg(), 10_u64.wrapping_neg()));
    count(&shared, THREADS_LEN - 1, STACKS as u32 - 1, (1, 10));
    let counts = shared.counts();
    assert_eq!(counts.of(0), Some((3, 30)));
    assert_eq!(counts.of(7), Some((2, 20)));
    assert_eq!(counts.of(STACKS as u32 - 1), Some((1, 10)));
    assert_eq!(counts.of(5), None);
    assert_eq!(
        counts.sum(),
        (3 * u64::from(stacks), 30 * u64::from(stacks))
    );
}

/// Whoever reads meanwhile finds no call twice.
#[test]
fn threads_count_while_somebody_reads() {
    const CALLS: u64 = 300_000;
    let (shared, begun) = (shared(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (shared, begun) = (&shared, &begun);
            scope.spawn(move || {
                for call in 0..CALLS {
                    begun.fetch_add(1, SeqCst);
                    // Mostly some few, and others that drive them out.
                    let stack = if call % 5 < 4 { call % 5 } else { call % 9_973 };
                    count(shared, thread, stack as u32, (1, 16));
                }
            });
        }
        let mut blocks = 0;
        while blocks < CALLS {
            blocks = shared.counts().sum().0;
            assert!(blocks <= begun.load(SeqCst), "{blocks}");
        }
    });
    assert_eq!(shared.counts().sum(), (2 * CALLS, 2 * 16 * CALLS));
}

/// A target may write what it likes.
#[test]
fn nonsense_is_read_as_such() {
    let shared = shared();
    let (_, sums) = shared.sums_in(&(SUMS_AT..LEDGER_AT));
    for sum in sums.iter().step_by(1000) {
        sum.blocks.store(u64::MAX, Relaxed);
        sum.bytes.store(u64::MAX, Relaxed);
    }
    let tally = shared.tally(tally_at(3)).unwrap();
    tally.version.store(1, Relaxed); // for ever
    for count in &tally.counts {
        count.stack.store(u32::MAX, Relaxed);
        count.bytes.store(u64::MAX, Relaxed);
    }
    let counts = shared.counts();
    assert_eq!(counts.of(1000), Some((u64::MAX, u64::MAX)));
    assert_eq!(
        counts.of(u32::MAX),
        Some((0, (COUNTED as u64).wrapping_neg()))
    );
}
