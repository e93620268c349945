//! Many short pieces of a process's memory, in few system calls that ask for few ranges each.

use leaktap_memory::{Addr, PAGE};

/// `UIO_MAXIOV` of linux/uio.h.
const MOST_RANGES: usize = 1024;

/// Some pieces as one system call reads them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// What is read: where, and how many bytes. No page of them is without a byte that is wanted.
    pub(crate) ranges: Vec<(u64, usize)>,
    /// Where each piece begins in the bytes read.
    pub(crate) pieces: Vec<usize>,
}

impl Batch {
    /// The first of `places`, `len` bytes at each, as far as `room` bytes hold them, or more where
    /// that is less than one. A range costs a look at the process's page tables, so pieces that
    /// follow one another in a page, or in the next one, make one range with what lies between.
    pub(crate) fn of(places: &[Addr], len: usize, room: usize) -> Batch {
        let mut batch = Batch {
            ranges: Vec::new(),
            pieces: Vec::new(),
        };
        let mut used = 0;
        for at in places.iter().map(|at| at.get()) {
            let between = batch.between(at);
            let more = between.unwrap_or(0).saturating_add(len);
            let is_full = used + more > room || batch.ranges.len() == MOST_RANGES;
            if is_full && !batch.pieces.is_empty() {
                break;
            }
            match batch.ranges.last_mut().filter(|_| between.is_some()) {
                Some((_, range)) => *range += more,
                None => batch.ranges.push((at, len)),
            }
            used += more;
            batch.pieces.push(used - len);
        }
        batch
    }

    /// How many bytes lie between the last range and `at`; nothing if they are apart.
    fn between(&self, at: u64) -> Option<usize> {
        let (start, len) = self.ranges.last()?;
        let end = start.checked_add(*len as u64)?;
        let is_near = at / PAGE <= (end.checked_sub(1)? / PAGE) + 1;
        usize::try_from(at.checked_sub(end)?)
            .ok()
            .filter(|_| is_near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(places: &[u64], room: usize) -> (Vec<(u64, usize)>, Vec<usize>) {
        let places: Vec<_> = places.iter().map(|at| Addr::new(*at)).collect();
        let batch = Batch::of(&places, 0x20, room);
        (batch.ranges, batch.pieces)
    }

    #[test]
    fn pieces_of_one_page_and_the_next_are_one_range() {
        let places = [0x1000, 0x1020, 0x2ff0, 0x4000, 0x5000, 0x4800, 0x7000];
        let ranges = vec![(0x1000, 0x4020), (0x4800, 0x20), (0x7000, 0x20)];
        let pieces = vec![0, 0x20, 0x1ff0, 0x3000, 0x4000, 0x4020, 0x4040];
        assert_eq!(batch(&places, 1 << 16), (ranges, pieces));
        assert_eq!(batch(&[!0, !0], 64).0.len(), 2);
    }

    #[test]
    fn a_batch_holds_what_there_is_room_for_and_one_piece_at_least() {
        let places = [0x1000, 0x1020, 0x1040];
        assert_eq!(batch(&places, 0x5f), (vec![(0x1000, 0x40)], vec![0, 0x20]));
        assert_eq!(batch(&places, 0x10), (vec![(0x1000, 0x20)], vec![0]));
        assert_eq!(batch(&[], 0x10), (vec![], vec![]));
    }
}
