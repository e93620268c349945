//! How reports can be written: a file each.

mod csv;
mod dhat;
mod findings;
mod flamegraph;
mod folded;
pub(crate) mod frames;
mod github;
mod gitlab;
mod heaptrack;
mod html;
pub(crate) mod json;
mod junit;
mod massif;
mod memcheck;
mod pprof;
mod sarif;
mod speedscope;
mod summary;
pub(crate) mod text;
mod tree;
mod valgrind_xml;
mod xml;

use std::io::{self, Write};

use crate::Report;

pub use self::csv::Csv;
pub use self::dhat::Dhat;
pub use self::findings::Leaks;
pub use self::flamegraph::Flamegraph;
pub use self::folded::Folded;
pub use self::github::Github;
pub use self::gitlab::Gitlab;
pub use self::heaptrack::Heaptrack;
pub use self::html::Html;
pub use self::json::Json;
pub use self::junit::Junit;
pub use self::massif::Massif;
pub use self::memcheck::Memcheck;
pub use self::pprof::Pprof;
pub use self::sarif::Sarif;
pub use self::speedscope::Speedscope;
pub use self::summary::Summary;
pub use self::text::{Style, Text};
pub use self::valgrind_xml::ValgrindXml;

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
