//! What the rest is made of. `crates/loom` has another one, with loom's atomics: it tries all
//! orders of a few steps of a few threads.

pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64};

/// Binary logarithms of first lengths. Under Miri, which is slow, tables are full soon.
pub(crate) const FIRST_BUCKETS: u32 = if cfg!(miri) { 6 } else { 17 };
pub(crate) const AREA_LINES: u32 = if cfg!(miri) { 1 } else { 19 };
pub(crate) const FIRST_FRAMES: u32 = if cfg!(miri) { 4 } else { 12 };
pub(crate) const FIRST_NODES: u32 = if cfg!(miri) { 8 } else { 16 };
