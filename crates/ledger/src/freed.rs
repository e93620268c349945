//! What a free took out.

use crate::{Block, FamilyId};

/// What a free took out of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// A live block.
    Block(Block),
    /// Nothing: the block was allocated before the trace, or never, or not by this family.
    Unmatched(FamilyId),
}

impl Freed {
    /// A free of `family` took this out.
    pub fn new(family: FamilyId, block: Option<Block>) -> Freed {
        block.map_or(Freed::Unmatched(family), Freed::Block)
    }

    /// The block.
    pub fn block(self) -> Option<Block> {
        match self {
            Freed::Block(block) => Some(block),
            Freed::Unmatched(_) => None,
        }
    }

    /// Whose it is.
    pub fn family(self) -> FamilyId {
        match self {
            Freed::Block(block) => block.key.family(),
            Freed::Unmatched(family) => family,
        }
    }
}
