//! What a program holds, summed up: the regions that it mapped, and blocks by call site.
//!
//! Between the ledger and the report. Pure: knows no process, no symbols, no files.
#![forbid(unsafe_code)]

mod regions;
mod sites;

pub use regions::{Origin, Region, Regions};
pub use sites::{Held, SiteKey, Sum, sum};
