//! What a free took out.

use crate::{Block, FamilyId};

/// What a free took out of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// A live block.
    Block(Block),
    /// Nothing: the block was allocated before the trace, or never, or not by this family.
    Unmatched(FamilyId),
    /// Nothing, and it was not counted: see [`Ledger::is_passed_on`](crate::Ledger::is_passed_on).
    PassedOn,
}

impl Freed {
    /// A free of `family` that was counted took this out.
    pub fn new(family: FamilyId, block: Option<Block>) -> Freed {
        block.map_or(Freed::Unmatched(family), Freed::Block)
    }

    /// The block.
    pub fn block(self) -> Option<Block> {
        match self {
            Freed::Block(block) => Some(block),
            Freed::Unmatched(_) | Freed::PassedOn => None,
        }
    }
}
