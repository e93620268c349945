//! Why a process cannot be traced: one line each, with the remedy.

use std::io;
use std::time::Duration;

use leaktap_image::Error as Image;
use leaktap_tracee::{AttachError, LaunchError, Tid};
use thiserror::Error;

/// A trace that could not be made.
#[derive(Debug, Error)]
pub enum Error {
    /// The process cannot be traced.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The program cannot be launched.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Its modules cannot be read.
    #[error("cannot read the modules of the target: {0}{cause}", cause = cause(.0))]
    Image(#[from] Image),
    /// Its memory cannot be opened.
    #[error("cannot open the memory of process {pid}: {}", limit(source))]
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
    /// It begins to run a program.
    #[error(
        "process {pid} has not mapped the libraries of {program} yet: \
         attach again when its dynamic linker is done"
    )]
    Unlinked {
        /// The process.
        pid: Tid,
        /// Its executable.
        program: String,
    },
    /// It has executed another program each time.
    #[error("process {pid} executes one program after another: attach again when one stays")]
    Replaced {
        /// The process.
        pid: Tid,
    },
    /// It calls no allocator that leaktap knows.
    #[error("no allocator found in {program} (pid {pid}): {why}")]
    NoAllocator {
        /// The process.
        pid: Tid,
        /// Its executable.
        program: String,
        /// What is known of that.
        why: &'static str,
        /// No dynamic linker could bring one yet.
        is_static: bool,
    },
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
    /// How long a process that fails so, again and again, is looked at once more: it may be
    /// starting, or executing a program.
    pub(crate) fn patience(&self) -> Duration {
        const LINKING: Duration = Duration::from_secs(5);
        const EXECUTING: Duration = Duration::from_secs(1);
        /// A leader has ended for a moment when another thread executes a program.
        const CHANGING: Duration = Duration::from_millis(20);
        let if_it_lives = |pid: &Tid| match pid.process() {
            Some(_) => EXECUTING,
            None => Duration::ZERO,
        };
        match self {
            Error::Unlinked { .. } => LINKING,
            // Its dynamic linker may not have begun.
            Error::NoAllocator {
                is_static: false, ..
            } => EXECUTING,
            Error::Replaced { .. } | Error::Attach(AttachError::Restless { .. }) => EXECUTING,
            Error::Attach(AttachError::Zombie { .. }) => CHANGING,
            Error::Attach(AttachError::NoSuchProcess { process: pid })
            | Error::OpenMemory { pid, .. }
                if !self.is_denial() =>
            {
                if_it_lives(pid)
            }
            Error::Image(Image::NoProcess { pid } | Image::NoMemory { pid }) => {
                if_it_lives(&Tid::new(*pid))
            }
            _ => Duration::ZERO,
        }
    }

    /// Whether the kernel does not let leaktap look.
    pub(crate) fn is_denial(&self) -> bool {
        match self {
            Error::Image(Image::Denied { .. }) => true,
            Error::OpenMemory { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

/// What is behind `error`, if it does not say that itself.
pub(crate) fn cause(error: &Image) -> String {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<io::Error>());
    source.map_or(String::new(), |source| format!(": {}", limit(source)))
}

/// What the system says, and which limit of leaktap's own is to be raised, if it is one
/// (getrlimit(2)).
pub fn limit(error: &io::Error) -> String {
    use nix::errno::Errno;
    if error.kind() == io::ErrorKind::TimedOut {
        return "its file system does not answer".to_owned();
    }
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    let remedy = match errno {
        Errno::EMFILE => "leaktap needs a higher ulimit -n",
        Errno::ENFILE => "the system needs a higher fs.file-max",
        Errno::ENOMEM => "leaktap needs a higher ulimit -v, or more memory",
        Errno::EFBIG => "leaktap needs a higher ulimit -f",
        _ => return error.to_string(),
    };
    format!("{} ({errno:?}): {remedy}", errno.desc())
}
