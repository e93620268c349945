//! The queue of what is noted for the tracer.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "as in the other scenarios"
)]

mod common;

use std::sync::Arc;

use common::scenario;
use leaktap_loom::queue::{Place, Queue, WORDS};
use loom::sync::atomic::AtomicU64;
use loom::thread;

/// Memory for a queue, zeroed.
struct Memory {
    next: AtomicU64,
    places: Vec<Place>,
}

impl Memory {
    fn new(places: usize) -> Arc<Memory> {
        let place = || std::array::from_fn(|_| AtomicU64::new(0));
        Arc::new(Memory {
            next: AtomicU64::new(0),
            places: (0..places).map(|_| place()).collect(),
        })
    }

    fn queue(&self) -> Queue<'_> {
        Queue {
            next: &self.next,
            places: &self.places,
        }
    }

    fn put(&self, number: u64) -> bool {
        self.queue().put([number; WORDS])
    }

    /// What is at position `at`, which is whole.
    fn take(&self, at: u64) -> Option<u64> {
        let [first, others @ ..] = self.queue().take(at)?;
        assert_eq!(others, [first; WORDS - 1]);
        Some(first)
    }
}

#[test]
fn each_note_is_read_once_and_whole() {
    scenario(|| {
        let memory = Memory::new(2);
        let other = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || assert!(memory.put(1)))
        };
        assert!(memory.put(2));
        let early = memory.take(0);
        other.join().unwrap();
        let first = early.or_else(|| memory.take(0));
        let mut all = [first, memory.take(1)];
        all.sort_unstable();
        assert_eq!(all, [Some(1), Some(2)]);
        assert_eq!(memory.take(2), None);
    });
}

#[test]
fn a_place_is_used_again_once_it_was_read() {
    scenario(|| {
        let memory = Memory::new(1);
        assert!(memory.put(1));
        let reader = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || assert_eq!(memory.take(0), Some(1)))
        };
        let is_put = memory.put(2);
        reader.join().unwrap();
        assert_eq!(memory.take(1), is_put.then_some(2));
        assert!(is_put || memory.put(2), "there is room by now");
    });
}

/// One thread unmaps what another one gets from the kernel then.
#[test]
fn what_comes_later_in_the_kernel_has_a_later_position() {
    scenario(|| {
        let memory = Memory::new(2);
        let kernel = Arc::new(AtomicU64::new(0));
        let other = {
            let (memory, kernel) = (Arc::clone(&memory), Arc::clone(&kernel));
            thread::spawn(move || {
                let is_free = kernel.load(loom::sync::atomic::Ordering::Acquire) == 1;
                assert!(memory.put(1));
                is_free
            })
        };
        let begun = memory.queue().next();
        kernel.store(1, loom::sync::atomic::Ordering::Release);
        assert!(!other.join().unwrap() || begun == 0);
    });
}
