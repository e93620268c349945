//! Blocks and stacks that threads enter, take out and look at.

mod common;

use common::with_new_ledger;
use leaktap_loom::{Block, Kept, Ledger, StackId};
use loom::thread;

/// Blocks of one bucket, and with one way on from it: 64 bytes of the heap have a bucket, 8 a way.
const HEAP: u64 = 0x5000_0000;

fn block(number: u64) -> Block {
    Block {
        key: (HEAP + number).into(),
        size: 100 + number,
        stack: StackId(number as u32),
        time: 1000 + number as u32,
    }
}

fn enter(ledger: Ledger, number: u64) {
    assert_eq!(ledger.allocated(0, &block(number)), Ok(None), "{number}");
}

fn take(ledger: Ledger, number: u64) {
    assert_eq!(ledger.freed(0, HEAP + number), Some(block(number)));
}

fn live(ledger: Ledger) -> Vec<u64> {
    let mut live: Vec<u64> = ledger.live().map(|found| found.key.addr() - HEAP).collect();
    live.sort_unstable();
    live
}

#[test]
fn two_threads_after_the_last_place_of_a_bucket_both_get_one() {
    with_new_ledger(&[HEAP], |ledger| {
        for number in 1..3 {
            enter(ledger, number);
        }
        let other = thread::spawn(move || enter(ledger, 3));
        enter(ledger, 4);
        other.join().unwrap();
        assert_eq!(live(ledger), [1, 2, 3, 4]);
        for number in 1..5 {
            take(ledger, number);
        }
        assert_eq!(live(ledger), []);
        assert_eq!(ledger.freed(0, HEAP + 4), None);
    });
}

/// The mark that a block leaves in a full bucket is another's as well, who still looks for its own.
#[test]
fn a_block_that_passed_a_full_bucket_is_found_while_another_one_goes() {
    with_new_ledger(&[HEAP], |ledger| {
        for number in 1..6 {
            enter(ledger, number);
        }
        let other = thread::spawn(move || take(ledger, 4));
        take(ledger, 5);
        other.join().unwrap();
        assert_eq!(live(ledger), [1, 2, 3]);
    });
}

#[test]
fn a_place_that_is_used_again_belongs_to_one_of_two_blocks() {
    with_new_ledger(&[HEAP], |ledger| {
        for number in 1..4 {
            enter(ledger, number);
        }
        let other = thread::spawn(move || take(ledger, 1));
        enter(ledger, 4);
        other.join().unwrap();
        assert_eq!(live(ledger), [2, 3, 4]);
        take(ledger, 4);
    });
}

#[test]
fn what_is_seen_of_a_block_is_its_own_while_its_place_is_used_again() {
    with_new_ledger(&[HEAP], |ledger| {
        enter(ledger, 1);
        let reader = thread::spawn(move || {
            let home = leaktap_loom::bucket_of(HEAP);
            for found in ledger.live_in(home..home + 1) {
                assert_eq!(found, block(found.key.addr() - HEAP));
            }
        });
        take(ledger, 1);
        enter(ledger, 2);
        reader.join().unwrap();
    });
}

/// The allocator hands an address from thread to thread, and orders them.
#[test]
fn a_thread_finds_the_block_that_another_one_has_entered() {
    use loom::sync::atomic::AtomicBool;
    use std::sync::Arc;
    use std::sync::atomic::Ordering::{Acquire, Release};
    with_new_ledger(&[HEAP], |ledger| {
        let handed_over = Arc::new(AtomicBool::new(false));
        let other = {
            let handed_over = Arc::clone(&handed_over);
            thread::spawn(move || {
                enter(ledger, 1);
                handed_over.store(true, Release);
            })
        };
        enter(ledger, 2);
        if handed_over.load(Acquire) {
            take(ledger, 1);
            assert_eq!(live(ledger), [2]);
        }
        other.join().unwrap();
        take(ledger, 2);
    });
}

#[test]
fn first_blocks_of_an_area_agree_on_its_table() {
    with_new_ledger(&[HEAP + 0x40, HEAP + 0x80], |ledger| {
        let other = thread::spawn(move || enter(ledger, 0x40));
        enter(ledger, 0x80);
        other.join().unwrap();
        take(ledger, 0x40);
        take(ledger, 0x80);
        assert_eq!(live(ledger), []);
    });
}

fn intern(ledger: Ledger, frames: &[u64]) -> StackId {
    let id = ledger
        .intern(frames, Kept::default())
        .expect("there is room");
    assert_eq!(frames_of(ledger, id), frames);
    id
}

fn frames_of(ledger: Ledger, id: StackId) -> Vec<u64> {
    let mut frames = Vec::new();
    let kept = ledger.stack(id, |frame| frames.push(frame));
    assert_eq!(kept, Some(Kept::default()));
    frames
}

#[test]
fn stacks_that_share_frames_stay_what_they_are() {
    with_new_ledger(&[], |ledger| {
        let other = thread::spawn(move || intern(ledger, &[0x41, 0x40]));
        let one = intern(ledger, &[0x42, 0x40]);
        let other = other.join().unwrap();
        assert_eq!(frames_of(ledger, one), [0x42, 0x40]);
        assert_eq!(frames_of(ledger, other), [0x41, 0x40]);
    });
}

#[test]
fn a_stack_that_two_threads_enter_is_found_by_both_numbers() {
    with_new_ledger(&[], |ledger| {
        let other = thread::spawn(move || intern(ledger, &[0x41]));
        let one = intern(ledger, &[0x41]);
        let other = other.join().unwrap();
        assert_eq!(frames_of(ledger, one), frames_of(ledger, other));
    });
}

/// As many callees as are behind a node have no room there: the next ones go to tables that the
/// node names.
#[test]
fn callees_that_find_no_room_behind_their_caller_are_found_again() {
    with_new_ledger(&[], |ledger| {
        for callee in 0..8 {
            intern(ledger, &[0x100 + callee, 0x40]);
        }
        let other = thread::spawn(move || intern(ledger, &[0x200, 0x40]));
        let one = intern(ledger, &[0x201, 0x40]);
        let other = other.join().unwrap();
        assert_eq!(intern(ledger, &[0x201, 0x40]), one);
        assert_eq!(intern(ledger, &[0x200, 0x40]), other);
    });
}
