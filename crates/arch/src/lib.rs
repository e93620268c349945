//! What leaktap has to know of the processor: registers by their roles, the breakpoint, how
//! functions and system calls are called, what a signal frame looks like.
//!
//! Other crates have no number of the processor's own, but those in folders of this name: moved
//! instructions and jumps in `probe`, the injected entries in `agent`. A second processor is a
//! second folder, with the same files in it and the same names in these.
//!
//! Pure: no I/O, no allocation, no panic. It is part of the injected code, too.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("leaktap knows x86-64 only");
