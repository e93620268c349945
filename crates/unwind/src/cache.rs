use leaktap_memory::{Addr, GOLDEN};

use crate::{Found, Rule};

/// One pc and what was found for it in rows of a generation; zeroed memory is an empty one.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Remembered {
    lookup: u64,
    rule: Rule,
    generation: u32,
}

const _: () = assert!(size_of::<Remembered>() == 24);

impl Remembered {
    /// Nothing remembered. (Read as an entry it says that address 0 has no rule, which is so.)
    pub const EMPTY: Remembered = Remembered {
        lookup: 0,
        rule: Rule::NO_CFI,
        generation: 0,
    };
}

/// A direct-mapped cache from pc to rule, over the caller's memory.
///
/// A program allocates from a few thousand call sites, while a binary search over its rows costs a
/// dozen cache misses. What was found in another generation of rows is not found here; not for
/// several threads at once.
#[derive(Debug)]
pub struct RuleCache<'a> {
    entries: &'a mut [Remembered],
    generation: u32,
}

impl<'a> RuleCache<'a> {
    /// A cache in `entries`, which keep what they hold, for rows of `generation`. Of a length that
    /// is no power of two, the rest stays unused.
    #[inline]
    pub const fn over(entries: &'a mut [Remembered], generation: u32) -> RuleCache<'a> {
        RuleCache {
            entries,
            generation,
        }
    }

    /// What is remembered for `lookup`.
    #[inline]
    pub fn find(&self, lookup: Addr) -> Option<Found> {
        let entry = self.entries.get(self.slot(lookup))?;
        let is_it = entry.lookup == lookup.get() && entry.generation == self.generation;
        is_it.then(|| Found::from_rule(entry.rule))
    }

    /// Remembers `found` for `lookup`, in the place of whatever was there.
    #[inline]
    pub fn keep(&mut self, lookup: Addr, found: Found) {
        let slot = self.slot(lookup);
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.lookup = lookup.get();
            entry.rule = found.into_rule();
            entry.generation = self.generation;
        }
    }

    #[inline]
    fn slot(&self, lookup: Addr) -> usize {
        slot(lookup.get().wrapping_mul(GOLDEN), self.entries.len())
    }
}

/// An index below the largest power of two in `len`, by the top bits of `hash`; 0 if there is none.
#[inline]
pub(crate) fn slot(hash: u64, len: usize) -> usize {
    let bits = len.checked_ilog2().unwrap_or(0);
    hash.checked_shr(64_u32.wrapping_sub(bits)).unwrap_or(0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Step;

    #[test]
    fn remembers_rules_and_their_absence() {
        let mut entries = [Remembered::EMPTY; 64];
        let mut cache = RuleCache::over(&mut entries, 1);
        let end = Found::Rule(Rule::pack(Step::End));
        let (here, there) = (Addr::new(0x5000), Addr::new(0x5001));
        assert_eq!(cache.find(here), None);
        cache.keep(here, end);
        cache.keep(there, Found::NoCfi);
        assert_eq!(cache.find(here), Some(end));
        assert_eq!(cache.find(there), Some(Found::NoCfi));
        let cache = RuleCache::over(&mut entries, 2);
        assert_eq!(cache.find(here), None);
    }

    #[test]
    fn any_length_will_do() {
        for len in [0, 1, 2, 3, 63, 64, 65] {
            let mut entries = vec![Remembered::EMPTY; len];
            let mut cache = RuleCache::over(&mut entries, 1);
            for lookup in 1..1000 {
                let lookup = Addr::new(lookup * 0x1_0000_0001);
                cache.keep(lookup, Found::NoCfi);
                assert_eq!(cache.find(lookup).is_some(), len > 0);
            }
        }
    }
}
