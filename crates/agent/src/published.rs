//! Tables that the tracer changes while threads of the target search them. Compiled into both.
//!
//! A table is words: how many more there are, and then entries of as many words each, sorted by their first. It has two places in the shared
//! memory. The tracer writes to the one that nobody is led to, leads there, and changes the version before it writes to the other one: whoever
//! searched that meanwhile sees a new version, and searches again. So nothing is used up however often a table changes, no thread
//! waits for another one, and a tracer that is killed leaves a whole table.

use core::slice;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, fence};

/// Leads to a table.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Published {
    at: AtomicU64,
    version: AtomicU64,
}

impl Published {
    /// Leads to the table at address `at` of the target, which is written. The place that was led to may be written next, but for
    /// readers with relaxed stores.
    pub fn publish(&self, at: u64) {
        self.at.store(at, Release);
        // Whoever sees this version sees that address.
        self.version.fetch_add(1, Release);
        // Whoever sees what is written to the old place from now on sees this version.
        fence(Release);
    }

    /// The last entry that begins with `key` or less.
    ///
    /// # Safety
    /// In the target only. The tracer has led to nothing but tables that stay mapped, none longer than its place.
    pub unsafe fn find<const WORDS: usize>(&self, key: u64) -> Option<[u64; WORDS]> {
        loop {
            let version = self.version.load(Acquire);
            // SAFETY: as for this function.
            let found = last(unsafe { self.entries() }, key);
            fence(Acquire);
            if self.version.load(Relaxed) == version {
                return found;
            }
        }
    }

    unsafe fn entries(&self) -> &[AtomicU64] {
        let at = self.at.load(Acquire) as *const AtomicU64;
        // SAFETY: null, or what the caller says. Should the place have been written to again, it still has room for as many.
        unsafe {
            match at.as_ref() {
                Some(len) => slice::from_raw_parts(at.add(1), len.load(Relaxed) as usize),
                None => &[],
            }
        }
    }
}

fn last<const WORDS: usize>(words: &[AtomicU64], key: u64) -> Option<[u64; WORDS]> {
    let entry = |index: usize| words.get(index.wrapping_mul(WORDS)..);
    let begins_below = |words: &[AtomicU64]| words.first().is_some_and(|w| w.load(Relaxed) <= key);
    let (mut low, mut len) = (0_usize, words.len().checked_div(WORDS)?);
    while len > 1 {
        let half = len / 2;
        let middle = low.wrapping_add(half);
        if entry(middle).is_some_and(begins_below) {
            low = middle;
        }
        len = len.wrapping_sub(half);
    }
    let mut found = [0; WORDS];
    let entry = entry(low)?.get(..WORDS)?;
    for (to, from) in found.iter_mut().zip(entry) {
        *to = from.load(Relaxed);
    }
    found
        .first()
        .is_some_and(|first| *first <= key)
        .then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(words: &[u64], key: u64) -> Option<[u64; 2]> {
        let table = Published::default();
        table.publish(words.as_ptr() as u64);
        // SAFETY: a whole table, which is not written to.
        unsafe { table.find(key) }
    }

    #[test]
    fn the_last_entry_at_or_below_is_found() {
        // SAFETY: nothing is published.
        assert_eq!(unsafe { Published::default().find::<2>(7) }, None);
        for entries in 0..20_u64 {
            let words = (0..entries).flat_map(|entry| [10 * (entry + 1), entry]);
            let words: Vec<_> = [2 * entries].into_iter().chain(words).collect();
            for key in 0..10 * (entries + 2) {
                let expected = (key / 10).min(entries).checked_sub(1);
                let expected = expected.map(|entry| [10 * (entry + 1), entry]);
                assert_eq!(find(&words, key), expected, "{key} of {entries}");
            }
        }
        // Half an entry is none.
        assert_eq!(find(&[3, 10, 0, 20], 25), Some([10, 0]));
        assert_eq!(find(&[1, 10], 25), None);
    }

    #[test]
    fn a_place_that_is_written_again_is_searched_again() {
        const ENTRIES: u64 = if cfg!(miri) { 4 } else { 100 };
        const VERSIONS: u64 = if cfg!(miri) { 20 } else { 20_000 };
        let place = || (0..=2 * ENTRIES).map(|_| AtomicU64::new(0)).collect();
        let mut places: [Vec<AtomicU64>; 2] = [place(), place()];
        let table = Published::default();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while last < VERSIONS {
                        // SAFETY: whatever is published stays, and is no longer than its place.
                        let Some([first, version]) = (unsafe { table.find(u64::MAX) }) else {
                            continue;
                        };
                        assert!(version >= last && first == version + ENTRIES - 1);
                        last = version;
                    }
                });
            }
            for version in 0..=VERSIONS {
                places.reverse();
                let [place, _] = &places;
                let entries = (0..ENTRIES).flat_map(|entry| [version + entry, version]);
                for (to, word) in place.iter().zip([2 * ENTRIES].into_iter().chain(entries)) {
                    to.store(word, Relaxed);
                }
                table.publish(place.as_ptr() as u64);
            }
        });
    }
}
