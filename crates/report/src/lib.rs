//! What leaktap found, as data and as text.
//!
//! Last stage of the data path: the [`Report`] is what the JSON report says, and what a capture file
//! keeps; [`Selection`] decides what is listed; [`render`] and [`json`] print it. Knows no process
//! and no ELF file: names are in the report already.
#![forbid(unsafe_code)]

mod allocator;
mod capture;
mod error;
mod file;
mod model;
mod names;
mod numbers;
mod pattern;
mod selection;
mod text;

use std::io::{self, BufWriter, Write};

pub use allocator::caller_of_allocator;
pub use capture::{parse, read, write};
pub use error::Error;
pub use model::{
    Age, Exit, Frame, Kind, Probe, Report, SCHEMA, Site, Source, Stopped, Target, Totals,
};
pub use pattern::{OutputName, Pattern};
pub use selection::{By, Selection};
pub use text::{Style, render};

/// Prints `report` as one line of JSON, schema 1.
///
/// # Errors
/// As the writer's.
pub fn json(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    // Thousands of frames are written in small pieces, each of which would be a call through a table.
    let mut out = BufWriter::new(out);
    serde_json::to_writer(&mut out, report)?;
    out.write_all(b"\n")?;
    out.flush()
}
