//! What allocators keep of their own, known by its shape: no symbols are needed.

mod glibc;

pub use glibc::{arena, is_heap};
