//! loom's atomics, and tables as small as may be.

pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, fence};

pub(crate) const FIRST_BUCKETS: u32 = 6;
pub(crate) const AREA_LINES: u32 = 1;
pub(crate) const FIRST_FRAMES: u32 = 4;
pub(crate) const FIRST_NODES: u32 = 4;
