mod interpreter;

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use thiserror::Error;

use crate::diagnosis::Denied;
use crate::{Event, Options, Signal, Stop, Stopped, Tid, Tracer, Wakeups, sys};

/// How often signals to us are looked for while a child has not executed its program.
const LOOK: Duration = Duration::from_millis(20);

/// Where execvp(3) looks when there is no PATH: `confstr(_CS_PATH)`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A program to launch.
#[derive(Clone, Debug)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
}

/// Why a program was not launched.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// No file of that name, here or along PATH.
    #[error("{}: not found", .program.display())]
    NotFound {
        /// As it was given.
        program: OsString,
    },
    /// There is one, but not the program that is to interpret it.
    #[error("{}: cannot be executed: its interpreter {} is not found",
            .program.display(), .interpreter.display())]
    NoInterpreter {
        /// As it was given.
        program: OsString,
        /// What the file names.
        interpreter: OsString,
    },
    /// There is one, but the kernel does not execute it.
    #[error("{}: cannot be executed: {source}", .program.display())]
    CannotExecute {
        /// As it was given.
        program: OsString,
        /// What execve(2) said.
        source: io::Error,
    },
    /// A signal, from outside, ended the child before it executed anything.
    #[error("{}: ended by {signal} before it began", .program.display())]
    Killed {
        /// As it was given.
        program: OsString,
        /// The signal.
        signal: Signal,
    },
    /// A signal to us came before the child executed anything.
    #[error("{}: interrupted before it began", .program.display())]
    Interrupted {
        /// As it was given.
        program: OsString,
    },
    /// The child may not be traced.
    #[error("{}: cannot be traced: {why}", .program.display())]
    Denied {
        /// As it was given.
        program: OsString,
        /// Why, and what would help.
        why: Denied,
    },
    /// No process, descriptor or memory left for it.
    #[error("{}: cannot be started: {source}", .program.display())]
    Resources {
        /// As it was given.
        program: OsString,
        /// What pipe(2) or fork(2) said.
        source: io::Error,
    },
}

impl LaunchError {
    /// The exit status of one that launches programs, as of env(1): 127 not found, 126 cannot be
    /// executed, 128+N ended by signal N, 125 for a failure of our own.
    pub fn exit_code(&self) -> i32 {
        match self {
            LaunchError::NotFound { .. } => 127,
            LaunchError::NoInterpreter { .. } | LaunchError::CannotExecute { .. } => 126,
            LaunchError::Killed { signal, .. } => 128 + signal.number(),
            LaunchError::Interrupted { .. }
            | LaunchError::Denied { .. }
            | LaunchError::Resources { .. } => 125,
        }
    }
}

impl Command {
    /// The file `program`; without a slash, the first of that name along PATH.
    pub fn new(program: impl Into<OsString>) -> Command {
        Command {
            program: program.into(),
            arguments: Vec::new(),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Command {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    fn image(&self) -> io::Result<sys::Image> {
        let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
        let path = search_path();
        let all = std::iter::once(&self.program).chain(&self.arguments);
        Ok(sys::Image {
            paths: candidates(&self.program, &path)
                .iter()
                .map(|p| text(p))
                .collect::<Result<_, _>>()?,
            arguments: all
                .map(|argument| text(argument))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Of the file that execvp(3) would have executed.
    fn missing_interpreter(&self) -> Option<OsString> {
        let files = candidates(&self.program, &search_path());
        files.iter().find_map(|file| interpreter::missing(file))
    }

    fn failed(&self, errno: i32) -> LaunchError {
        let program = self.program.clone();
        match Errno::from_raw(errno) {
            Errno::ENOENT => match self.missing_interpreter() {
                Some(interpreter) => LaunchError::NoInterpreter {
                    program,
                    interpreter,
                },
                None => LaunchError::NotFound { program },
            },
            errno => LaunchError::CannotExecute {
                program,
                source: errno.into(),
            },
        }
    }
}

fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into())
}

/// The files that execvp(3) tries for `program`.
fn candidates(program: &OsStr, path: &OsStr) -> Vec<OsString> {
    let name = program.as_bytes();
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains(&b'/') {
        return vec![program.to_owned()];
    }
    let folders = path.as_bytes().split(|&byte| byte == b':');
    // An empty entry is the current folder.
    let within = |folder: &[u8]| match folder {
        [] => name.to_vec(),
        folder => [folder, b"/", name].concat(),
    };
    folders
        .map(|folder| OsString::from_vec(within(folder)))
        .collect()
}

impl Tracer {
    /// Starts a program as a shell would, and traces it from its first instruction: it is returned
    /// in [`Stop::Exec`], a child of this process.
    ///
    /// Terminal, process group, descriptors (but those marked close-on-exec), working directory
    /// and environment are ours. Signals are blocked and ignored as they were when this process
    /// began, whatever Rust's start code or this process have changed since.
    ///
    /// Set-user-id programs run without their privileges under a tracer (execve(2)).
    ///
    /// # Errors
    /// [`LaunchError`]. No child is left then.
    pub fn launch(&mut self, command: &Command, options: Options) -> Result<Stopped, LaunchError> {
        let resources = |source: io::Error| {
            let program = command.program.clone();
            LaunchError::Resources { program, source }
        };
        let image = command
            .image()
            .map_err(|_| command.failed(Errno::EINVAL as i32))?;
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|errno| resources(errno.into()));
        let (go, gate) = pipe()?;
        let (failed, failing) = pipe()?;
        let child = sys::fork_exec(&image, go.as_fd(), gate.as_fd(), failing.as_fd())
            .map_err(|errno| resources(errno.into()))?;
        drop(failing);
        self.note_options(Tid::new(child), options);
        if let Err(errno) = sys::seize(child, options.bits()) {
            // At the closed gate the child ends by itself.
            drop(gate);
            sys::reap(child);
            return Err(command.denied(errno));
        }
        // Cannot fail, nor raise SIGPIPE if the child has been killed: we hold the other end, too.
        let _ = File::from(gate).write_all(&[1]);
        drop(go);
        self.until_exec(Tid::new(child))
            .map_err(|end| command.why(end, failed))
    }

    /// The stop at its exec; else what ended it, or us.
    fn until_exec(&mut self, child: Tid) -> Result<Stopped, Event> {
        loop {
            let deadline = Instant::now() + LOOK;
            match self.wait_until(child, deadline) {
                Ok(Some(stopped)) if matches!(stopped.stop(), Stop::Exec { .. }) => {
                    return Ok(stopped);
                }
                // If it died its end is next.
                Ok(Some(stopped)) => drop(stopped.resume()),
                // Its file may be one that nobody ever reads to its end.
                Ok(None) if Wakeups::is_ended() => return Err(Event::Interrupted),
                Ok(None) => {}
                Err(_) => return Err(self.take_end(child).unwrap_or(Event::NoChildren)),
            }
        }
    }
}

impl Command {
    /// Why the child was not seized.
    fn denied(&self, errno: Errno) -> LaunchError {
        let program = self.program.clone();
        match errno {
            Errno::EPERM => LaunchError::Denied {
                program,
                why: Denied::launching(),
            },
            errno => LaunchError::Resources {
                program,
                source: errno.into(),
            },
        }
    }

    /// Why the child ended before it executed the program.
    fn why(&self, end: Event, failed: OwnedFd) -> LaunchError {
        let program = self.program.clone();
        if let Event::Interrupted = end {
            return LaunchError::Interrupted { program };
        }
        let mut errno = [0; 4];
        match (File::from(failed).read_exact(&mut errno), end) {
            (Err(_), Event::Killed { signal, .. }) => LaunchError::Killed { program, signal },
            (Err(source), _) => self.failed(source.raw_os_error().unwrap_or(0)),
            (Ok(()), _) => self.failed(i32::from_ne_bytes(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_where_execvp_does() {
        let looks = |program: &str, path: &str| candidates(program.as_ref(), path.as_ref());
        assert_eq!(looks("x", "/a:/b"), ["/a/x", "/b/x"]);
        assert_eq!(looks("x", "/a::/b"), ["/a/x", "x", "/b/x"]);
        assert_eq!(looks("./x", "/a"), ["./x"]);
        assert!(looks("", "/a").is_empty());
    }
}
