//! Processes that a trial starts: in a group of their own, their streams in files, killed when
//! dropped.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::wait;

/// Lines of a process's streams that are shown.
const FIRST: usize = 12;
const LAST: usize = 8;
/// Characters of a line that are shown.
const WIDTH: usize = 250;

/// A process, and where its streams are.
pub(crate) struct Child {
    process: Process,
    streams: PathBuf,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `command`; its streams go to `NAME.out` and `NAME.err` in `folder`.
    pub(crate) fn start(command: &mut Command, folder: &Path, name: &str) -> Result<Child, String> {
        let streams = folder.join(name);
        let process = open(&streams)
            .and_then(|(out, err)| {
                command
                    .stdin(Stdio::null())
                    .stdout(out)
                    .stderr(err)
                    .process_group(0)
                    .spawn()
            })
            .map_err(|error| format!("cannot start {command:?}: {error}"))?;
        Ok(Child {
            process,
            streams,
            status: None,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// Sends a signal, unless it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let _ = kill(self.pid(), signal); // fails if it has just ended: its status tells
        }
    }

    /// Its status, if it has ended. What it left behind in its group is killed before its number
    /// can be another's.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() && is_over(self.pid()) {
            let _ = killpg(self.pid(), Signal::SIGKILL);
            self.status = self.process.wait().ok();
        }
        self.status
    }

    /// Waits for its end; `None` if it does not end in time.
    pub(crate) fn await_end(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait::until(limit, || self.ended().is_some());
        self.status
    }

    pub(crate) fn out(&self) -> String {
        read(&self.streams.with_extension("out"))
    }

    pub(crate) fn err(&self) -> String {
        read(&self.streams.with_extension("err"))
    }

    /// Begin and end of both streams, for people.
    pub(crate) fn said(&self) -> String {
        let both = self.out() + &self.err();
        let lines: Vec<&str> = both.lines().collect();
        let last = lines.len().saturating_sub(LAST).max(FIRST.min(lines.len()));
        let shown = lines[..FIRST.min(last)].iter().chain(&lines[last..]);
        let short = |line: &&str| line.chars().take(WIDTH).collect::<String>();
        shown.map(short).collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.process.wait();
        }
    }
}

/// True if this child has ended; it is not reaped.
fn is_over(pid: Pid) -> bool {
    let how = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(pid), how) {
        Ok(status) => status != WaitStatus::StillAlive,
        Err(error) => error == Errno::EINVAL, // nix has no name for a real-time signal
    }
}

fn open(streams: &Path) -> io::Result<(File, File)> {
    let out = File::create(streams.with_extension("out"))?;
    Ok((out, File::create(streams.with_extension("err"))?))
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
