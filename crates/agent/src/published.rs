//! Tables that the tracer changes while threads of the target search them. Compiled into both, and
//! into `crates/loom`, where loom's atomics stand in.
//!
//! A table is words: how many more there are, and then entries of as many words each, sorted by
//! their first. It has two places in the shared memory. The tracer writes to the one that nobody is
//! led to, leads there, and changes the version before it writes to the other one: whoever searched
//! that meanwhile sees a new version, and searches again. So nothing is used up however often a
//! table changes, no thread waits for another one, and a tracer that is killed leaves a whole
//! table.
//!
//! The target changes one thing itself: a range that is no more becomes empty, in the table that is
//! led to and in the one that is to come.

use core::slice;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use crate::primitive::{AtomicU64, fence};

/// Leads to a table.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Published {
    at: AtomicU64,
    version: AtomicU64,
    /// The table that is to come, or 0.
    next: AtomicU64,
}

impl Published {
    /// A table of ranges at address `at` of the target, which is written, is to be published. What
    /// becomes empty from now on becomes so there, too; what was so before is in the table that is
    /// led to, and has to be looked for.
    pub fn prepare(&self, at: u64) {
        self.next.store(at, Release);
        // Whoever does not see this has done by now what it does to the old table.
        fence(SeqCst);
    }

    /// Leads to the table at address `at` of the target, which is written. The place that was led
    /// to may be written next, but for readers with relaxed stores.
    pub fn publish(&self, at: u64) {
        self.at.store(at, Release);
        // Whoever sees this version sees that address.
        self.version.fetch_add(1, Release);
        // Whoever sees that nothing is to come any more sees this version.
        self.next.store(0, Release);
        // Whoever sees what is written to the old place from now on sees this version.
        fence(Release);
    }

    /// The last entry that begins with `key` or less.
    ///
    /// # Safety
    /// In the target only. The tracer has led to nothing but tables that stay mapped, none longer
    /// than its place.
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

    /// Has a range, which was found here, be empty in whatever table is led to from now on.
    ///
    /// # Safety
    /// As for [`Published::find`].
    pub unsafe fn empty(&self, range: [u64; 2]) {
        loop {
            let version = self.version.load(Acquire);
            // SAFETY: as for this function.
            unsafe {
                empty(self.entries(), range);
                // Either the tracer finds that in the old table, or its new one is found here.
                fence(SeqCst);
                empty(entries_at(self.next.load(Acquire)), range);
                // Either the tracer finds that in a table that it has led to since, or its version
                // is found here. (On x86 the exchange is such a fence already.)
                fence(SeqCst);
            }
            if self.version.load(Relaxed) == version {
                return;
            }
        }
    }

    unsafe fn entries(&self) -> &[AtomicU64] {
        // SAFETY: as the caller says.
        unsafe { entries_at(self.at.load(Acquire)) }
    }
}

/// # Safety
/// As for [`Published::find`]: `at` is where it leads to or did. Should the place have been written
/// to again, it still has room for as many.
unsafe fn entries_at<'a>(at: u64) -> &'a [AtomicU64] {
    let at = at as *const AtomicU64;
    // SAFETY: null, or what the caller says.
    unsafe {
        match at.as_ref() {
            Some(len) => slice::from_raw_parts(at.add(1), len.load(Relaxed) as usize),
            None => &[],
        }
    }
}

/// The last entry that begins with `key` or less, and what is behind it.
fn below<const WORDS: usize>(words: &[AtomicU64], key: u64) -> Option<&[AtomicU64]> {
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
    entry(low).filter(|words| begins_below(words))
}

fn last<const WORDS: usize>(words: &[AtomicU64], key: u64) -> Option<[u64; WORDS]> {
    let entry = below::<WORDS>(words, key)?.get(..WORDS)?;
    let mut found = [0; WORDS];
    for (to, from) in found.iter_mut().zip(entry) {
        *to = from.load(Relaxed);
    }
    Some(found)
}

/// Has a range of `entries` of two words, the first address and the one behind the last, end where
/// it begins. The place may be another table's by now: nothing changes in a table that does not
/// have the range.
pub fn empty(entries: &[AtomicU64], [start, end]: [u64; 2]) {
    if let Some([first, behind, ..]) = below::<2>(entries, start)
        && first.load(Relaxed) == start
    {
        let _ = behind.compare_exchange(end, start, SeqCst, Relaxed);
    }
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
        let entries = [10, 20, 30, 40].map(AtomicU64::new);
        empty(&entries, [10, 25]);
        empty(&entries, [11, 20]);
        empty(&entries, [30, 40]);
        empty(&entries, [50, 60]);
        assert_eq!(entries.map(AtomicU64::into_inner), [10, 20, 30, 30]);
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

    /// Counts threads that have ended, well or not.
    struct Ends<'a>(&'a AtomicU64);

    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Release);
        }
    }

    /// As `Room::change_stacks` of the probe crate does.
    #[test]
    fn a_range_that_becomes_empty_stays_so_whatever_is_published_meanwhile() {
        const RANGES: u64 = if cfg!(miri) { 12 } else { 60_000 };
        let range = |index: u64| [10 * index + 10, 10 * index + 15];
        let place = || (0..=2 * RANGES).map(|_| AtomicU64::new(0)).collect();
        let mut places: [Vec<AtomicU64>; 2] = [place(), place()];
        let is_empty = |entry: &[AtomicU64]| entry[0].load(Relaxed) == entry[1].load(Relaxed);
        let entries = |place: &[AtomicU64]| {
            let len = place[0].load(Relaxed) as usize;
            let entries = place[1..=len]
                .chunks(2)
                .map(|e| (e[0].load(Relaxed), is_empty(e)));
            entries.collect::<Vec<_>>()
        };
        let put = |place: &[AtomicU64], ranges: &[u64]| {
            place[0].store(2 * ranges.len() as u64, Relaxed);
            let words = ranges.iter().flat_map(|index| range(*index));
            for (to, word) in place[1..].iter().zip(words) {
                to.store(word, Relaxed);
            }
        };
        let mut there: Vec<u64> = (0..RANGES).collect();
        put(&places[0], &there);
        let (table, ended) = (Published::default(), AtomicU64::new(0));
        table.publish(places[0].as_ptr() as u64);
        std::thread::scope(|scope| {
            for first in 0..2 {
                let (table, ended) = (&table, &ended);
                scope.spawn(move || {
                    let _end = Ends(ended);
                    for index in (first..RANGES).step_by(2) {
                        // SAFETY: whatever is published stays, and is no longer than its place.
                        unsafe {
                            assert_eq!(table.find(range(index)[0] + 4), Some(range(index)));
                            table.empty(range(index));
                            assert_ne!(table.find(range(index)[0] + 4), Some(range(index)));
                        }
                    }
                });
            }
            while !there.is_empty() {
                let [old, new] = &places;
                let is_gone = |(start, gone): &(u64, bool)| gone.then_some((start - 10) / 10);
                let gone: Vec<u64> = entries(old).iter().filter_map(is_gone).collect();
                there.retain(|index| gone.binary_search(index).is_err());
                put(new, &there);
                table.prepare(new.as_ptr() as u64);
                let since = entries(old);
                for index in since.iter().filter_map(is_gone) {
                    if gone.binary_search(&index).is_err() {
                        empty(&new[1..=2 * there.len()], range(index));
                    }
                }
                table.publish(new.as_ptr() as u64);
                places.reverse();
                // Do not wait for ever for one that has failed.
                if ended.load(Acquire) == 2 {
                    break;
                }
            }
        });
        // SAFETY: as above.
        let last = unsafe { table.entries() };
        assert!(last.chunks(2).all(is_empty));
    }
}
