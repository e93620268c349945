//! How reports can be written: a file each.

pub(crate) mod json;
pub(crate) mod text;

use std::io::{self, Write};

use crate::Report;

pub use self::json::Json;
pub use self::text::{Style, Text};

/// A way to write reports.
pub trait Format {
    /// Writes `reports`, those of one trace: one, and one more for each process that was followed.
    ///
    /// # Errors
    /// As the writer's.
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()>;
}
