//! Addresses of another process and the reading of its memory.
//!
//! The first stage of every data path: whoever reads a stack, a link map or an ELF header of the
//! target does it through [`ReadMemory`]. Pure: no I/O here, the caller brings the memory.
//! Not for writing: only `probe` changes the target, through `tracee`.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod addr;
mod hash;
mod overlay;
mod read;

pub use addr::{Addr, PAGE, Svma};
pub use hash::GOLDEN;
pub use overlay::StackOverlay;
pub use read::{ReadMemory, Unreadable};
