//! leaktap at work on a target.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::child::Child;
use crate::draw::Engine;
use crate::kit::Kit;
use crate::wait;

/// How long leaktap has to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// How leaktap is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    /// A program and its arguments that execute leaktap.
    pub(crate) by: Vec<String>,
    /// Detach by itself after so long.
    pub(crate) duration: Option<Duration>,
    /// The report goes to a full disk.
    pub(crate) full_disk: bool,
}

/// A process of it. It has a folder of its own, where nothing but the report may be in the end.
pub(crate) struct Leaktap {
    pub(crate) child: Child,
    folder: PathBuf,
    /// It has been told to detach.
    pub(crate) told: bool,
}

impl Leaktap {
    /// Attaches to `pid`. `number` tells this leaktap from others of the trial.
    pub(crate) fn attach(
        kit: &Kit,
        trial: &Path,
        number: u64,
        engine: Engine,
        pid: Pid,
        start: &Start,
    ) -> Result<Leaktap, String> {
        let folder = trial.join(format!("leaktap-{number}"));
        fs::create_dir(&folder).map_err(|error| error.to_string())?;
        let mut command = match start.by.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&kit.leaktap);
                command
            }
            None => Command::new(&kit.leaktap),
        };
        let report = if start.full_disk {
            "/dev/full"
        } else {
            "report.json"
        };
        command.current_dir(&folder).env("TMPDIR", &folder);
        command.args([
            "attach",
            "--engine",
            &engine.to_string(),
            "--leak-check",
            "none",
        ]);
        command.args([
            "-F",
            "json",
            "--report-file",
            report,
            "-p",
            &pid.to_string(),
        ]);
        if let Some(duration) = start.duration {
            command.args(["--duration", &format!("{}ms", duration.as_millis().max(1))]);
        }
        let child = Child::start(&mut command, trial, &format!("leaktap-{number}-said"))?;
        Ok(Leaktap {
            child,
            folder,
            told: false,
        })
    }

    /// Waits until it says that it is attached; false if it ends without, or not in time.
    pub(crate) fn is_attached(&mut self, limit: Duration) -> bool {
        let says = |child: &Child| child.err().contains("leaktap: attached to ");
        let mut ended = false;
        wait::until(limit, || {
            ended = self.child.ended().is_some();
            ended || says(&self.child)
        });
        says(&self.child)
    }

    /// Waits until it has begun to trace `pid`.
    pub(crate) fn has_seized(&mut self, pid: Pid) {
        wait::until(PATIENCE, || {
            crate::processes::is_traced(pid) || self.child.ended().is_some()
        });
    }

    /// Tells it to detach, if `now`; once.
    pub(crate) fn detach_if(&mut self, now: bool) {
        if now && !self.told {
            self.told = true;
            self.child.signal(Signal::SIGINT);
        }
    }

    /// Waits for its end.
    pub(crate) fn await_end(&mut self) -> Option<ExitStatus> {
        self.child.await_end(PATIENCE)
    }

    /// Its report, if there is one.
    pub(crate) fn report(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("report.json")).ok()
    }

    /// Files that it has left, but for the report.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name != "report.json").collect()
    }
}
