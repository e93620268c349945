//! Exact stacks from call frame information (x86-64).
//!
//! The stage between a stop, or a detour, and the ledger: registers and stack words go in, frames
//! come out. The core is `no_std`, allocates nothing and cannot panic, because the same code runs
//! in the injected agent on its own memory and in the tracer on a copied stack:
//!
//! - a [`Row`] says from which pc on which [`Rule`] holds, a rule how to get from a frame to its
//!   caller;
//! - [`walk()`] applies rules, found by whatever implements [`Rules`], and says how it
//!   [ended](End);
//! - [`Memo`] remembers a walk together with every word that it read, and is exact by construction.
//!
//! With the feature `build` (std), `rows` compiles `.eh_frame` and `.debug_frame` into rows and
//! `Table` finds the rule of any pc of a process.
//!
//! Functions without call frame information have rows made from their instructions, if the caller
//! passes these (`rows_with_code`).
//!
//! Not for names (that is `image`), not for other processors, and the core reads no code: where
//! there are no rows, only the frame pointer is tried, and the frame so found is marked.
#![cfg_attr(not(any(test, feature = "build")), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "build")]
mod build;
mod cache;
mod end;
mod frame;
mod memo;
mod row;
mod rule;
#[cfg(feature = "build")]
mod table;
mod walk;

#[cfg(feature = "build")]
pub use build::{
    Built, CfiSections, Code, functions, functions_at, may_unwind, rows, rows_with_code,
    signal_returns,
};
pub use cache::{Remembered, RuleCache};
pub use end::{End, UnknownEnd};
pub use frame::Frame;
pub use memo::{Keep, Memo, Missed};
pub use row::{Found, ModuleRows, Row, Rules};
pub use rule::{Cfa, Rule, SavedBp, Step};
#[cfg(feature = "build")]
pub use table::{Load, Table};
pub use walk::{Start, Visited, Walk, walk, walk_with};
