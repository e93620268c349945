//! The ledger in shared memory: written by the target's threads, read by the tracer.
//!
//! Live blocks, the stacks that allocated them, and sums, in one sparse file (memfd_create(2)),
//! mapped in full from the start; pages exist once they are touched. So it grows without anybody's
//! help: when a table is full, whoever finds out opens the next one, twice as large, and look-ups
//! go from the newest to the oldest. Nothing is ever moved, no thread waits for another, and a
//! signal handler may interrupt any operation and do one of its own. It outlives a target that is
//! killed.
//!
//! *Failure modes*: more blocks or stacks than the last table takes are refused, and counted by the
//! caller. The target can write anything into it: whoever reads gets nonsense then, not trouble.

mod counters;
mod live;
#[allow(
    unsafe_code,
    reason = "references are made from addresses, in this file alone"
)]
mod region;
mod set;
mod stacks;

pub use counters::Totals;
pub use live::Block;
pub use region::{Ledger, STRIPES, reserved};
pub use stacks::{Kept, StackId};

/// No room, and none to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;
