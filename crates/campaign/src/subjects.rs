//! Running targets, each with its own way to be asked how it is.

mod counted;
mod nginx;
mod redis;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::unistd::Pid;

use crate::board::Order;
use crate::kit::{self, Kit};
use crate::subject::Subject;
use counted::Counted;

/// How long a target has for anything: machines may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A target at work.
pub(crate) trait Running {
    /// The process to attach to.
    fn pid(&self) -> Pid;

    /// Waits until it has made progress; what is wrong, if it has not.
    fn progresses(&mut self) -> Result<(), String>;

    /// How it ended, if it has.
    fn ended(&mut self) -> Option<String>;

    /// Tells it what to do, if it can be told.
    fn order(&mut self, order: Order);

    /// Tells it that its system calls may end early.
    fn disturb(&mut self);

    /// Has it check itself and end; what is wrong, if anything.
    fn finish(&mut self) -> Result<(), String>;
}

/// Starts `subject`; it works when this returns.
pub(crate) fn start(
    subject: Subject,
    kit: &Kit,
    folder: &Path,
) -> Result<Box<dyn Running>, String> {
    let mut running: Box<dyn Running> = match subject {
        Subject::Redis => Box::new(redis::Redis::start(folder)?),
        Subject::Nginx => Box::new(nginx::Nginx::start(folder)?),
        _ => Box::new(Counted::start(command(subject, kit), folder)?),
    };
    running.progresses()?;
    Ok(running)
}

/// Starts a program with a board, such as `command` up to the board's path.
pub(crate) fn start_counted(command: Command, folder: &Path) -> Result<Box<dyn Running>, String> {
    let mut running = Counted::start(command, folder)?;
    running.progresses()?;
    Ok(Box::new(running))
}

/// `python`, at work on what it checks itself.
pub(crate) fn python(python: &Path, with_malloc: bool) -> Command {
    let mut command = Command::new(python);
    command.arg(kit::python_source());
    if with_malloc {
        command.env("PYTHONMALLOC", "malloc");
    }
    command
}

fn command(subject: Subject, kit: &Kit) -> Command {
    match subject {
        Subject::Python => python(&kit.pythons[0], false),
        Subject::PythonMalloc => python(&kit.pythons[0], true),
        Subject::Jvm => {
            let mut command = Command::new("java");
            command.args(["-XX:+UseSerialGC", "-Xmx128m", "-XX:-UsePerfData"]);
            command
                .args(["-XX:ErrorFile=/dev/null", "-cp"])
                .arg(kit.classes())
                .arg("Jvm");
            command
        }
        _ => Command::new(kit.storm(subject)),
    }
}
