//! The regions that a program has mapped and that are, in part at least, still mapped.

use std::collections::BTreeMap;
use std::ops::Range;

use leaktap_memory::Addr;

/// One call of mmap(2), mremap(2), brk(2) or sbrk(2) that mapped something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// The stack of the call.
    pub stack: u32,
    /// Milliseconds from the beginning of the trace to the call.
    pub time: u32,
    /// Bytes of it that are memory, or become it when they are touched.
    pub bytes: u64,
    /// Bytes of it that are addresses and nothing else: `PROT_NONE`.
    pub reserved: u64,
    /// Bytes of it that the program has told the kernel it does not need: madvise(2).
    pub given_back: u64,
}

/// A call that has mapped something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its stack.
    pub stack: u32,
    /// Milliseconds from the beginning of the trace.
    pub time: u32,
    /// When it had returned, counted in calls: see [`Regions::unmap`].
    pub moment: u64,
}

/// What a mapped byte is to its program: see [`Region`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Usable,
    Reserved,
    GivenBack,
    /// The same; it is there until the kernel takes it.
    Free,
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
    /// [`Origin::moment`].
    moment: u64,
    state: State,
}

impl Region {
    fn of(&mut self, state: State) -> &mut u64 {
        match state {
            State::Usable => &mut self.bytes,
            State::Reserved => &mut self.reserved,
            State::GivenBack | State::Free => &mut self.given_back,
        }
    }

    fn is_gone(&self) -> bool {
        (self.bytes, self.reserved, self.given_back) == (0, 0, 0)
    }
}

impl Regions {
    /// `len` bytes at `at` were mapped, over whatever was there, by this call. A range beyond the
    /// end of the address space is not noted: no kernel maps one.
    pub fn map(&mut self, at: Addr, len: u64, by: Origin) {
        let Some(end) = at.get().checked_add(len) else {
            return;
        };
        self.unmap(at, len, by.moment);
        if len > 0 {
            let id = self.next;
            self.next += 1;
            let piece = Piece {
                end,
                region: id,
                moment: by.moment,
                state: State::Usable,
            };
            self.pieces.insert(at.get(), piece);
            let region = Region {
                stack: by.stack,
                time: by.time,
                bytes: len,
                ..Region::default()
            };
            self.regions.insert(id, region);
        }
    }

    /// `len` bytes at `at` are mapped no longer, as far as they were when the call began that has
    /// unmapped them. What was mapped there at a later moment than `begun` is something else:
    /// another thread got the address before that call was heard of.
    pub fn unmap(&mut self, at: Addr, len: u64, begun: u64) {
        self.change(at, len, |piece| match piece.moment > begun {
            true => Some(piece.state),
            false => None,
        });
    }

    /// `len` bytes at `at` may be used from now on, or may not: mprotect(2).
    pub fn protect(&mut self, at: Addr, len: u64, is_usable: bool) {
        self.change(at, len, |piece| match (is_usable, piece.state) {
            (false, _) => Some(State::Reserved),
            (true, State::Reserved) => Some(State::Usable),
            (true, state) => Some(state),
        });
    }

    /// The program has no need of `len` bytes at `at` until it writes there: madvise(2). With
    /// `lazily` they stay until the kernel needs them (`MADV_FREE`).
    pub fn give_back(&mut self, at: Addr, len: u64, lazily: bool) {
        self.change(at, len, |piece| match (piece.state, lazily) {
            (State::Reserved, _) => Some(State::Reserved),
            (_, true) => Some(State::Free),
            (_, false) => Some(State::GivenBack),
        });
    }

    /// The program has written to `len` bytes at `at`, which it may have given back.
    pub fn use_again(&mut self, at: Addr, len: u64) {
        self.change(at, len, |piece| match piece.state {
            State::GivenBack | State::Free => Some(State::Usable),
            state => Some(state),
        });
    }

    /// What the kernel says is mapped: ranges in the order of their addresses, and whether each may
    /// be used. All else is mapped no longer.
    pub fn see(&mut self, mapped: impl Iterator<Item = (Range<Addr>, bool)>) {
        let mut seen = 0;
        for (range, is_usable) in mapped {
            let (start, end) = (range.start.get(), range.end.get());
            self.unmap(Addr::new(seen), start.saturating_sub(seen), u64::MAX);
            self.protect(range.start, end.saturating_sub(start), is_usable);
            seen = end.max(seen);
        }
        self.unmap(Addr::new(seen), u64::MAX - seen, u64::MAX);
    }

    /// How many pieces they are in.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Ranges that are given back, in the order of their addresses, and whether lazily.
    pub fn given_back(&self) -> Vec<(Range<Addr>, bool)> {
        let given_back = |(start, piece): (&u64, &Piece)| {
            let range = Addr::new(*start)..Addr::new(piece.end);
            match piece.state {
                State::GivenBack => Some((range, false)),
                State::Free => Some((range, true)),
                State::Usable | State::Reserved => None,
            }
        };
        self.pieces.iter().filter_map(given_back).collect()
    }

    /// The regions of which anything is mapped.
    pub fn mapped(&self) -> impl Iterator<Item = &Region> {
        self.regions.values()
    }

    /// First byte and end of what is memory, or may be, by address.
    pub fn memory(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let pieces = self.pieces.iter();
        let memory = pieces.filter(|(_, piece)| piece.state != State::Reserved);
        memory.map(|(start, piece)| *start..piece.end)
    }

    /// The regions of which anything is usable.
    pub fn live(&self) -> impl Iterator<Item = &Region> {
        self.mapped().filter(|region| region.bytes > 0)
    }

    /// Changes the state of `len` bytes at `at`, as far as they are mapped: nothing is unmapped.
    fn change(&mut self, at: Addr, len: u64, to: impl Fn(&Piece) -> Option<State>) {
        let start = at.get();
        let end = start.saturating_add(len);
        if start == end {
            return;
        }
        let before = self.pieces.range(..start).next_back();
        let first = before.filter(|(_, piece)| piece.end > start);
        let inside = self.pieces.range(start..end);
        let pieces = first.into_iter().chain(inside);
        for (piece_start, piece) in pieces.map(|(&s, &p)| (s, p)).collect::<Vec<_>>() {
            let state = to(&piece);
            if state != Some(piece.state) {
                self.cut(piece_start, piece, start..end, state);
            }
        }
    }

    fn cut(&mut self, piece_start: u64, piece: Piece, range: Range<u64>, state: Option<State>) {
        let (start, end) = (piece_start.max(range.start), piece.end.min(range.end));
        self.pieces.remove(&piece_start);
        if piece_start < start {
            let head = Piece {
                end: start,
                ..piece
            };
            self.pieces.insert(piece_start, head);
        }
        if piece.end > end {
            self.pieces.insert(end, piece);
        }
        let Some(region) = self.regions.get_mut(&piece.region) else {
            return;
        };
        *region.of(piece.state) -= end - start;
        if let Some(state) = state {
            *region.of(state) += end - start;
            self.pieces.insert(
                start,
                Piece {
                    end,
                    state,
                    ..piece
                },
            );
        } else if region.is_gone() {
            self.regions.remove(&piece.region);
        }
    }
}

#[cfg(test)]
#[path = "regions_tests.rs"]
mod tests;
