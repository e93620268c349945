//! Numbers and changes by chance, the same for the same seed.

use std::ops::Range;

/// xorshift64*.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Any seed will do.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    pub(crate) fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let high = (u128::from(self.word()) * limit as u128) >> 64;
        high as usize
    }

    /// A number in `range`; its start if it is empty.
    pub(crate) fn within(&mut self, range: Range<usize>) -> usize {
        range.start + self.below(range.len())
    }

    /// True one time in `n`.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `these`, which are some.
    pub(crate) fn of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())]
    }

    /// A number of the kind that programs trip over.
    pub(crate) fn edge(&mut self) -> u64 {
        let power = 1_u64 << self.below(64);
        match self.below(6) {
            0 => self.below(256) as u64,
            1 => power,
            2 => power.wrapping_sub(1),
            3 => power.wrapping_neg(),
            4 => self.word(),
            _ => (self.below(64) as u64).wrapping_neg(),
        }
    }

    /// Changes bytes of `data` in one of the usual ways; `part` is where.
    pub(crate) fn damage(&mut self, data: &mut Vec<u8>, part: Range<usize>) {
        let part = part.start.min(data.len())..part.end.min(data.len());
        if part.is_empty() {
            return data.push(self.word() as u8);
        }
        let at = self.within(part.clone());
        match self.below(12) {
            0..4 => self.put(data, at),
            4..6 => data[at] = self.word() as u8,
            6 => data[at] ^= 1 << self.below(8),
            7 => data[at] = data[at].wrapping_add(self.of(&[1, 255, 8, 248])),
            8 | 9 => self.copy(data, at, part),
            10 if self.one_in(4) => data.truncate(at),
            _ => self.resize(data, at),
        }
    }

    /// Overwrites a number of 1 to 8 bytes, aligned as such numbers are.
    pub(crate) fn put(&mut self, data: &mut [u8], at: usize) {
        let width = self.of(&[1, 2, 4, 4, 8, 8]);
        let number = self.edge().to_le_bytes();
        let at = at / width * width;
        if let Some(place) = data.get_mut(at..at + width) {
            place.copy_from_slice(&number[..width]);
        }
    }

    /// Overwrites some bytes with others from the same part.
    fn copy(&mut self, data: &mut [u8], at: usize, part: Range<usize>) {
        let from = self.within(part);
        let len = self.of(&[4, 8, 8, 16, 24, 64]);
        let len = len.min(data.len() - at).min(data.len() - from);
        data.copy_within(from..from + len, at);
    }

    /// Takes a few bytes out, or repeats them.
    fn resize(&mut self, data: &mut Vec<u8>, at: usize) {
        let len = self.of(&[1, 1, 2, 4, 8]).min(data.len() - at);
        let some = data[at..at + len].to_vec();
        match self.one_in(2) {
            true => drop(data.drain(at..at + len)),
            false => drop(data.splice(at..at, some)),
        }
    }
}
