use std::collections::HashMap;
use std::ops::Range;

use crate::Quick;

/// Blocks are looked up by the piece of address space that a word lies in: of 64 KiB.
const PIECE_BITS: u32 = 16;

/// More pieces than that are not kept for one block, which is then looked for from its first piece
/// on: a block of a terabyte is address space, not memory.
const MOST_PIECES: u64 = 1 << 10;

/// The live blocks of a process, by address.
#[derive(Debug, Default)]
pub struct Blocks {
    starts: Vec<u64>,
    /// Bytes of each, 1 at least: a block without bytes can be pointed to.
    lens: Vec<u64>,
    /// Of each block, one more than the number of the block that it lies in; 0 if it is in none.
    within: Vec<u32>,
    /// Of each piece, its blocks.
    pieces: HashMap<u64, Range<u32>, Quick>,
    /// Blocks of more than [`MOST_PIECES`].
    vast: Vec<u32>,
}

/// What a word says: a block, and whether the word leads to its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer(u32);

impl Pointer {
    pub(super) fn new(block: u32, is_start: bool) -> Pointer {
        Pointer(block << 1 | u32::from(is_start))
    }

    /// The number of the block.
    pub fn block(self) -> u32 {
        self.0 >> 1
    }

    /// Whether it leads to the block's first byte, or is as good.
    pub fn is_start(self) -> bool {
        self.0 & 1 == 1
    }
}

impl Blocks {
    /// Most blocks; what is beyond is left out.
    pub const MOST: usize = (u32::MAX >> 1) as usize;

    /// Of first addresses and lengths, in any order. Where two begin at one address the longer one
    /// is kept; a block may lie in another one, as blocks of a pool do.
    pub fn new(blocks: impl IntoIterator<Item = (u64, u64)>) -> Blocks {
        let mut all: Vec<_> = blocks.into_iter().take(Blocks::MOST).collect();
        all.sort_unstable_by_key(|&(start, len)| (start, std::cmp::Reverse(len)));
        all.dedup_by_key(|(start, _)| *start);
        let mut blocks = Blocks::default();
        let mut open: Vec<u32> = Vec::new();
        for (number, (start, len)) in (0..).zip(all) {
            let len = len.max(1).min(u64::MAX - start);
            while open.pop_if(|outer| blocks.end(*outer) <= start).is_some() {}
            let outer = open.last().map_or(0, |outer| outer + 1);
            blocks.starts.push(start);
            blocks.lens.push(len);
            blocks.within.push(outer);
            blocks.enter(number, start, len);
            open.push(number);
        }
        blocks
    }

    fn enter(&mut self, number: u32, start: u64, len: u64) {
        let (first, last) = (start >> PIECE_BITS, (start + (len - 1)) >> PIECE_BITS);
        if last - first >= MOST_PIECES {
            return self.vast.push(number);
        }
        for piece in first..=last {
            let range = self.pieces.entry(piece).or_insert(number..number);
            range.end = number + 1;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// First address and length of a block.
    pub fn range(&self, block: u32) -> Option<(u64, u64)> {
        let at = block as usize;
        Some((*self.starts.get(at)?, *self.lens.get(at)?))
    }

    /// First address and length of each, by address.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.starts.iter().copied().zip(self.lens.iter().copied())
    }

    /// The same of those that are in no other.
    pub fn outermost(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let all = self.ranges().zip(&self.within);
        all.filter(|(_, within)| **within == 0)
            .map(|(range, _)| range)
    }

    /// The first byte of the first block that begins in `range`.
    pub fn first_in(&self, range: Range<u64>) -> Option<u64> {
        let first = self.starts.partition_point(|start| *start < range.start);
        self.starts
            .get(first)
            .copied()
            .filter(|start| *start < range.end)
    }

    /// The number of the block that begins at `start`.
    pub fn at(&self, start: u64) -> Option<u32> {
        let blocks = self.pieces.get(&(start >> PIECE_BITS)).cloned();
        // A vast one is in no piece.
        let blocks = blocks.unwrap_or(0..self.starts.len() as u32);
        let starts = self
            .starts
            .get(blocks.start as usize..blocks.end as usize)?;
        let number = starts.binary_search(&start).ok()?;
        blocks.start.checked_add(number as u32)
    }

    /// The block that `block` lies in, as a word that leads to its start would say.
    pub(super) fn outer(&self, block: u32) -> Option<Pointer> {
        let outer = self.within.get(block as usize)?.checked_sub(1)?;
        Some(Pointer::new(outer, true))
    }

    /// The innermost block that `word` points to, or into.
    #[inline]
    pub fn find(&self, word: u64) -> Option<Pointer> {
        match self.pieces.get(&(word >> PIECE_BITS)) {
            Some(blocks) => self.find_among(blocks.clone(), word),
            None => None,
        }
        .or_else(|| self.find_vast(word))
    }

    fn find_among(&self, blocks: Range<u32>, word: u64) -> Option<Pointer> {
        let starts = self
            .starts
            .get(blocks.start as usize..blocks.end as usize)?;
        let behind = starts.partition_point(|start| *start <= word) as u32;
        self.around(blocks.start.checked_add(behind)?.checked_sub(1)?, word)
    }

    #[cold]
    fn find_vast(&self, word: u64) -> Option<Pointer> {
        let start = |block: u32| self.range(block).map_or(0, |(start, _)| start);
        let behind = self.vast.partition_point(|block| start(*block) <= word);
        self.around(*self.vast.get(behind.checked_sub(1)?)?, word)
    }

    /// `block`, or the innermost that it lies in, of those that end behind `word`.
    fn around(&self, mut block: u32, word: u64) -> Option<Pointer> {
        while self.end(block) <= word {
            block = self.within.get(block as usize)?.checked_sub(1)?;
        }
        let (start, _) = self.range(block)?;
        (start <= word).then(|| Pointer::new(block, start == word))
    }

    fn end(&self, block: u32) -> u64 {
        self.range(block).map_or(0, |(start, len)| start + len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_of_the_innermost_block_that_holds_it() {
        let ranges = [
            (0x1000, 0x100),
            (0x1200, 0),
            (0x1300, 0x40_0000),
            (0x1400, 0x20),
            (0x1420, 0x20),
            (0x20_1000, 0x10),
            (0x7f00_0000_0000, 1 << 40),
            (0x7f00_0000_1000, 0x10),
        ];
        let blocks = Blocks::new(ranges.into_iter().rev());
        let brute = |word: u64| {
            let holds = |&(_, &(start, len)): &(u32, &(u64, u64))| {
                start <= word && word < start + u64::max(len, 1)
            };
            let found = (0..).zip(&ranges).filter(holds).last();
            found.map(|(number, (start, _))| Pointer::new(number, *start == word))
        };
        let near = ranges.iter().flat_map(|&(start, len)| [start, start + len]);
        for word in near.flat_map(|at| at.saturating_sub(0x30)..at + 0x30) {
            assert_eq!(blocks.find(word), brute(word), "{word:#x}");
        }
        let inner = blocks.at(0x1420).unwrap();
        let outer = blocks.outer(inner).map(Pointer::block);
        assert_eq!(outer, blocks.at(0x1300));
        assert_eq!(blocks.outer(0), None);
    }

    #[test]
    fn lengths_may_be_nonsense() {
        let blocks = Blocks::new([(u64::MAX - 8, u64::MAX), (0, u64::MAX), (16, 0)]);
        assert_eq!(blocks.len(), 3);
        assert!(blocks.find(u64::MAX - 8).is_some_and(Pointer::is_start));
        assert!(blocks.find(16).is_some_and(Pointer::is_start));
        assert_eq!(blocks.find(17).map(Pointer::block), Some(0));
    }
}
