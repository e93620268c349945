//! A hash for small numbers, which takes a nanosecond.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashes that nobody can foresee who does not know its seed: a target may write what it
/// likes where we count, and must not choose what falls together.
#[derive(Clone, Copy, Debug)]
pub struct Quick {
    seed: u64,
}

impl Default for Quick {
    fn default() -> Quick {
        Quick {
            seed: RandomState::new().hash_one(0),
        }
    }
}

impl BuildHasher for Quick {
    type Hasher = Mixed;

    fn build_hasher(&self) -> Mixed {
        Mixed(self.seed)
    }
}

/// A hash in the making.
#[derive(Clone, Copy, Debug)]
pub struct Mixed(u64);

impl Mixed {
    /// Multiplies, and folds what overflows onto the rest: each bit depends on all.
    #[inline(always)]
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(MULTIPLIER);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

/// The digits of pi: odd, and as good as random.
const MULTIPLIER: u64 = 0x2437_44c5_3b3f_a8d3;

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u8(*byte));
    }

    #[inline(always)]
    fn write_u8(&mut self, number: u8) {
        self.mix(number.into());
    }

    #[inline(always)]
    fn write_u32(&mut self, number: u32) {
        self.mix(number.into());
    }

    #[inline(always)]
    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_in_a_row_fall_apart() {
        let quick = Quick::default();
        // Both the bits that choose a place and those that a table compares first.
        for shift in [0, 57] {
            let hashes = (0..1 << 16_u32).map(|n| quick.hash_one(n << 8) >> shift & 0x7f);
            let mut counts = [0_u32; 128];
            hashes.for_each(|hash| counts[hash as usize] += 1);
            assert!(counts.iter().all(|n| (400..=630).contains(n)), "{counts:?}");
        }
        let all: HashSet<_> = (0..1 << 16_u32).map(|n| quick.hash_one(n)).collect();
        assert_eq!(all.len(), 1 << 16);
    }
}
