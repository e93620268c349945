//! What a program runs under: leaktap, and what that is compared with.

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const RECORDER: &str = "/usr/lib/heaptrack/libheaptrack_preload.so";

/// What a program is launched by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    /// Nothing.
    Native,
    /// `leaktap run`, its JSON report in the file `report` of a folder.
    Leaktap,
    /// heaptrack's recorder, preloaded as its own script does; what it writes is not interpreted
    /// meanwhile.
    Heaptrack,
    /// memcheck, as it is by default.
    Valgrind,
}

impl Under {
    /// False if it is not on this machine.
    pub(crate) fn is_installed(self) -> bool {
        match self {
            Under::Native | Under::Leaktap => true,
            Under::Heaptrack => Path::new(RECORDER).exists(),
            Under::Valgrind => is_installed("valgrind"),
        }
    }

    /// What launches `program`, up to its arguments; files go into `folder`.
    pub(crate) fn command(self, program: &Path, folder: &Path) -> Result<Command> {
        let mut command = match self {
            Under::Native | Under::Heaptrack => Command::new(program),
            Under::Leaktap => Command::new(leaktap()?),
            Under::Valgrind => Command::new("valgrind"),
        };
        match self {
            Under::Native => {}
            Under::Leaktap => {
                let report = ["run", "-q", "-F", "json", "--report-file"];
                command.args(report).arg(folder.join("report"));
                command.arg("--").arg(program);
            }
            Under::Heaptrack => {
                command.env("LD_PRELOAD", RECORDER);
                command.env("DUMP_HEAPTRACK_OUTPUT", folder.join("heaptrack"));
            }
            Under::Valgrind => {
                let log = format!("--log-file={}", folder.join("valgrind").display());
                command.arg(log).arg(program);
            }
        }
        Ok(command)
    }
}

/// True if there is such a program in PATH.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The program beside this one in the target folder.
pub(crate) fn leaktap() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("leaktap");
    match path.exists() {
        true => Ok(path),
        false => Err("build it first: cargo build --release".into()),
    }
}

/// A leaktap that is attached.
pub(crate) struct Leaktap {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Leaktap {
    /// Attaches to a process; it is attached when this returns.
    pub(crate) fn attach(pid: i32) -> Result<Leaktap> {
        Leaktap::attach_with(pid, &[])
    }

    /// The same with more options.
    pub(crate) fn attach_with(pid: i32, more: &[&str]) -> Result<Leaktap> {
        let mut child = Command::new(leaktap()?)
            .args(["attach", "-F", "json", "-p", &pid.to_string()])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stderr = BufReader::new(child.stderr.take().ok_or("no standard error")?);
        let mut line = String::new();
        stderr.read_line(&mut line)?;
        match line.starts_with("leaktap: attached") {
            true => Ok(Leaktap { child, stderr }),
            false => Err(line.into()),
        }
    }

    /// Its own process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it write a report to its file, and go on; how long that takes.
    pub(crate) fn report_now(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        kill(Pid::from_raw(self.pid() as i32), Signal::SIGUSR1)?;
        let mut line = String::new();
        while !line.starts_with("leaktap: wrote ") {
            line.clear();
            if self.stderr.read_line(&mut line)? == 0 {
                return Err("leaktap has ended".into());
            }
        }
        Ok(begun.elapsed())
    }

    /// Has it detach.
    pub(crate) fn end(mut self) -> Result<()> {
        kill(Pid::from_raw(self.pid() as i32), Signal::SIGINT)?;
        self.child.wait()?;
        Ok(())
    }

    /// Has it detach; its report when it has ended.
    pub(crate) fn detach(mut self) -> Result<Value> {
        kill(Pid::from_raw(self.pid() as i32), Signal::SIGINT)?;
        let mut report = String::new();
        let mut stdout = self.child.stdout.take().ok_or("no standard output")?;
        stdout.read_to_string(&mut report)?;
        self.child.wait()?;
        Ok(serde_json::from_str(&report)?)
    }
}
