//! Allocator functions: which there are, and what their calls do.
//!
//! Both engines ask here, the tracer at breakpoints and the agent in detours, so that they cannot
//! differ. Knows no process, no stack and no ledger. `no_std`, compiled into the agent too; the
//! names of functions (feature `table`) are for the tracer alone.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "table")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod action;
#[cfg(feature = "table")]
mod functions;
#[cfg(feature = "table")]
mod presets;
#[cfg(feature = "table")]
pub mod spec;
#[cfg(feature = "table")]
mod table;

pub use action::{Action, MAP_FIXED, is_lazy};
#[cfg(feature = "table")]
pub use functions::{Function, FunctionId, Functions};
