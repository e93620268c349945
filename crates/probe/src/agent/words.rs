//! What lies on stacks, and which of it leads to bytes that are about to be replaced.

use std::ops::Range;

use leaktap_memory::Addr;
use leaktap_tracee::Memory;

/// Bytes of a stack that are searched.
const SEARCHED: usize = 256 << 10;

/// Reads one stack after the other.
pub(crate) struct Words<'m> {
    memory: &'m Memory,
    bytes: Vec<u8>,
}

impl Words<'_> {
    /// For stacks in `memory`.
    pub(crate) fn new(memory: &Memory) -> Words<'_> {
        Words {
            memory,
            bytes: vec![0; SEARCHED],
        }
    }

    /// What lies from `from` up.
    pub(crate) fn above(&mut self, from: Addr) -> impl Iterator<Item = Addr> + '_ {
        let len = self.memory.read_partial(from, &mut self.bytes);
        let words = self.bytes.chunks_exact(8).take(len / 8);
        words.filter_map(|word| Some(Addr::new(u64::from_le_bytes(*word.first_chunk()?))))
    }
}

/// Ranges of addresses, lowest first; none begins in another one.
pub(crate) struct Ranges(Vec<Range<Addr>>);

impl Ranges {
    /// These.
    pub(crate) fn new(ranges: impl Iterator<Item = Range<Addr>>) -> Ranges {
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_unstable_by_key(|range| range.start);
        Ranges(ranges)
    }

    /// Whether `at` is in one of them.
    pub(crate) fn contains(&self, at: Addr) -> bool {
        let after = self.0.partition_point(|range| range.start <= at);
        let before = after.checked_sub(1).and_then(|index| self.0.get(index));
        before.is_some_and(|range| at < range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_last_range_that_begins_before_it() {
        let range = |start, end| Addr::new(start)..Addr::new(end);
        let ranges = Ranges::new([range(0x30, 0x34), range(0x10, 0x14)].into_iter());
        let all = (0..0x40).filter(|at| ranges.contains(Addr::new(*at)));
        let expected = (0x10..0x14).chain(0x30..0x34);
        assert!(all.eq(expected));
        assert!(!Ranges::new(std::iter::empty()).contains(Addr::new(7)));
    }
}
