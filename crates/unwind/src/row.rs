use leaktap_memory::Addr;

use crate::Rule;

/// From which pc on a [`Rule`] holds, up to the next row's pc.
///
/// 16 bytes of plain integers, any bit pattern is valid: rows may be used where they lie in memory
/// shared with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Row {
    start: u32,
    rule: Rule,
}

const _: () = assert!(size_of::<Row>() == 16);

/// What is known about the frame at a pc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// How to get to its caller.
    Rule(Rule),
    /// No call frame information covers the pc.
    NoCfi,
}

impl Found {
    /// True if call frame information covers the pc.
    #[inline]
    pub const fn is_described(self) -> bool {
        match self {
            Found::Rule(rule) => !rule.is_derived(),
            Found::NoCfi => false,
        }
    }

    #[inline]
    pub(crate) const fn from_rule(rule: Rule) -> Found {
        if rule.is_no_cfi() {
            Found::NoCfi
        } else {
            Found::Rule(rule)
        }
    }

    #[inline]
    pub(crate) const fn into_rule(self) -> Rule {
        match self {
            Found::Rule(rule) => rule,
            Found::NoCfi => Rule::NO_CFI,
        }
    }
}

/// Whoever knows the rule for each pc.
pub trait Rules {
    /// What holds at `lookup`, a [`Frame::lookup`](crate::Frame::lookup) address.
    fn rule(&mut self, lookup: Addr) -> Found;
}

impl<R: Rules + ?Sized> Rules for &mut R {
    #[inline]
    fn rule(&mut self, lookup: Addr) -> Found {
        (**self).rule(lookup)
    }
}

impl Row {
    /// From `start`, counted in bytes from the module's base, `rule` holds.
    pub const fn new(start: u32, rule: Rule) -> Row {
        Row { start, rule }
    }

    /// From `start` on there is no call frame information.
    pub const fn gap(start: u32) -> Row {
        Row::new(start, Rule::NO_CFI)
    }

    /// First byte, counted from the module's base.
    pub const fn start(self) -> u32 {
        self.start
    }

    /// The same from `start` on.
    #[cfg(feature = "build")]
    pub(crate) const fn starting_at(self, start: u32) -> Row {
        Row { start, ..self }
    }

    /// What holds from there.
    #[inline]
    pub const fn found(self) -> Found {
        Found::from_rule(self.rule)
    }
}

/// The rows of one module, sorted by start, in a process.
#[derive(Clone, Copy, Debug)]
pub struct ModuleRows<'a> {
    /// What the rows count from: the module's lowest segment address plus its bias.
    pub base: Addr,
    /// Sorted by [`Row::start`].
    pub rows: &'a [Row],
}

impl ModuleRows<'_> {
    /// What holds at `lookup`.
    #[inline]
    pub fn find(&self, lookup: Addr) -> Found {
        let Some(offset) = lookup.offset_from(self.base) else {
            return Found::NoCfi;
        };
        let Ok(offset) = u32::try_from(offset) else {
            return Found::NoCfi;
        };
        match self.rows.get(self.last_not_after(offset)) {
            Some(row) if row.start <= offset => row.found(),
            _ => Found::NoCfi,
        }
    }

    /// Index of the last row that starts at or before `offset`, or 0. Written out, and without
    /// indexing, because nothing here may be able to panic (see the crate's first page).
    #[inline]
    fn last_not_after(&self, offset: u32) -> usize {
        let mut low = 0_usize;
        let mut len = self.rows.len();
        while len > 1 {
            let half = len / 2;
            let middle = low.wrapping_add(half);
            if self.rows.get(middle).is_some_and(|row| row.start <= offset) {
                low = middle;
            }
            len = len.wrapping_sub(half);
        }
        low
    }
}

impl Rules for ModuleRows<'_> {
    #[inline]
    fn rule(&mut self, lookup: Addr) -> Found {
        self.find(lookup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cfa, SavedBp, Step};

    fn rule(offset: i32) -> Rule {
        Rule::pack(Step::Call {
            cfa: Cfa::Sp(offset),
            bp: SavedBp::Unchanged,
        })
    }

    #[test]
    fn finds_the_last_row_that_starts_at_or_before() {
        for count in 0..20_u32 {
            let rows: Vec<Row> = (0..count)
                .map(|i| Row::new(10 + i * 4, rule(i as i32)))
                .collect();
            let module = ModuleRows {
                base: Addr::new(0x1000),
                rows: &rows,
            };
            for offset in 0..120 {
                let expected = rows.iter().rev().find(|row| row.start <= offset);
                let expected = expected.map_or(Found::NoCfi, |row| row.found());
                assert_eq!(module.find(Addr::new(0x1000 + u64::from(offset))), expected);
            }
        }
    }

    #[test]
    fn below_the_base_far_above_it_and_in_a_gap_there_is_nothing() {
        let rows = [Row::new(0, rule(8)), Row::gap(16), Row::new(32, rule(16))];
        let module = ModuleRows {
            base: Addr::new(0x1000),
            rows: &rows,
        };
        for nothing in [0, 0xfff, 0x1010, 0x101f, 0x1_0000_1000, u64::MAX] {
            assert_eq!(module.find(Addr::new(nothing)), Found::NoCfi);
        }
        assert_eq!(module.find(Addr::new(0x100f)), Found::Rule(rule(8)));
        assert_eq!(module.find(Addr::new(0x1_0000_0fff)), Found::Rule(rule(16)));
    }

    #[test]
    fn unsorted_rows_cannot_harm() {
        let rows: Vec<Row> = (0..50_u32)
            .map(|i| Row::new(i.wrapping_mul(2_654_435_761), rule(8)))
            .collect();
        let module = ModuleRows {
            base: Addr::new(0),
            rows: &rows,
        };
        for lookup in (0..u64::from(u32::MAX)).step_by(100_000_007) {
            let _ = module.find(Addr::new(lookup));
        }
    }
}
