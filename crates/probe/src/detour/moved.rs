use leaktap_memory::Addr;
use leaktap_unwind::{Found, Row, Rules};

use crate::Boundary;

/// The displaced instructions of a function at their new address, with a jump back behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Address of the instructions in the function.
    pub(crate) from: Addr,
    /// The moved code, for the address given.
    pub code: Vec<u8>,
    /// Which instruction is where; the last boundary, if it falls through, is that of the jump.
    pub map: Vec<Boundary>,
}

impl Moved {
    /// Rows for the moved code, which begins `offset` bytes from the base that rows count from:
    /// an instruction's rule, by `rules`, is the same in both places.
    ///
    /// For walks that start in a signal handler which interrupts the moved code. (Between the
    /// instructions that a displaced call became, the rule is that of the call itself.)
    pub fn rows(&self, offset: u32, rules: &mut impl Rules) -> Vec<Row> {
        let row = |boundary: &Boundary| {
            let start = offset.checked_add(u32::try_from(boundary.relocated).ok()?)?;
            let original = self.from.wrapping_offset(boundary.original as i64);
            Some(match rules.rule(original) {
                Found::Rule(rule) => Row::new(start, rule),
                Found::NoCfi => Row::gap(start),
            })
        };
        self.map.iter().filter_map(row).collect()
    }

    /// Where in the function a thread is that is `offset` bytes into the moved code. Nothing in
    /// the middle of an instruction that became several.
    pub fn original(&self, offset: usize) -> Option<Addr> {
        let boundary = self
            .map
            .iter()
            .find(|boundary| boundary.relocated == offset)?;
        Some(self.from.wrapping_offset(boundary.original as i64))
    }
}

#[cfg(test)]
mod tests {
    use leaktap_memory::{ReadMemory, Unreadable};
    use leaktap_unwind::{Cfa, Rule, SavedBp, Step};

    use super::*;
    use crate::Site;

    const AT: Addr = Addr::new(0x7f00_0000_1000);

    struct Nothing;

    impl ReadMemory for Nothing {
        fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
            Err(Unreadable { at, len: buf.len() })
        }
    }

    /// What a CFA is after so many bytes of pushes.
    struct Pushes;

    fn rule(offset: i32) -> Rule {
        Rule::pack(Step::Call {
            cfa: Cfa::Sp(offset),
            bp: SavedBp::Unchanged,
        })
    }

    impl Rules for Pushes {
        fn rule(&mut self, lookup: Addr) -> Found {
            match lookup.offset_from(AT) {
                Some(0) => Found::Rule(rule(8)),
                Some(2) => Found::Rule(rule(16)),
                Some(5) => Found::Rule(rule(24)),
                _ => Found::NoCfi,
            }
        }
    }

    #[test]
    fn goes_back_and_unwinds_as_the_original_does() {
        // push r12; push 7; nop
        let code = [0x41, 0x54, 0x0f, 0x1f, 0x00, 0x90];
        let site = Site::find(&code, AT, &Nothing).unwrap();
        let to = Addr::new(AT.get() + 0x1000);
        let moved = site.moved(to).unwrap();
        assert_eq!(moved.code[..6], [0x41, 0x54, 0x0f, 0x1f, 0x00, 0xe9]);
        assert_eq!(moved.code[6..], (-0x1005_i32).to_le_bytes());
        let rows = [(0x40, rule(8)), (0x42, rule(16)), (0x45, rule(24))];
        let rows = rows.map(|(start, rule)| Row::new(start, rule));
        assert_eq!(moved.rows(0x40, &mut Pushes), rows);
        assert_eq!(moved.original(2), AT.checked_add(2));
        assert_eq!(moved.original(3), None);
    }

    #[test]
    fn code_that_ends_needs_no_way_back() {
        let site = Site::find(&[0xe9, 0, 1, 0, 0], AT, &Nothing).unwrap();
        assert_eq!(site.moved(AT).unwrap().code, [0xe9, 0, 1, 0, 0]);
    }
}
