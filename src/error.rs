//! What can go wrong with leaktap itself: one line each, with the remedy.

use std::ffi::OsString;
use std::io;

use leaktap_trace::limit;
use thiserror::Error;

/// Exit status of a failure of leaktap's own.
pub(crate) const FAILURE: u8 = 125;

/// Exit status of a command line that makes no sense; clap's, too.
pub(crate) const USAGE: u8 = 2;

/// A failure that ends leaktap.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The process cannot be traced.
    #[error(transparent)]
    Trace(#[from] leaktap_trace::Error),
    /// What /proc says is not about the processes of this pid namespace.
    #[error(
        "/proc is not that of leaktap's pid namespace, so it would trace other processes: \
         `mount -t proc proc /proc` there first (`unshare --mount-proc`)"
    )]
    ForeignProc,
    /// No program of that name runs.
    #[error("no process is called {}: `leaktap attach PID` takes its id", name.display())]
    NoneNamed {
        /// The name.
        name: OsString,
    },
    /// More than one.
    #[error("{count} processes are called {}, choose one by its id: {list}", name.display())]
    ManyNamed {
        /// The name.
        name: OsString,
        /// How many.
        count: usize,
        /// Their ids and command lines.
        list: String,
    },
    /// A capture or report cannot be read or written.
    #[error(transparent)]
    Report(#[from] leaktap_report::Error),
    /// A file with suppressions cannot be used.
    #[error(transparent)]
    Suppressions(#[from] leaktap_report::SuppressionsError),
    /// A report cannot be written where it should be.
    #[error("{source}; the report is on {stream}")]
    Elsewhere {
        /// Why not.
        source: leaktap_report::Error,
        /// Where it is.
        stream: &'static str,
    },
    /// No trace was as long as blocks are to have lived.
    #[error(
        "--older {older} is longer than the trace, which took {longest}: all blocks are listed"
    )]
    TooYoung {
        /// The age asked for.
        older: String,
        /// The longest trace.
        longest: String,
    },
    /// Options that make no sense together.
    #[error("{0}")]
    Usage(String),
    /// The kernel refused leaktap something for itself.
    #[error("cannot {what}: {}", limit(source))]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// leaktap's exit status for this failure.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Error::Trace(leaktap_trace::Error::Launch(error)) => {
                u8::try_from(error.exit_code()).unwrap_or(FAILURE)
            }
            Error::Usage(_) => USAGE,
            _ => FAILURE,
        }
    }
}
