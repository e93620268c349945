//! What leaktap found, as data and as text.
//!
//! Last stage of the data path: the [`Report`] is what the JSON report says, and what a capture
//! file keeps; [`Selection`] decides what is listed; a [`Format`] prints it. Knows no process and
//! no ELF file: names are in the report already.
#![forbid(unsafe_code)]

mod allocator;
mod baseline;
mod capture;
mod choice;
mod compact;
mod counts;
mod course;
mod diff;
mod error;
mod excerpts;
mod file;
mod forecast;
mod formats;
mod grouping;
mod identity;
mod line;
mod merge;
mod model;
mod names;
mod numbers;
mod own;
mod pattern;
mod reading;
mod rename;
mod runtime;
mod selection;
mod sight;
mod suppressions;
mod trend;
mod whole;

pub use allocator::caller_of_allocator;
pub use baseline::{Baseline, Budget};
pub use capture::{MAGIC, Needs, checked, parse, read, seal, write};
pub use choice::{Choice, Listed};
pub use diff::difference;
pub use error::{Damage, Error};
pub use excerpts::{Excerpts, Named, named_lines};
pub use file::{replace, try_to_replace};
pub use forecast::{Limit, Measure, forecast};
pub use formats::{
    Csv, Dhat, Flamegraph, Folded, Format, Github, Gitlab, Heaptrack, Html, Json, Junit, Leaks,
    Massif, Memcheck, Pprof, Sarif, Speedscope, Style, Summary, Text, ValgrindXml,
};
pub use grouping::By;
pub use line::one_line;
pub use merge::{merged, replicas};
pub use model::{
    Age, Alike, Amount, Change, Changed, Checked, Child, Compared, Course, Exit, Family, Forecast,
    Frame, FrameId, Growth, Heap, Hex, Kind, Look, Memory, Mode, Module, ModuleId, Moment, Part,
    Peak, PeakSite, Place, Probe, ProbeKind, Report, Rung, SCHEMA, Shape, Site, Slope, Snapshot,
    Source, Stopped, Suppressed, Tables, Target, Totals, What,
};
pub use names::printable;
pub use numbers::{bytes, count, grouped};
pub use own::Own;
pub use pattern::{OutputName, Pattern};
pub use selection::{Selection, Sort};
pub use sight::is_in_doubt;
pub use suppressions::{Problem, Ready, Suppressions, SuppressionsError};
pub use trend::{Trend, trend};
pub use whole::is_whole;
