//! Notes of the agent's for the tracer, in a bounded queue. Compiled into both, and into
//! `crates/loom`, where loom's atomics stand in.
//!
//! Nobody waits: where there is no room, nothing is noted. A note has a position. Its place says by
//! its first word whether it is free, or written, for each round anew: zeroed memory is an empty
//! queue.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::primitive::AtomicU64;

/// Words of a note, without the one that says what is in its place.
pub const WORDS: usize = 7;

/// Room for a note.
pub type Place = [AtomicU64; 1 + WORDS];

/// The queue.
#[derive(Clone, Copy, Debug)]
pub struct Queue<'q> {
    /// The position that is next.
    pub next: &'q AtomicU64,
    /// Room for notes.
    pub places: &'q [Place],
}

impl Queue<'_> {
    /// The position that is next.
    pub fn next(&self) -> u64 {
        self.next.load(Acquire)
    }

    /// Where the note of a position is, and what says there that it is free.
    fn place(&self, at: u64) -> Option<(&Place, u64)> {
        let count = self.places.len() as u64;
        let round = at.checked_div(count)?;
        let place = self.places.get(at.checked_rem(count)? as usize)?;
        Some((place, round.wrapping_mul(2)))
    }

    /// Puts a note at the next position. False if there is no room.
    pub fn put(&self, note: [u64; WORDS]) -> bool {
        let mut at = self.next.load(Relaxed);
        loop {
            let Some(([state, words @ ..], free)) = self.place(at) else {
                return false;
            };
            if state.load(Acquire) == free {
                let behind = at.wrapping_add(1);
                let taken = self.next.compare_exchange(at, behind, AcqRel, Relaxed);
                let Err(now) = taken else {
                    let all = words.iter().zip(note);
                    all.for_each(|(word, value)| word.store(value, Relaxed));
                    state.store(free.wrapping_add(1), Release);
                    return true;
                };
                at = now;
            } else {
                let now = self.next.load(Relaxed);
                if now == at {
                    return false;
                }
                at = now;
            }
        }
    }

    /// Takes the note at position `at` out, if it is there. There is one reader, which asks for
    /// each position once it has got the one before.
    pub fn take(&self, at: u64) -> Option<[u64; WORDS]> {
        let ([state, words @ ..], free) = self.place(at)?;
        if state.load(Acquire) != free.wrapping_add(1) {
            return None;
        }
        let note = words.each_ref().map(|word| word.load(Relaxed));
        state.store(free.wrapping_add(2), Release);
        Some(note)
    }
}
