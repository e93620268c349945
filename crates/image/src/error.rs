use std::io;
use std::path::{Path, PathBuf};

use procfs::ProcError;

/// What could not be learnt about a process or a file, and what was tried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such process, or no longer.
    #[error("no process {pid}")]
    NoProcess {
        /// The process id asked for.
        pid: i32,
    },
    /// A kernel thread or a zombie: nothing is mapped.
    #[error("process {pid} has no memory: a kernel thread, or it has ended")]
    NoMemory {
        /// The process id asked for.
        pid: i32,
    },
    /// Some of what is mapped.
    #[error("{bytes} bytes of the memory of process {pid} cannot be read")]
    Unread {
        /// The process.
        pid: i32,
        /// How much.
        bytes: u64,
    },
    /// The kernel does not let us look.
    #[error("not permitted to read {}", what.display())]
    Denied {
        /// The file that was opened or read.
        what: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file could not be opened or read.
    #[error("cannot read {}", what.display())]
    Read {
        /// The file that was opened or read.
        what: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file under /proc has not the form that proc(5) gives it.
    #[error("cannot understand {}: {why}", what.display())]
    Proc {
        /// The file.
        what: PathBuf,
        /// What was wrong.
        why: String,
    },
    /// Not an ELF file.
    #[error("{} is not an ELF file: {why}", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        why: &'static str,
    },
    /// An ELF file, but not of a 64-bit x86 program.
    #[error("{} is not x86-64 code: {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its class or machine.
        what: String,
    },
    /// The file at the path is not the one that is mapped, and the mapped one cannot be opened.
    #[error(
        "{} has been replaced or deleted, and the mapped file is not readable through \
         /proc/PID/map_files (that takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE)",
        path.display()
    )]
    Replaced {
        /// The path of the mapping.
        path: PathBuf,
    },
    /// No loadable segment of the file explains the mapping.
    #[error("no segment of {} is mapped from offset {offset:#x}", path.display())]
    NoSegment {
        /// The file.
        path: PathBuf,
        /// Where in the file the mapping begins.
        offset: u64,
    },
}

impl Error {
    /// An I/O error on `what`, sorted by what the user can do about it.
    pub(crate) fn io(what: &Path, source: io::Error) -> Error {
        let what = what.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Error::Denied { what, source },
            _ => Error::Read { what, source },
        }
    }

    /// A failure of the procfs crate on `/proc/PID/what`.
    pub(crate) fn proc(pid: i32, what: &str, error: ProcError) -> Error {
        let file = PathBuf::from(format!("/proc/{pid}/{what}"));
        match error {
            ProcError::NotFound(_) => Error::NoProcess { pid },
            ProcError::Io(source, _) if source.raw_os_error() == Some(nix::libc::ESRCH) => {
                Error::NoProcess { pid }
            }
            ProcError::Io(source, _) => Error::io(&file, source),
            ProcError::PermissionDenied(_) => Error::Denied {
                what: file,
                source: io::ErrorKind::PermissionDenied.into(),
            },
            other => Error::Proc {
                what: file,
                why: other.to_string(),
            },
        }
    }
}
