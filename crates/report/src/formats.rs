//! How reports can be written: a file each.

mod csv;
mod flamegraph;
mod folded;
pub(crate) mod frames;
mod html;
pub(crate) mod json;
mod pprof;
mod speedscope;
mod summary;
pub(crate) mod text;

use std::io::{self, Write};

use crate::Report;

pub use self::csv::Csv;
pub use self::flamegraph::Flamegraph;
pub use self::folded::Folded;
pub use self::html::Html;
pub use self::json::Json;
pub use self::pprof::Pprof;
pub use self::speedscope::Speedscope;
pub use self::summary::Summary;
pub use self::text::{Style, Text};

/// A way to write reports.
pub trait Format {
    /// Writes `reports`, those of one trace: one, and one more for each process that was followed.
    ///
    /// # Errors
    /// As the writer's.
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()>;
}

#[cfg(test)]
mod tests;
