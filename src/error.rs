//! What can go wrong with leaktap itself: one line each, with the remedy.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use leaktap_image::Error as Image;
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
    /// What /proc says is not about the processes of this pid namespace.
    #[error(
        "/proc is not that of leaktap's pid namespace, so it would trace other processes: \
         `mount -t proc proc /proc` there first (`unshare --mount-proc`)"
    )]
    ForeignProc,
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
    /// A capture or report cannot be read or written.
    #[error(transparent)]
    Report(#[from] leaktap_report::Error),
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
    /// How long a process that fails so, again and again, is looked at once more: it may be
    /// starting, or
    /// executing a program.
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

    /// leaktap's exit status for this failure.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Error::Launch(error) => u8::try_from(error.exit_code()).unwrap_or(FAILURE),
            Error::Usage(_) => USAGE,
            _ => FAILURE,
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
pub(crate) fn limit(error: &io::Error) -> String {
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
