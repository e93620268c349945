//! What allocators keep of their own, known by its shape: no symbols are needed.

mod glibc;

pub use glibc::{arena, first_chunk, is_heap, may_be_heap};
