//! Names for addresses of ELF files: functions, those that were inlined there, source lines.
//!
//! In the data path it comes at the end, where a [`Resolver`] turns the addresses of stacks into
//! what people read. It knows files, which `image` opens, and no process.
//!
//! Files belong to the target, or to whoever made a capture: damaged debug information gives fewer
//! names, or none.
#![forbid(unsafe_code)]

mod demangle;
mod itanium;
mod lines;
mod mangled;
mod resolver;
mod scopes;
mod split;

pub use demangle::demangle;
pub use resolver::{Name, Resolver};
