//! What leads to each block, once somebody has looked.

use leaktap_analysis::reach::{Blocks, Grade};
use leaktap_ledger::Block;

/// How blocks were found to be reached.
#[derive(Debug)]
pub(crate) enum Graded {
    NotYet,
    /// Why it could not be found out.
    Failed(String),
    /// Grades are by the number of the block.
    Done {
        blocks: Blocks,
        grades: Vec<Grade>,
    },
}

impl Graded {
    pub(super) fn of(&self, block: &Block) -> Option<Grade> {
        let Graded::Done { blocks, grades } = self else {
            return None;
        };
        let number = blocks.at(block.key.addr())?;
        grades.get(number as usize).copied()
    }
}
