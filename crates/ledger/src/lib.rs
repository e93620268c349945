//! The ledger: live blocks, the stacks that allocated them, and sums, in one region of memory.
//!
//! Between the probes, which tell of allocations and frees, and the report. It has two homes: in
//! memory shared with the target, whose threads write it through the injected agent (`no_std`,
//! compiled into that, too), and in the tracer's own, where breakpoints tell. Bounded by the number
//! of live blocks and of distinct stacks, never by the number of events. Knows no process and no
//! clock: times are what the caller says.
//!
//! The region is mapped in full from the start, and sparse: pages exist once they are touched. So
//! it grows without anybody's help: when a table is full, whoever finds out opens the next one, for
//! the blocks of areas that come to be used from then on. Nothing is ever moved, no thread waits
//! for another, and a signal handler may interrupt any operation and do one of its own. It outlives
//! a target that is killed.
//!
//! *Failure modes*: more blocks or stacks than the last table takes are refused, and counted by the
//! caller. The target can write anything into it: whoever reads gets nonsense then, not trouble.
#![no_std]
#![deny(unsafe_code)]

mod areas;
mod counters;
mod freed;
mod frees;
mod key;
mod live;
mod near;
mod primitive;
#[allow(
    unsafe_code,
    reason = "references are made from addresses, in this file alone"
)]
mod region;
mod set;
mod stacks;

pub use areas::AREA_BITS;
pub use counters::Totals;
pub use freed::Freed;
pub use frees::{Misfree, Pair};
pub use key::{FamilyId, Key};
pub use live::{Block, Former};
pub use near::Near;
pub use region::{Ledger, STRIPES, reserved};
pub use stacks::{Kept, NoStack, StackId, Trail};

/// No room, and none to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;
