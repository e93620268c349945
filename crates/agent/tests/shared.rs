//! The tracer's side of the shared memory.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::Ordering::Relaxed;

use leaktap_agent::{KEYS_AT, LEDGER_AT, ROOM_AT, Shared};
use leaktap_ledger::{Block, FamilyId};
use nix::sys::memfd::{MFdFlags, memfd_create};

const PIECE: u64 = 64 << 10;

fn memory() -> (File, Shared) {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd_create("test", flags).unwrap());
    let shared = Shared::in_file(file.try_clone().unwrap()).unwrap();
    (file, shared)
}

/// Moves all, and returns in how many pieces.
fn moved(from: &Shared) -> (Shared, usize) {
    let mut home = Shared::private().unwrap();
    let mut at = 0;
    for pieces in 0.. {
        match home.move_here(from, at, PIECE).unwrap() {
            Some(next) => at = next,
            None => return (home, pieces),
        }
    }
    unreachable!("a file ends")
}

#[test]
fn nothing_in_use_is_no_piece() {
    assert_eq!(moved(&memory().1).1, 0);
}

#[test]
fn what_was_counted_moves_and_leaves_only_the_beginning() {
    let (file, shared) = memory();
    shared.live().clock.store(7, Relaxed);
    file.write_all_at(&vec![1; 2 << 20], ROOM_AT + 8192)
        .unwrap();
    let ledger = shared.ledger();
    let stack = ledger.intern(&[1, 2, 3], Default::default()).unwrap();
    for n in 1..=100_000_u64 {
        let block = Block {
            key: (n << 16).into(),
            size: n,
            stack,
            time: 0,
        };
        ledger.allocated(0, &block).unwrap();
    }
    let in_use = || file.metadata().unwrap().blocks();
    let sizes = |shared: &Shared| {
        let mut sizes: Vec<_> = shared.blocks().map(|block| block.size).collect();
        sizes.sort_unstable();
        sizes
    };
    let used = in_use();
    let before = sizes(&shared);
    assert_eq!(before.len(), 100_000);
    assert_eq!(in_use(), used, "whoever looks makes no memory");

    let (home, pieces) = moved(&shared);
    assert!(pieces > 32, "{pieces}");
    assert_eq!(sizes(&home), before);
    assert_eq!(
        home.ledger().totals(FamilyId::FIRST),
        ledger_totals(100_000)
    );
    let mut frames = Vec::new();
    home.ledger().stack(stack, |raw| frames.push(raw)).unwrap();
    assert_eq!(frames, [1, 2, 3]);
    assert_eq!(home.live().clock.load(Relaxed), 7);
    assert_eq!(shared.live().clock.load(Relaxed), 7);
    assert!(512 * in_use() <= KEYS_AT);
}

/// Sums of blocks of 1 to `n` bytes.
fn ledger_totals(n: u64) -> leaktap_ledger::Totals {
    leaktap_ledger::Totals {
        allocations: n,
        allocated_bytes: n * (n + 1) / 2,
        ..Default::default()
    }
}

/// What the agent needs for itself may end less than a piece before the ledger.
#[test]
fn a_piece_ends_where_the_ledger_begins() {
    let (file, shared) = memory();
    file.write_all_at(&[1], LEDGER_AT - 8192).unwrap();
    let ledger = shared.ledger();
    let stack = ledger.intern(&[1, 2, 3], Default::default()).unwrap();
    let block = Block {
        key: (1 << 16).into(),
        size: 1,
        stack,
        time: 0,
    };
    ledger.allocated(0, &block).unwrap();
    let (home, _) = moved(&shared);
    assert_eq!(home.ledger().totals(FamilyId::FIRST), ledger_totals(1));
    assert!(home.ledger().stack(stack, |_| ()).is_some());
    assert_eq!(home.blocks().collect::<Vec<_>>(), [block]);
}

#[test]
fn pages_far_apart_move_one_by_one() {
    let (file, shared) = memory();
    for page in 0..512 {
        file.write_all_at(&[1], LEDGER_AT + page * PIECE * 3)
            .unwrap();
    }
    assert_eq!(moved(&shared).1, 512);
    assert_eq!(file.metadata().unwrap().blocks(), 0);
}
