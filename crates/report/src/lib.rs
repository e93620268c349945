//! What leaktap found, as data and as text.
//!
//! Last stage of the data path: the [`Report`] is what the JSON report says, and what a capture
//! file keeps; [`Selection`] decides what is listed; [`render`] and [`json()`] print it. Knows no
//! process and no ELF file: names are in the report already.
#![forbid(unsafe_code)]

mod allocator;
mod capture;
mod error;
mod file;
mod json;
mod line;
mod model;
mod names;
mod numbers;
mod pattern;
mod selection;
mod text;

pub use allocator::caller_of_allocator;
pub use capture::{parse, read, write};
pub use error::Error;
pub use file::{replace, try_to_replace};
pub use json::json;
pub use line::one_line;
pub use model::{
    Age, Exit, Family, Frame, Heap, Kind, Probe, Report, SCHEMA, Site, Source, Stopped, Target,
    Totals,
};
pub use names::printable;
pub use numbers::{bytes, count};
pub use pattern::{OutputName, Pattern};
pub use selection::{By, Selection};
pub use text::{Style, render};
