//! Doing the fault of a draw.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::board::Order;
use crate::child::Child;
use crate::draw::{Draw, Engine};
use crate::fault::Fault;
use crate::freezer::Freezer;
use crate::kit::Kit;
use crate::leaktap::{Leaktap, Start};
use crate::moment::Anchor;
use crate::report;
use crate::subjects::Running;
use crate::{processes, snapshot, wait};

/// Where a fault is done.
pub(crate) struct Scene<'a> {
    pub(crate) draw: &'a Draw,
    pub(crate) kit: &'a Kit,
    pub(crate) folder: &'a Path,
}

/// A fault that goes on, and has an end.
pub(crate) enum Lasting {
    Stopped(Pid),
    Frozen(Freezer),
    Strace(Child),
    Second(Box<Leaktap>),
}

/// How long strace has to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a thread has to stop again.
const STOPS: Duration = Duration::from_secs(2);

/// How leaktap is started under this fault.
pub(crate) fn start_of(draw: &Draw) -> Start {
    let words = |text: String| text.split(' ').map(str::to_owned).collect();
    let is_before = draw.moment.anchor == Anchor::Before;
    let by = match draw.fault {
        Fault::LeaktapAddresses | Fault::LeaktapFiles | Fault::LeaktapFileSize if is_before => {
            words(format!("prlimit {}", limit_of_leaktap(draw)))
        }
        Fault::Pin => words(format!("taskset -c {}", first_processor())),
        Fault::Nice => words("nice -n 19".to_owned()),
        _ => Vec::new(),
    };
    Start {
        by,
        duration: None,
        full_disk: draw.fault == Fault::FullDisk,
    }
}

impl Scene<'_> {
    /// Does it. What goes on comes back; an error means that it is not possible on this machine.
    pub(crate) fn act(
        &self,
        target: &mut dyn Running,
        leaktap: Option<&mut Leaktap>,
    ) -> Result<Option<Lasting>, String> {
        let pid = target.pid();
        match self.draw.fault {
            Fault::Nothing | Fault::Nice | Fault::FullDisk => {}
            Fault::Pin => pin(pid),
            Fault::Exec => target.order(Order::Exec),
            Fault::ThreadStorm => target.order(Order::Threads),
            Fault::Filter => target.order(Order::Filter),
            Fault::TargetKill => send(pid, Signal::SIGKILL),
            Fault::TargetSegv => send(pid, Signal::SIGSEGV),
            Fault::TargetCont => send(pid, Signal::SIGCONT),
            Fault::TargetStop | Fault::Freeze | Fault::Strace | Fault::SecondLeaktap => {
                return self.begin(target);
            }
            Fault::TargetAddresses => limit_addresses(pid, self.draw.size)?,
            Fault::TargetFiles => limit(pid, &format!("--nofile={}", files(pid) + 16))?,
            Fault::TargetFileSize => limit(pid, "--fsize=1048576")?,
            _ => return self.harm_leaktap(leaktap).map(|()| None),
        }
        Ok(None)
    }

    fn harm_leaktap(&self, leaktap: Option<&mut Leaktap>) -> Result<(), String> {
        let Some(Leaktap { child, told, .. }) = leaktap else {
            return Ok(()); // it is started so
        };
        *told |= self.draw.fault.signal().is_some();
        match self.draw.fault {
            Fault::LeaktapKill => child.signal(Signal::SIGKILL),
            Fault::LeaktapTerm => child.signal(Signal::SIGTERM),
            Fault::LeaktapInt => child.signal(Signal::SIGINT),
            Fault::LeaktapHup => child.signal(Signal::SIGHUP),
            Fault::LeaktapCont => child.signal(Signal::SIGCONT),
            Fault::LeaktapStop => {
                child.signal(Signal::SIGSTOP);
                wait::exactly(self.draw.lasts);
                child.signal(Signal::SIGCONT);
            }
            _ if child.ended().is_none() => limit(child.pid(), &limit_of_leaktap(self.draw))?,
            _ => {}
        }
        Ok(())
    }

    /// Begins what goes on; ends it, too, unless it is to outlast leaktap.
    fn begin(&self, target: &mut dyn Running) -> Result<Option<Lasting>, String> {
        let pid = target.pid();
        target.disturb();
        let lasting = match self.draw.fault {
            Fault::TargetStop => {
                send(pid, Signal::SIGSTOP);
                Lasting::Stopped(pid)
            }
            Fault::Freeze => Lasting::Frozen(Freezer::freeze(pid)?),
            Fault::Strace => {
                let mut command = Command::new("strace");
                command.args(["-f", "-o", "/dev/null", "-p", &pid.to_string()]);
                Lasting::Strace(Child::start(&mut command, self.folder, "strace")?)
            }
            _ => {
                let start = Start {
                    duration: Some(self.draw.lasts),
                    ..Start::default()
                };
                let engine = [Engine::Auto, Engine::Breakpoint][self.draw.size as usize % 2];
                let leaktap = Leaktap::attach(self.kit, self.folder, 99, engine, pid, &start)?;
                return Ok(Some(Lasting::Second(Box::new(leaktap))));
            }
        };
        if self.draw.outlasts {
            return Ok(Some(lasting));
        }
        wait::exactly(self.draw.lasts);
        lasting.end(false); // which is of interest only where leaktap has ended before
        Ok(None)
    }
}

impl Lasting {
    /// Ends it. What is wrong, if anything; `alone`: leaktap has ended before.
    pub(crate) fn end(self, alone: bool) -> Vec<String> {
        match self {
            Lasting::Stopped(pid) => {
                // A thread that is let go stops again by itself, which takes a moment.
                let stays = || matches!(processes::state(pid), Some('T') | None);
                let runs = alone && !wait::until(STOPS, stays);
                send(pid, Signal::SIGCONT);
                runs.then(|| "the target was stopped, and leaktap had it go on".to_owned())
                    .into_iter()
                    .collect()
            }
            Lasting::Frozen(freezer) => {
                drop(freezer);
                Vec::new()
            }
            Lasting::Strace(mut strace) => {
                strace.signal(Signal::SIGINT);
                strace.await_end(PATIENCE); // or it is killed: that would be no fault of ours
                Vec::new()
            }
            Lasting::Second(mut leaktap) => match leaktap.await_end() {
                Some(status) => report::wrong(&leaktap, status, true, true, None),
                None => vec!["the second leaktap does not end".to_owned()],
            },
        }
    }
}

fn send(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal); // fails if it has ended, which is found out
}

/// Sets a limit of a process by prlimit(1): neither std nor nix can for another process.
fn limit(pid: Pid, limit: &str) -> Result<(), String> {
    let mut command = Command::new("prlimit");
    let output = command.args(["--pid", &pid.to_string(), limit]).output();
    output
        .map(|_| ())
        .map_err(|error| format!("prlimit: {error}"))
}

fn limit_of_leaktap(draw: &Draw) -> String {
    match draw.fault {
        Fault::LeaktapAddresses => format!("--as={}", (draw.size + 1) << 28),
        Fault::LeaktapFiles => format!("--nofile={}", 8 + draw.size / 2),
        _ => format!("--fsize={}", 500 + draw.size * 30), // an error line fits, a report may not
    }
}

/// Leaves the target some GiB, but not always what an agent takes. An agent may just be coming or
/// going: then once more.
fn limit_addresses(pid: Pid, size: u64) -> Result<(), String> {
    let room = (1 + size / 4) << 20;
    loop {
        let before = snapshot::size(pid);
        limit(pid, &format!("--as={}", (before + room) << 10))?;
        if snapshot::size(pid) <= before + room / 2 || !processes::is_alive(pid) {
            return Ok(());
        }
    }
}

/// The highest descriptor of a process.
fn files(pid: Pid) -> u64 {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.max().unwrap_or(0)
}

fn first_processor() -> usize {
    let all = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count())
        .find(|&one| all.is_set(one).unwrap_or(false))
        .unwrap_or(0)
}

fn pin(pid: Pid) {
    let mut one = CpuSet::new();
    let _ = one.set(first_processor());
    for thread in processes::threads(pid) {
        let _ = sched_setaffinity(thread, &one); // it may have ended
    }
}
