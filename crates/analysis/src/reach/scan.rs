use std::ops::Range;

use leaktap_memory::ReadMemory;

use super::window::Window;
use super::{Blocks, Pointer, hints};

/// Which addresses may be what.
#[derive(Clone, Copy, Debug)]
pub struct Parts<C, T> {
    /// Code.
    pub is_code: C,
    /// Constants, as tables of virtual functions are.
    pub is_constant: T,
}

/// What the words of memory lead to. Of each block is kept where it leads to, not what it holds.
#[derive(Debug, Default)]
pub struct Scan {
    roots: Vec<Pointer>,
    /// Pointers in blocks, block by block.
    pointers: Vec<Pointer>,
    /// Of each block where they end.
    ends: Vec<usize>,
    /// Bytes that could not be read.
    unread: u64,
}

impl Scan {
    /// Goes through roots.
    pub fn root(
        &mut self,
        blocks: &Blocks,
        root: Range<u64>,
        memory: &impl ReadMemory,
        parts: &Parts<impl Fn(u64) -> bool, impl Fn(u64) -> bool>,
    ) {
        let roots = &mut self.roots;
        let piece = root.clone();
        self.unread += Window::new(memory).words(root, &piece, |word| {
            roots.extend(pointer(blocks, word, memory, parts));
        });
    }

    /// Notes roots that are in no memory: registers.
    pub fn root_words(&mut self, blocks: &Blocks, words: impl IntoIterator<Item = u64>) {
        let found = words.into_iter().filter_map(|word| blocks.find(word));
        self.roots.extend(found);
    }

    /// Goes through all blocks, as far as they are in `touched`, by address: nothing else is read.
    pub fn blocks(
        &mut self,
        blocks: &Blocks,
        touched: &[Range<u64>],
        memory: &impl ReadMemory,
        parts: &Parts<impl Fn(u64) -> bool, impl Fn(u64) -> bool>,
    ) {
        let mut window = Window::new(memory);
        for (start, len) in blocks.ranges() {
            let end = start + len;
            let first = touched.partition_point(|piece| piece.end <= start);
            let pieces = touched.iter().skip(first);
            for piece in pieces.take_while(|piece| piece.start < end) {
                let part = piece.start.max(start)..piece.end.min(end);
                let pointers = &mut self.pointers;
                self.unread += window.words(part, piece, |word| {
                    pointers.extend(pointer(blocks, word, memory, parts));
                });
            }
            self.ends.push(self.pointers.len());
        }
    }

    /// As [`Scan::blocks`], block by block.
    #[cfg(test)]
    pub(super) fn block_words(&mut self, blocks: &Blocks, words: impl IntoIterator<Item = u64>) {
        let found = words.into_iter().filter_map(|word| blocks.find(word));
        self.pointers.extend(found);
        self.ends.push(self.pointers.len());
    }

    /// Bytes that could not be read.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    pub(super) fn roots(&self) -> impl Iterator<Item = Pointer> + '_ {
        self.roots.iter().copied()
    }

    /// The pointers in a block.
    pub(super) fn of(&self, block: u32) -> impl Iterator<Item = Pointer> + '_ {
        let end = |block: u32| self.ends.get(block as usize).copied();
        let first = block.checked_sub(1).map_or(Some(0), end);
        let range = first.zip(end(block));
        let range = range.and_then(|(first, end)| self.pointers.get(first..end));
        range.unwrap_or_default().iter().copied()
    }
}

/// What `word` points to, if anything.
#[inline]
fn pointer(
    blocks: &Blocks,
    word: u64,
    memory: &impl ReadMemory,
    parts: &Parts<impl Fn(u64) -> bool, impl Fn(u64) -> bool>,
) -> Option<Pointer> {
    let pointer = blocks.find(word)?;
    if pointer.is_start() {
        return Some(pointer);
    }
    let range = blocks.range(pointer.block())?;
    let is_start = hints::is_start(range, word - range.0, memory, parts);
    Some(Pointer::new(pointer.block(), is_start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::{Grade, grade};
    use leaktap_memory::{Addr, Unreadable};

    /// Words from 0x10000 on; the page at 0x11000 is not there.
    struct Words(Vec<u64>);

    type No = fn(u64) -> bool;
    const NONE: Parts<No, No> = Parts {
        is_code: |_| false,
        is_constant: |_| false,
    };
    const AT: u64 = 0x1_0000;
    const HOLE: std::ops::Range<u64> = 0x1_1000..0x1_2000;

    impl Words {
        fn set(&mut self, at: u64, words: &[u64]) {
            let first = ((at - AT) / 8) as usize;
            self.0[first..first + words.len()].copy_from_slice(words);
        }
    }

    impl ReadMemory for Words {
        fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
            let (start, len) = (at.get(), buf.len());
            let unreadable = Unreadable { at, len };
            let end = start.checked_add(len as u64).ok_or(unreadable)?;
            let bytes: Vec<_> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
            let is_hole = start < HOLE.end && end > HOLE.start;
            let range = start.checked_sub(AT).filter(|_| !is_hole);
            let range = range.map(|from| from as usize..from as usize + len);
            buf.copy_from_slice(range.and_then(|range| bytes.get(range)).ok_or(unreadable)?);
            Ok(())
        }
    }

    #[test]
    fn words_of_blocks_and_roots_are_found_around_what_cannot_be_read() {
        let mut memory = Words(vec![0; 0x800]);
        let last = 0x1_2100;
        // The second block begins before the hole and ends behind it.
        let blocks = Blocks::new([(AT + 0x100, 32), (0x1_0f00, 0x1200), (last, 16)]);
        memory.set(0x1_0008, &[AT + 0x100]);
        memory.set(AT + 0x118, &[0x1_0f00]);
        memory.set(0x1_2008, &[last]);
        let mut scan = Scan::default();
        scan.root(&blocks, 0x1_0001..0x1_0021, &memory, &NONE);
        let all = [AT..HOLE.start, HOLE.start..0x1_3000];
        scan.blocks(&blocks, &all, &memory, &NONE);
        assert_eq!(grade(&blocks, &scan), [Grade::Reachable; 3]);
        assert_eq!(scan.unread(), 0x1000);
    }

    /// What a pointer so far into a block of so many bytes, that begin with these words, leads to.
    fn hinted(words: &[u64], len: u64, offset: u64) -> Grade {
        let mut memory = Words(vec![0; 0x200]);
        memory.set(AT, words);
        // Two tables of functions.
        memory.set(AT + 0x400, &[0, 0x9_0000]);
        memory.set(AT + 0x440, &[0x9_0010]);
        memory.set(AT + 0x600, &[AT + offset]);
        let blocks = Blocks::new([(AT, len)]);
        let mut scan = Scan::default();
        let parts = Parts {
            is_code: |at: u64| at >> 16 == 9,
            is_constant: |at: u64| at >> 16 == 1,
        };
        scan.root(&blocks, AT + 0x600..AT + 0x608, &memory, &parts);
        grade(&blocks, &scan)[0]
    }

    #[test]
    fn pointers_behind_what_a_runtime_puts_first_are_good() {
        use Grade::{Possible, Reachable};
        let table = |at: u64| AT + at;
        let cases: [(&[u64], u64, u64, Grade); 13] = [
            // A length, or a count of elements.
            (&[24], 32, 8, Reachable),
            (&[25], 32, 8, Possible),
            (&[4], 8 + 4 * 12, 8, Reachable),
            (&[5], 8 + 4 * 12, 8, Possible),
            (&[0], 8 + 4 * 12, 8, Possible),
            (&[4], 8 + 4 * 12, 16, Possible),
            // A string of 5 that has room for 10.
            (&[5, 10, 0], 35, 24, Reachable),
            (&[11, 10, 0], 35, 24, Possible),
            (&[5, 10, 0], 36, 24, Possible),
            // Objects of two base classes.
            (&[table(0x400), 0, table(0x440)], 40, 16, Reachable),
            (&[table(0x400), 0, table(0x440)], 40, 8, Possible),
            (&[table(0x480), 0, table(0x440)], 40, 16, Possible),
            (&[table(0x400), 0, table(0x440)], 40, 17, Possible),
        ];
        for (words, len, offset, expected) in cases {
            assert_eq!(hinted(words, len, offset), expected, "{words:x?} {offset}");
        }
    }
}
