//! Numbers that depend on nothing but seed and draw.

/// SplitMix64, by Steele, Lea and Flood.
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of one draw.
    pub(crate) fn of(seed: u64, draw: u64) -> Random {
        let mut random = Random(seed);
        random.0 = random.next() ^ draw.wrapping_mul(0xd134_2543_de82_ef95);
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True `percent` times of a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `all`, which is not empty.
    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Below `limit`; half the time as likely in each power of two, so that what comes soon is not
    /// missed.
    pub(crate) fn scattered(&mut self, limit: u64) -> u64 {
        if self.chance(50) {
            return self.below(limit);
        }
        let bits = u64::from(limit.ilog2());
        let width = self.below(bits + 1);
        self.below(1 << width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_the_same_each_time_and_another_one_differs() {
        let numbers = |draw| {
            let mut random = Random::of(7, draw);
            [random.next(), random.next()]
        };
        assert_eq!(numbers(3), numbers(3));
        assert_ne!(numbers(3), numbers(4));
    }

    #[test]
    fn scattered_numbers_stay_below_their_limit_and_come_near_zero() {
        let mut random = Random::of(1, 1);
        let numbers: Vec<u64> = (0..2000).map(|_| random.scattered(1000)).collect();
        assert!(numbers.iter().all(|number| *number < 1000));
        assert!(numbers.iter().filter(|number| **number < 10).count() > 100);
        assert!(numbers.iter().any(|number| *number > 900));
    }
}
