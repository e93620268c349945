//! The ledger and the published tables, with loom's atomics in the place of the processor's.
//!
//! Beside the data path, for tests alone. The sources are those of `ledger` and `agent`: their
//! `primitive` module is another one here, and so is the ledger's `region`, which makes references
//! from addresses there. loom then tries the orders in which a few threads may take a few steps,
//! and for each load the stores that it may see. Not tried: signal handlers, and what lies in the
//! agent's assembly.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::undocumented_unsafe_blocks,
    reason = "sources of other crates, where these are looked at"
)]

#[path = "../../ledger/src/areas.rs"]
mod areas;
#[path = "../../ledger/src/counters.rs"]
mod counters;
#[path = "../../ledger/src/freed.rs"]
mod freed;
#[path = "../../ledger/src/key.rs"]
mod key;
#[path = "../../ledger/src/live.rs"]
mod live;
mod primitive;
#[path = "../../agent/src/published.rs"]
pub mod published;
#[path = "../../agent/src/queue.rs"]
pub mod queue;
mod region;
#[path = "../../ledger/src/set.rs"]
mod set;
#[path = "../../ledger/src/stacks.rs"]
mod stacks;

pub use freed::Freed;
pub use key::{FamilyId, Key};
pub use live::Block;
pub use region::{Ledger, bucket_of, with_ledger};
pub use stacks::{Kept, NoStack, StackId, Trail};

/// No room, and none to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;
