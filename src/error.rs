//! What can go wrong with leaktap itself: one line each, with the remedy.

use std::io;

use leaktap_tracee::{AttachError, LaunchError, Tid};
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
    Attach(#[from] AttachError),
    /// The program cannot be launched.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Its modules cannot be read.
    #[error("cannot read the modules of the target: {0}")]
    Image(#[from] leaktap_image::Error),
    /// Its memory cannot be opened.
    #[error("cannot open the memory of process {pid}: {source}")]
    OpenMemory {
        /// The process.
        pid: Tid,
        /// Why.
        source: io::Error,
    },
    /// Its executable is none that leaktap can trace.
    #[error("cannot trace process {pid}: {why}")]
    Program {
        /// The process.
        pid: Tid,
        /// What is wrong with it.
        why: String,
    },
    /// Another build of leaktap was killed while it traced it.
    #[error(
        "process {pid} still runs with the probes of another build of leaktap, which was killed: \
         attach with that build once, it takes them out"
    )]
    Remains {
        /// The process.
        pid: Tid,
    },
    /// It calls no allocator that leaktap knows.
    #[error(
        "no allocator found in {program} (pid {pid}): none of its modules defines malloc; \
         a static program needs its symbol table (not stripped)"
    )]
    NoAllocator {
        /// The process.
        pid: Tid,
        /// Its executable.
        program: String,
    },
    /// A capture or report cannot be read or written.
    #[error(transparent)]
    Report(#[from] leaktap_report::Error),
    /// The kernel refused leaktap something for itself.
    #[error("cannot {what}: {source}")]
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
            Error::Launch(error) => u8::try_from(error.exit_code()).unwrap_or(FAILURE),
            _ => FAILURE,
        }
    }
}
