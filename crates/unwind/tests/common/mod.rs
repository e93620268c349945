//! Simulated memory and rules for the tests of the walker and the memo.
#![allow(dead_code)]

pub(crate) mod program;

use leaktap_memory::{Addr, ReadMemory, Unreadable};
use leaktap_unwind::{Cfa, Row, Rule, SavedBp, Step};

/// Memory that is an array of words from `base` on.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    pub(crate) base: u64,
    pub(crate) words: Vec<u64>,
}

impl Words {
    pub(crate) fn index(&self, at: Addr) -> Option<usize> {
        let offset = at.get().checked_sub(self.base)?;
        let index = usize::try_from(offset / 8).ok()?;
        (offset % 8 == 0 && index < self.words.len()).then_some(index)
    }

    pub(crate) fn set(&mut self, at: u64, value: u64) {
        let index = self
            .index(Addr::new(at))
            .expect("outside the simulated stack");
        self.words[index] = value;
    }
}

impl ReadMemory for Words {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        let len = buf.len();
        let index = self
            .index(at)
            .filter(|_| len == 8)
            .ok_or(Unreadable { at, len })?;
        buf.copy_from_slice(&self.words[index].to_le_bytes());
        Ok(())
    }
}

pub(crate) fn call(cfa: Cfa, bp: SavedBp) -> Rule {
    Rule::pack(Step::Call { cfa, bp })
}

/// Rules by pc: each row starts at `start` and holds to the next.
pub(crate) fn rows(table: &[(u32, Option<Rule>)]) -> Vec<Row> {
    let row = |&(start, rule): &(u32, Option<Rule>)| match rule {
        Some(rule) => Row::new(start, rule),
        None => Row::gap(start),
    };
    table.iter().map(row).collect()
}
