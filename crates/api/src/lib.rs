//! Allocator functions: which there are, what their calls are, and what they do.
//!
//! Both engines ask here, the tracer at breakpoints and the agent in detours, so that they cannot
//! differ. Knows no process and no ledger, and stacks only as callers that it is shown. `no_std`,
//! compiled into the agent too; the names of functions (feature `table`) are for the tracer alone.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "table")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod action;
mod effect;
#[cfg(feature = "table")]
mod functions;
mod nested;
mod nesting;
#[cfg(feature = "table")]
mod presets;
#[cfg(feature = "table")]
pub mod spec;
#[cfg(feature = "table")]
mod table;

pub use action::{Action, MAP_FIXED};
pub use effect::{Effect, effect};
#[cfg(feature = "table")]
pub use functions::{Function, FunctionId, Functions};
pub use nested::Nested;
pub use nesting::{Caller, Entered, Innermost, Place, Reach, Stack, Standing, State, standing};
