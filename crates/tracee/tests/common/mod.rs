//! Targets for the tests: small C programs, compiled once, watched, and killed at the end.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::print_stderr, reason = "says what a hung target was doing")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{
    CallCode, Event, Memory, Options, Signal, Stop, Stopped, Tid, Tracer, find_sigreturn,
    find_syscall, find_syscall_return,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{Signal as NixSignal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// A test that takes longer has its target killed, and so fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

const SYS_RESTART_SYSCALL: i64 = 219;

/// The program built from tests/fixtures/NAME.c, by the command on its first line.
pub(crate) fn fixture(name: &str) -> PathBuf {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.c"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = folder.join(format!("tracee-{name}"));
    let age = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if age(&program) > age(&source) {
        return program;
    }
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let unfinished = format!("tracee-{name}.{}.{serial}", process::id());
    let text = fs::read_to_string(&source).unwrap();
    let flags = text
        .lines()
        .next()
        .unwrap()
        .trim_start_matches("// gcc ")
        .split_whitespace();
    // For the headers that it includes.
    let beside = source.parent().unwrap().display().to_string();
    let flags: Vec<_> = flags.chain(["-iquote", &beside]).collect();
    let built = leaktap_testing::compile("gcc", folder, &unfinished, &text, &flags);
    // Others may be building, or running, the same.
    fs::rename(built, &program).unwrap();
    program
}

/// True if no child of that id is to be waited for: it has been reaped.
fn reaped(pid: Pid) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(pid), look | WaitPidFlag::__WALL) == Err(Errno::ECHILD)
}

/// Kills one child, and only that, when the deadline has passed.
pub(crate) struct Watch {
    pid: Pid,
    cancel: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn on(tid: Tid) -> Watch {
        let pid = Pid::from_raw(tid.get());
        let (cancel, cancelled) = mpsc::channel();
        let thread = thread::spawn(move || {
            if cancelled.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("deadline passed: killing {pid}\n{}", threads_of(pid));
                if !reaped(pid) {
                    let _ = kill(pid, NixSignal::SIGKILL);
                }
            }
        });
        Watch {
            pid,
            cancel: Some(cancel),
            thread: Some(thread),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.cancel.take());
        let _ = self.thread.take().map(JoinHandle::join);
        if reaped(self.pid) {
            return;
        }
        let _ = kill(self.pid, NixSignal::SIGKILL);
        // A leader is reaped last: as long as we trace its threads, each has to be waited for.
        while !reaped(self.pid) {
            for tid in tasks(self.pid).into_iter().chain([self.pid]) {
                let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WEXITED | WaitPidFlag::__WALL;
                let _ = waitid(Id::Pid(tid), flags);
            }
            thread::yield_now();
        }
    }
}

fn tasks(pid: Pid) -> Vec<Pid> {
    let names = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    names
        .filter_map(|name| {
            Some(Pid::from_raw(
                name.ok()?.file_name().to_str()?.parse().ok()?,
            ))
        })
        .collect()
}

fn threads_of(pid: Pid) -> String {
    let read = |tid: Pid, file: &str| {
        fs::read_to_string(format!("/proc/{pid}/task/{tid}/{file}")).unwrap_or_default()
    };
    let thread = |tid: Pid| format!("{}{}", read(tid, "stat"), read(tid, "syscall"));
    tasks(pid).into_iter().map(thread).collect()
}

/// A running fixture.
pub(crate) struct Target {
    pub(crate) tid: Tid,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    _watch: Watch,
    _child: Child,
}

impl Target {
    /// Starts it, and waits for its line "READY".
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Target {
        let mut target = Target::spawn(process::Command::new(fixture(name)).args(arguments));
        assert_eq!(target.line(), "READY");
        target
    }

    pub(crate) fn spawn(command: &mut process::Command) -> Target {
        let mut child = command
            // Not an orphaned group, whoever runs the tests: SIGTSTP would not stop it
            // (setpgid(2)).
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let tid = Tid::new(child.id().cast_signed());
        Target {
            tid,
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            _watch: Watch::on(tid),
            _child: child,
        }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// True if [`Target::line`] would not have to wait.
    pub(crate) fn has_line(&self) -> bool {
        let mut poll = [PollFd::new(
            self.output.get_ref().as_fd(),
            PollFlags::POLLIN,
        )];
        !self.output.buffer().is_empty() || nix::poll::poll(&mut poll, PollTimeout::ZERO) == Ok(1)
    }

    /// All that it still writes.
    pub(crate) fn rest(&mut self) -> String {
        let mut text = String::new();
        while self.output.read_line(&mut text).unwrap() > 0 {}
        text
    }

    pub(crate) fn tell(&mut self, text: &str) {
        self.input
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// Closes its standard input.
    pub(crate) fn end_of_input(&mut self) {
        self.input = None;
    }

    pub(crate) fn kill(&self, signal: NixSignal) {
        kill(Pid::from_raw(self.tid.get()), signal).unwrap();
    }

    pub(crate) fn status(&self, field: &str) -> String {
        status(self.tid, field)
    }

    /// Waits until a thread sleeps in the system call `number`, perhaps made again by the kernel.
    pub(crate) fn until_in(&self, tid: Tid, number: i64) {
        let in_it = || {
            let call = fs::read_to_string(format!("/proc/{tid}/syscall")).unwrap_or_default();
            let call = call.split(' ').next().and_then(|word| word.parse().ok());
            call.is_some_and(|call| [number, SYS_RESTART_SYSCALL].contains(&call))
                && status(tid, "State").starts_with('S')
        };
        until(&format!("{tid} in system call {number}"), in_it);
    }
}

/// A field of /proc/TID/status.
pub(crate) fn status(tid: Tid, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// Waits for something that has to come true, but tells nobody.
pub(crate) fn until(what: &str, mut comes_true: impl FnMut() -> bool) {
    let since = Instant::now();
    while !comes_true() {
        assert!(since.elapsed() < DEADLINE, "in vain: {what}");
        thread::yield_now();
    }
}

/// Resumes all that stops, until the tracee `of` ends; returns the stops in order and the end.
pub(crate) fn run_out(tracer: &mut Tracer, of: Tid) -> (Vec<(Tid, Stop)>, Event) {
    let mut stops = Vec::new();
    loop {
        match tracer.wait(0) {
            Event::Stopped(stopped) => {
                stops.push((stopped.tid(), stopped.stop()));
                let _ = stopped.resume();
            }
            Event::Interrupted => {}
            event @ (Event::Exited { tid, .. } | Event::Killed { tid, .. }) if tid == of => {
                return (stops, event);
            }
            Event::NoChildren => panic!("{of} was never seen to end: {stops:?}"),
            _ => {}
        }
    }
}

/// Asserts that SIGKILL was the end.
pub(crate) fn assert_killed(end: &Event) {
    assert!(
        matches!(
            end,
            Event::Killed {
                signal: Signal::KILL,
                ..
            }
        ),
        "{end:?}"
    );
}

/// Ends a target in the system call `call`; asserts that it noticed neither an error nor a signal.
pub(crate) fn assert_undisturbed(mut target: Target, tracer: &mut Tracer, call: &str) {
    target.tell("x");
    let (_, end) = run_out(tracer, target.tid);
    assert!(
        matches!(end, Event::Exited { code: 0, .. }),
        "{call}: {end:?}"
    );
    assert_eq!(
        target.rest(),
        "0 0\n",
        "errno of {call}, and signals handled"
    );
}

/// Attaches to `target` and lets all of its threads run.
pub(crate) fn follow(tracer: &mut Tracer, target: &Target) {
    for stopped in tracer
        .attach(target.tid, Options::follow())
        .unwrap()
        .stopped
    {
        stopped.resume().unwrap();
    }
}

/// Resumes all that stops until `wanted` does so by such a stop.
pub(crate) fn run_to(tracer: &mut Tracer, wanted: impl Fn(Tid, Stop) -> bool) -> Stopped {
    loop {
        match tracer.wait(0) {
            Event::Stopped(stopped) if wanted(stopped.tid(), stopped.stop()) => return stopped,
            Event::Stopped(stopped) => drop(stopped.resume()),
            Event::NoChildren => panic!("all have ended"),
            _ => {}
        }
    }
}

/// Code for system calls somewhere in that of `process`, the vdso's and the vsyscall page's aside.
pub(crate) fn code(process: Tid) -> CallCode {
    let find = |search: fn(&[u8]) -> Option<usize>| find(process, search);
    let (both, sigreturn) = (find(find_syscall_return), find(find_sigreturn));
    match both.zip(sigreturn) {
        Some((syscall, sigreturn)) => CallCode {
            syscall,
            sigreturn: Some(sigreturn),
        },
        None => CallCode {
            syscall: find(find_syscall).unwrap(),
            sigreturn: None,
        },
    }
}

fn find(process: Tid, search: fn(&[u8]) -> Option<usize>) -> Option<Addr> {
    let memory = Memory::open(process).unwrap();
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let find = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let bound = |text| u64::from_str_radix(text, 16).unwrap();
        let mut code = vec![0; usize::try_from(bound(end) - bound(start)).unwrap()];
        let start = Addr::new(bound(start));
        if !rest.starts_with("r-xp") || memory.read(start, &mut code).is_err() {
            return None;
        }
        start.checked_add(search(&code)? as u64)
    };
    maps.lines()
        .filter(|line| !line.ends_with("]"))
        .find_map(find)
}
