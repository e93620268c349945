//! What leaktap is attached to.

use std::fmt;

/// A program that tests itself while it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Threads,
    Coroutines,
    Forks,
    Execs,
    Dlopens,
    Signals,
    Mmaps,
    Timers,
    Statics,
    Jumps,
    Redis,
    Python,
    PythonMalloc,
    Golang,
    Jvm,
    Nginx,
}

use Subject::{
    Coroutines, Dlopens, Execs, Forks, Golang, Jumps, Jvm, Mmaps, Nginx, Python, PythonMalloc,
    Redis, Signals, Statics, Threads, Timers,
};

impl Subject {
    /// Small programs of `fixtures/campaign`.
    pub(crate) const STORMS: [Subject; 10] = [
        Threads, Coroutines, Forks, Execs, Dlopens, Signals, Mmaps, Timers, Statics, Jumps,
    ];
    /// Real programs.
    pub(crate) const REAL: [Subject; 6] = [Redis, Python, PythonMalloc, Golang, Jvm, Nginx];

    /// True for a small program, which does on command what others cannot be made to do.
    pub(crate) fn is_storm(self) -> bool {
        Subject::STORMS.contains(&self)
    }

    pub(crate) fn is_python(self) -> bool {
        matches!(self, Python | PythonMalloc)
    }

    /// True if it makes code of its own while it runs.
    pub(crate) fn has_jit(self) -> bool {
        self == Jvm
    }

    /// True if connections come and go.
    pub(crate) fn is_server(self) -> bool {
        matches!(self, Redis | Nginx)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Threads => "threads",
            Coroutines => "coroutines",
            Forks => "forks",
            Execs => "execs",
            Dlopens => "dlopens",
            Signals => "signals",
            Mmaps => "mmaps",
            Timers => "timers",
            Statics => "statics",
            Jumps => "jumps",
            Redis => "redis",
            Python => "python",
            PythonMalloc => "python-malloc",
            Golang => "golang",
            Jvm => "jvm",
            Nginx => "nginx",
        })
    }
}
