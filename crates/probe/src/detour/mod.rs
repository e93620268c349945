//! Detours: a probepoint's first instructions replaced by a jump.
//!
//! Pure: what may be replaced ([`Site`]), what becomes of it ([`Moved`]), and in which order the
//! bytes are written ([`patch()`]).

mod branches;
mod moved;
mod padding;
mod patch;
mod site;

pub(crate) use branches::{LONGEST_BRANCH, RUN_UP};
pub use branches::{LongBranch, has_branch, long_branches, may_have_branch};
pub use moved::Moved;
pub(crate) use patch::is_one_write;
pub use patch::{Write, patch};
pub(crate) use site::{ENDBR64, RET, room_of_return};
pub use site::{JUMP_LEN, Site};

#[cfg(test)]
mod prologue_tests;
