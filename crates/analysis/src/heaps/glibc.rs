//! glibc's malloc (malloc/malloc.c, malloc/arena.c, from 2.26 on).

use std::ops::Range;

const WORD: u64 = 8;

/// Bytes of `malloc_state` before `bins`: mutex, flags, `fastbinsY`, `top`, `last_remainder`.
const BEFORE_BINS: u64 = 2 * WORD + 10 * WORD + 2 * WORD;

/// Pairs of words in `bins`: `NBINS - 1`.
const PAIRS: u64 = 127;

/// Bytes of a pair: first and last chunk of a list. It is taken for a chunk of which these are `fd`
/// and `bk`, so an empty list leads two words before itself.
const PAIR: u64 = 2 * WORD;

/// Empty lists that make an arena: most are, in any program.
const ENOUGH: usize = 32;

/// What `heap_info` is aligned to, on 64-bit machines: `HEAP_MAX_SIZE`.
const HEAP_ALIGN: u64 = 64 << 20;

/// The `malloc_state` among `words`, which are at `at`: its lists lead to free chunks, which begin
/// in the last bytes of the blocks before them.
pub fn arena(words: &[u64], at: u64) -> Option<Range<u64>> {
    let address = |index: usize| at + index as u64 * WORD;
    let pairs = words.windows(2).enumerate();
    let mut empty = pairs.filter_map(|(index, pair)| {
        let of = address(index).checked_sub(PAIR)?;
        (pair == [of, of]).then_some(address(index))
    });
    let first = empty.next()?;
    let is_near = |pair: &u64| pair - first < PAIRS * PAIR;
    let rest: Vec<_> = empty.take_while(is_near).collect();
    let last = *rest.last().filter(|_| rest.len() + 1 >= ENOUGH)?;
    // The last lists, of the largest chunks, are the ones that are empty for sure.
    let end = last + PAIR;
    let start = end.saturating_sub(PAIRS * PAIR + BEFORE_BINS);
    Some(start.max(at)..end)
}

/// Whether a mapping at `start` that begins with the word `first` holds chunks of an arena that is
/// not the main one: `heap_info`, which leads to the arena, behind the `heap_info` of its first
/// heap.
pub fn is_heap(start: u64, first: u64) -> bool {
    let is_behind = (2 * PAIR..=4 * PAIR).contains(&(first % HEAP_ALIGN));
    may_be_heap(start) && is_behind
}

/// The same, by its address alone.
pub fn may_be_heap(start: u64) -> bool {
    start.is_multiple_of(HEAP_ALIGN)
}

/// Where chunks begin among `words`, the first of the heap segment, at `at`: the first one is the
/// thread cache (`tcache_perthread_struct`), whose size tells.
pub fn first_chunk(words: &[u64], at: u64) -> Option<u64> {
    /// From 2.30 on, from 2.26 on, and from 2.42 on, with `PREV_INUSE`.
    const SIZES: [u64; 3] = [0x291, 0x251, 0x301];
    let pairs = words.as_chunks::<2>().0.iter().zip(0_u64..);
    let mut chunks = pairs.filter(|([_, size], _)| SIZES.contains(size));
    chunks.next().map(|(_, index)| at + index * PAIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `malloc_state` of which these lists, by number, have chunks, as of 0x7000 on.
    fn state(full: &[u64]) -> Vec<u64> {
        let mut words = vec![0; ((BEFORE_BINS + PAIRS * PAIR) / WORD) as usize];
        words[12] = 0x5555_0000;
        for pair in 0..PAIRS {
            let at = 0x7000 + BEFORE_BINS + pair * PAIR;
            let of = if full.contains(&pair) {
                0x5555_1000
            } else {
                at - PAIR
            };
            let index = ((at - 0x7000) / WORD) as usize;
            words[index..index + 2].fill(of);
        }
        words
    }

    #[test]
    fn an_arena_is_known_by_its_empty_lists() {
        let whole = 0x7000..0x7000 + BEFORE_BINS + PAIRS * PAIR;
        let most: Vec<_> = (0..80).collect();
        for full in [&[][..], &[0, 1, 5], &most] {
            let mut words = vec![7; 100];
            words.extend(state(full));
            words.extend([9; 100]);
            assert_eq!(arena(&words, 0x7000 - 800), Some(whole.clone()), "{full:?}");
        }
        let all: Vec<_> = (0..PAIRS).collect();
        assert_eq!(arena(&state(&all), 0x7000), None);
        // Somebody's own lists, in which a few are empty.
        assert_eq!(arena(&state(&all[..110]), 0x7000), None);
    }

    #[test]
    fn chunks_begin_with_the_thread_cache() {
        assert_eq!(first_chunk(&[0, 0x291, 5, 6], 0x4000), Some(0x4000));
        let words = [7, 8, 0x291, 9, 10, 0x291];
        assert_eq!(first_chunk(&words, 0x4000), Some(0x4020));
        assert_eq!(first_chunk(&words[..5], 0x4000), None);
    }

    #[test]
    fn heaps_begin_with_their_arena() {
        let heap = 0x7fff_f000_0000;
        assert!(is_heap(heap, heap + 0x30) && is_heap(heap + HEAP_ALIGN, heap + 0x20));
        assert!(!is_heap(heap, 0) && !is_heap(heap, heap + 0x1000));
        assert!(!is_heap(heap + 0x1000, heap + 0x30));
    }
}
