use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A capture or report that cannot be read or written. Each is one line.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read capture {}: {}", path.display(), cause(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The report cannot be written.
    #[error("cannot write {}: {}", path.display(), with_remedy(source, "--report-file"))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The capture cannot be written.
    #[error("cannot write {}: {}", path.display(), with_remedy(source, "-o"))]
    Capture {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "{} is not a capture: neither a file that `leaktap -o` wrote nor a JSON report",
        path.display()
    )]
    NotACapture {
        /// The file.
        path: PathBuf,
    },
    /// It is damaged or cut short.
    #[error("capture {} is corrupt: {source}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        source: Damage,
    },
    /// Another leaktap wrote it.
    #[error(
        "capture {} has version {found}, this leaktap reads version {known}: use the leaktap \
         that wrote it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
        /// Ours.
        known: u32,
    },
    /// An option asks for what a JSON report does not have.
    #[error(
        "{} is {of}, which does not keep {what}: {option} needs a capture of one trace (-o)",
        path.display()
    )]
    NotKept {
        /// The file.
        path: PathBuf,
        /// What it is.
        of: &'static str,
        /// What it does not keep.
        what: &'static str,
        /// What needs it.
        option: &'static str,
    },
}

/// What is wrong with a capture or a report.
#[derive(Debug, Error)]
pub enum Damage {
    /// A byte is missing, or was changed.
    #[error("its checksum is wrong: it was cut short or changed")]
    Checksum,
    /// It was not compressed as captures are.
    #[error("it cannot be decompressed: {0}")]
    Compression(String),
    /// It is not JSON, or not of this schema.
    #[error(transparent)]
    Json(serde_json::Error),
    /// A number leads to nothing.
    #[error("{0}")]
    Number(String),
    /// Nothing is in it.
    #[error("it ends before the first process")]
    Empty,
}

/// What the system says, without the number of the error.
pub(crate) fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// What the system says, and what would help; `option` is the one that names the file.
fn with_remedy(error: &io::Error, option: &str) -> String {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let space = match error.kind() {
        StorageFull | QuotaExceeded => "free some space or ",
        FileTooLarge => "raise ulimit -f or ",
        _ => "",
    };
    format!(
        "{} ({space}choose another place with {option})",
        cause(error)
    )
}
