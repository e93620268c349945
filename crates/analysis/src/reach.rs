//! Which blocks can still be reached, as memcheck has it (Valgrind User Manual, 4.2.8).
//!
//! `blocks` finds the block that a word points into, `scan` goes through memory and keeps the words
//! that do, `hints` knows pointers into blocks that are as good as pointers to them, `grade`
//! follows all of these from the roots.

mod blocks;
mod grade;
mod hints;
mod scan;
mod window;

pub use blocks::{Blocks, Pointer};
pub use grade::{Grade, grade};
pub use scan::{Parts, Scan};
