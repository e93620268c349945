//! The tracer's side of the shared memory.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use leaktap_agent::{LEDGER_AT, ROOM_AT, SHARED_LEN, Shared};
use nix::sys::memfd::{MFdFlags, memfd_create};

const PIECE: u64 = 64 << 10;

fn memory() -> File {
    let file = File::from(memfd_create("test", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(SHARED_LEN).unwrap();
    file
}

/// The largest piece, in bytes that are in use, by what is left once the others are gone.
fn largest(file: &File) -> u64 {
    let ends = Shared::pieces(file, PIECE).unwrap();
    assert!(ends.is_sorted());
    assert_eq!(ends.last(), Some(&SHARED_LEN));
    let mut left = 512 * file.metadata().unwrap().blocks();
    let mut largest = 0;
    // From the last piece on, the file is cut off at the beginning of each.
    for start in ends.iter().rev().skip(1).chain([&0]) {
        file.set_len(*start).unwrap();
        let now = 512 * file.metadata().unwrap().blocks();
        largest = largest.max(left - now);
        left = now;
    }
    largest
}

#[test]
fn nothing_in_use_is_one_piece() {
    assert_eq!(Shared::pieces(&memory(), PIECE).unwrap(), [SHARED_LEN]);
}

#[test]
fn memory_in_use_is_in_pieces_of_about_one_size() {
    let file = memory();
    file.write_all_at(&[1], 0).unwrap();
    file.write_all_at(&vec![1; 2 << 20], ROOM_AT + 8192)
        .unwrap();
    file.write_all_at(&vec![1; 1 << 20], LEDGER_AT).unwrap();
    let pieces = Shared::pieces(&file, PIECE).unwrap().len();
    assert!((24..=50).contains(&pieces), "{pieces}");
    let largest = largest(&file);
    assert!(largest <= 3 * PIECE, "{largest}");
}

#[test]
fn scattered_pages_are_put_together() {
    let file = memory();
    for page in 0..512 {
        file.write_all_at(&[1], LEDGER_AT + page * PIECE * 3)
            .unwrap();
    }
    // Two MiB in all.
    let pieces = Shared::pieces(&file, PIECE).unwrap().len();
    assert!((16..=40).contains(&pieces), "{pieces}");
    let largest = largest(&file);
    assert!(largest <= 2 * PIECE, "{largest}");
}
