//! Detours: a probepoint's first instructions replaced by a jump.
//!
//! Pure: what becomes of displaced instructions ([`Moved`]), and in which order the bytes are
//! written ([`patch()`]). What may be replaced is the processor's affair ([`Site`](crate::Site)).

mod moved;
mod patch;

pub use moved::Moved;
pub(crate) use patch::is_one_write;
pub use patch::{Write, patch};
