//! What an image of a target's memory says of its blocks.
//!
//! Between the ledger and the report. Pure: knows no process, no symbols, no files; the caller
//! brings memory and says what is a root.
#![forbid(unsafe_code)]

pub mod heaps;
pub mod reach;
pub mod threads;

mod quick;

pub use quick::Quick;
