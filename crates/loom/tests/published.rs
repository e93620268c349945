//! Tables that the tracer changes while threads search them, and take ranges out of them.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "tables are boxes that outlive the threads of a scenario"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use common::scenario;
use leaktap_loom::published::{Published, empty};
use loom::sync::atomic::AtomicU64;
use loom::thread;

/// Two places for a table, of one entry of two words, and what leads to one of them.
struct Tables {
    places: [[AtomicU64; 3]; 2],
    table: Published,
}

impl Tables {
    /// With a table in the first place.
    fn new(entry: [u64; 2]) -> Arc<Tables> {
        let place = || [(); 3].map(|()| AtomicU64::new(0));
        // In its place, before that is led to.
        let tables = Arc::new(Tables {
            places: [place(), place()],
            table: Published::default(),
        });
        tables.write(0, entry);
        tables.table.publish(tables.at(0));
        tables
    }

    fn at(&self, place: usize) -> u64 {
        self.places[place].as_ptr() as u64
    }

    fn write(&self, place: usize, [first, second]: [u64; 2]) {
        for (word, value) in self.places[place].iter().zip([2, first, second]) {
            word.store(value, Relaxed);
        }
    }

    fn read(&self, place: usize) -> [u64; 2] {
        let [_, first, second] = &self.places[place];
        [first.load(Relaxed), second.load(Relaxed)]
    }

    /// As `Room::change_stacks` of the probe crate does, for a table that stays as it is.
    fn change(&self, from: usize, to: usize) {
        let range = self.read(from);
        self.write(to, range);
        self.table.prepare(self.at(to));
        let since = self.read(from);
        if since[0] == since[1] && range[0] != range[1] {
            empty(&self.places[to][1..], range);
        }
        self.table.publish(self.at(to));
    }
}

#[test]
fn a_reader_never_sees_half_of_a_table() {
    scenario(|| {
        let tables = Tables::new([10, 1]);
        let reader = {
            let tables = Arc::clone(&tables);
            thread::spawn(move || {
                let found: Option<[u64; 2]> = unsafe { tables.table.find(u64::MAX) };
                let found = found.expect("there has always been a table");
                assert!([[10, 1], [20, 2], [30, 3]].contains(&found), "{found:?}");
            })
        };
        tables.write(1, [20, 2]);
        tables.table.publish(tables.at(1));
        // The place that was led to first is written to again.
        tables.write(0, [30, 3]);
        tables.table.publish(tables.at(0));
        reader.join().unwrap();
    });
}

#[test]
fn a_range_that_was_emptied_is_empty_in_the_table_that_comes() {
    scenario(|| {
        let tables = Tables::new([10, 15]);
        let target = {
            let tables = Arc::clone(&tables);
            thread::spawn(move || unsafe { tables.table.empty([10, 15]) })
        };
        tables.change(0, 1);
        target.join().unwrap();
        let found: Option<[u64; 2]> = unsafe { tables.table.find(12) };
        assert_eq!(found, Some([10, 10]));
    });
}

#[test]
fn a_range_that_was_emptied_stays_so_over_two_changes() {
    scenario(|| {
        let tables = Tables::new([10, 15]);
        let target = {
            let tables = Arc::clone(&tables);
            thread::spawn(move || unsafe { tables.table.empty([10, 15]) })
        };
        tables.change(0, 1);
        tables.change(1, 0);
        target.join().unwrap();
        let found: Option<[u64; 2]> = unsafe { tables.table.find(12) };
        assert_eq!(found, Some([10, 10]));
    });
}
