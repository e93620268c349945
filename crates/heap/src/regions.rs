//! The regions that a program has mapped and that are, in part at least, still mapped.

use std::collections::BTreeMap;

use leaktap_memory::Addr;

/// One call of mmap(2), mremap(2), brk(2) or sbrk(2) that mapped something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The stack of the call.
    pub stack: u32,
    /// Milliseconds from the beginning of the trace to the call.
    pub time: u32,
    /// Bytes of it that are still mapped.
    pub bytes: u64,
}

/// Mapped regions by address.
///
/// A region that is unmapped in its middle stays one region, in two pieces. What mremap(2) does is
/// an unmapping and a mapping, as realloc(3) is a free and an allocation; the program break moves
/// up by a mapping and down by an unmapping. Lengths are whole pages: the caller rounds.
#[derive(Debug, Default)]
pub struct Regions {
    pieces: BTreeMap<u64, Piece>,
    regions: BTreeMap<u64, Region>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    end: u64,
    region: u64,
}

impl Regions {
    /// `len` bytes at `at` were mapped, over whatever was there. `region.bytes` is not looked at.
    /// A range beyond the end of the address space is not noted: no kernel maps one.
    pub fn map(&mut self, at: Addr, len: u64, region: Region) {
        let Some(end) = at.get().checked_add(len) else {
            return;
        };
        self.unmap(at, len);
        if len > 0 {
            let id = self.next;
            self.next += 1;
            self.pieces.insert(at.get(), Piece { end, region: id });
            self.regions.insert(
                id,
                Region {
                    bytes: len,
                    ..region
                },
            );
        }
    }

    /// `len` bytes at `at` are mapped no longer, as far as they were.
    pub fn unmap(&mut self, at: Addr, len: u64) {
        let start = at.get();
        let end = start.saturating_add(len);
        if start == end {
            return;
        }
        let before = self
            .pieces
            .range(..start)
            .next_back()
            .map(|(&s, &piece)| (s, piece));
        let first = before.filter(|(_, piece)| piece.end > start);
        let inside = self.pieces.range(start..end).map(|(&s, &piece)| (s, piece));
        for (piece_start, piece) in first.into_iter().chain(inside).collect::<Vec<_>>() {
            self.cut(piece_start, piece, start, end);
        }
    }

    /// The regions of which anything is mapped.
    pub fn live(&self) -> impl Iterator<Item = &Region> {
        self.regions.values()
    }

    fn cut(&mut self, piece_start: u64, piece: Piece, start: u64, end: u64) {
        self.pieces.remove(&piece_start);
        if piece_start < start {
            self.pieces.insert(
                piece_start,
                Piece {
                    end: start,
                    ..piece
                },
            );
        }
        if piece.end > end {
            self.pieces.insert(end, piece);
        }
        let gone = piece.end.min(end) - piece_start.max(start);
        if let Some(region) = self.regions.get_mut(&piece.region) {
            region.bytes = region.bytes.saturating_sub(gone);
            if region.bytes == 0 {
                self.regions.remove(&piece.region);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: u64 = 64;

    fn region(stack: u32) -> Region {
        Region {
            stack,
            time: 0,
            bytes: 0,
        }
    }

    /// One number a page: the region that maps it.
    fn by_page(model: &[Option<u32>]) -> Vec<(u32, u64)> {
        let mut sums = BTreeMap::new();
        for stack in model.iter().flatten() {
            *sums.entry(*stack).or_insert(0) += 4096;
        }
        sums.into_iter().collect()
    }

    #[test]
    fn agrees_with_a_model_of_single_pages() {
        let mut random = 1u64;
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % below
        };
        let mut regions = Regions::default();
        let mut model = vec![None; PAGES as usize];
        for step in 0..10_000 {
            let start = next(PAGES);
            let len = next(PAGES - start + 1);
            let at = Addr::new(start * 4096);
            let stack = next(3) > 0;
            let pages = start as usize..(start + len) as usize;
            if stack {
                regions.map(at, len * 4096, region(step));
            } else {
                regions.unmap(at, len * 4096);
            }
            model[pages].fill(stack.then_some(step));
            let mut found: Vec<_> = regions.live().map(|r| (r.stack, r.bytes)).collect();
            found.sort_unstable();
            assert_eq!(found, by_page(&model), "step {step}");
        }
    }

    const PAGE: u64 = 4096;

    /// Maps (pages, stack) or unmaps (pages, none) in turn; stacks and pages that are left.
    fn left_by(steps: &[(u64, u64, Option<u32>)]) -> Vec<(u32, u64)> {
        let mut regions = Regions::default();
        for &(start, pages, stack) in steps {
            let (at, len) = (Addr::new(start * PAGE), pages * PAGE);
            match stack {
                Some(stack) => regions.map(at, len, region(stack)),
                None => regions.unmap(at, len),
            }
        }
        let mut left: Vec<_> = regions.live().map(|r| (r.stack, r.bytes / PAGE)).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn what_programs_do_with_regions() {
        let (one, two, gone) = (Some(1), Some(2), None);
        let cases: &[(&str, &[_], &[_])] = &[
            (
                "a hole: still one",
                &[(9, 16, one), (15, 4, gone)],
                &[(1, 12)],
            ),
            (
                "a hole, then each piece",
                &[(9, 16, one), (15, 4, gone), (9, 6, gone), (19, 6, gone)],
                &[],
            ),
            (
                "several at once",
                &[(1, 4, one), (7, 4, two), (3, 6, gone)],
                &[(1, 2), (2, 2)],
            ),
            (
                "MAP_FIXED into the middle",
                &[(1, 9, one), (4, 2, two)],
                &[(1, 7), (2, 2)],
            ),
            (
                "MAP_FIXED over all of it",
                &[(2, 2, one), (1, 4, two)],
                &[(2, 4)],
            ),
            (
                "mremap grows in place",
                &[(1, 4, one), (1, 4, gone), (1, 8, two)],
                &[(2, 8)],
            ),
            (
                "mremap moves",
                &[(1, 4, one), (1, 4, gone), (50, 8, two)],
                &[(2, 8)],
            ),
            (
                "mremap moves one piece",
                &[(1, 4, one), (3, 2, gone), (50, 2, two)],
                &[(1, 2), (2, 2)],
            ),
            (
                "the break moves up twice and back across both",
                &[(1, 16, one), (17, 4, two), (7, 14, gone)],
                &[(1, 6)],
            ),
            (
                "from before the trace",
                &[(1, 4, gone), (5, 1, one)],
                &[(1, 1)],
            ),
            (
                "neighbours do not grow together",
                &[(1, 1, one), (2, 1, one)],
                &[(1, 1), (1, 1)],
            ),
        ];
        for (what, steps, expected) in cases {
            assert_eq!(left_by(steps), *expected, "{what}");
        }
    }

    #[test]
    fn survives_what_no_kernel_would_say() {
        let mut regions = Regions::default();
        regions.map(Addr::new(u64::MAX), 4096, region(1));
        regions.map(Addr::new(4096), 0, region(1));
        regions.unmap(Addr::new(u64::MAX), u64::MAX);
        assert_eq!(regions.live().count(), 0);
    }
}
