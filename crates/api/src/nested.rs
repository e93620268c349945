//! What is remembered of calls that are part of another one, so that calls which are nested N deep
//! do not cost N² frames.

use crate::nesting::Place;

/// Of the frames that a walk passes, it remembers one in so many, or fewer.
const STRIDE: u64 = 8;

/// Calls that were part of one call, and callers of theirs, outermost first: a walk that meets one
/// of them need not go on.
///
/// Each call leaves a note, and where there is no room, every second note is forgotten: on the way
/// down, each walk ends at the call before. On the way back up, a walk that finds no note for long
/// leaves some along its way, in half of the room that there is. So the next walks are shorter by
/// that factor, and there is room for notes of their own.
///
/// They may have returned since. Another call that was made from the same place, at the same depth,
/// has the same callers, as long as the outermost call's return address is there.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Nested<const N: usize> {
    of: Place,
    len: u64,
    calls: [Place; N],
}

/// Notes of the walk at hand: at the end of the calls, outermost first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passed {
    frames: u64,
    stride: u64,
    notes: usize,
    room: usize,
}

impl<const N: usize> Default for Nested<N> {
    fn default() -> Nested<N> {
        Nested {
            of: Place::default(),
            len: 0,
            calls: [Place::default(); N],
        }
    }
}

impl<const N: usize> Nested<N> {
    /// The call that they are part of.
    pub(crate) fn of(&self) -> Place {
        self.of
    }

    /// They are part of the call that was entered at `place`.
    pub(crate) fn belong_to(&mut self, place: Place) {
        self.of = place;
    }

    pub(crate) fn forget(&mut self) {
        self.len = 0;
    }

    /// A call is entered at `sp` while that at `of` is the innermost one: what lies below is over.
    pub(crate) fn begin(&mut self, of: u64, sp: u64) {
        if self.of.sp != of {
            self.forget();
        }
        while self.last().is_some_and(|last| last.sp <= sp) {
            self.len = self.len.wrapping_sub(1);
        }
    }

    fn last(&self) -> Option<&Place> {
        let index = (self.len as usize).checked_sub(1)?;
        self.calls.get(index)
    }

    /// Whether there is one at `place`; a walk has got there, and below is none any more.
    pub(crate) fn has(&mut self, place: Place) -> bool {
        while self.last().is_some_and(|last| last.sp < place.sp) {
            self.len = self.len.wrapping_sub(1);
        }
        self.last() == Some(&place)
    }

    /// A walk begins.
    pub(crate) fn none_passed(&self) -> Passed {
        Passed {
            stride: STRIDE,
            room: N.saturating_sub(self.len as usize) / 2,
            ..Passed::default()
        }
    }

    /// A walk passes a frame, and notes it if it is far enough from the last one.
    pub(crate) fn pass(&mut self, place: Place, passed: &mut Passed) {
        passed.frames = passed.frames.wrapping_add(1);
        if passed.frames & passed.stride.wrapping_sub(1) != 0 || passed.room == 0 {
            return;
        }
        passed.notes = passed.notes.wrapping_add(1);
        self.set(N.wrapping_sub(passed.notes), Some(place));
        if passed.notes == passed.room {
            passed.notes /= 2;
            passed.stride = passed.stride.wrapping_mul(2);
            for index in 1..=passed.notes {
                let from = N.wrapping_sub(index.wrapping_mul(2));
                self.set(N.wrapping_sub(index), self.calls.get(from).copied());
            }
        }
    }

    /// What a walk has passed is part of the call, too.
    pub(crate) fn keep(&mut self, passed: Passed) {
        for index in N.wrapping_sub(passed.notes)..N {
            self.set(self.len as usize, self.calls.get(index).copied());
            self.len = self.len.wrapping_add(1);
        }
    }

    /// Where there is no room, every second one is forgotten.
    pub(crate) fn push(&mut self, place: Place) {
        if self.len as usize >= N {
            self.len = N as u64 / 2;
            for index in 0..N / 2 {
                let from = index.wrapping_mul(2).wrapping_add(1);
                self.set(index, self.calls.get(from).copied());
            }
        }
        self.set(self.len as usize, Some(place));
        self.len = self.len.wrapping_add(1);
    }

    fn set(&mut self, index: usize, place: Option<Place>) {
        if let Some(place) = place
            && let Some(to) = self.calls.get_mut(index)
        {
            *to = place;
        }
    }
}
