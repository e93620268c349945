//! What [published tables](crate::published) are made of. In `crates/loom`, loom's atomics stand
//! here.

pub(crate) use core::sync::atomic::{AtomicU64, fence};
