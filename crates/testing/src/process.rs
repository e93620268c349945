use std::fmt::Display;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// How long a process may live, unless a test says otherwise.
pub const LIFETIME: Duration = Duration::from_secs(90);

/// How much of a stream a failure shows.
const SHOWN: usize = 6000;

/// A process in a group of its own, killed with that group at its deadline or when this is dropped.
/// If a test fails meanwhile, the process and its streams are shown.
pub struct Watched {
    command: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
    fate: Arc<Mutex<Fate>>,
    /// Lines of standard output that [`next_line`](Watched::next_line) has returned.
    taken: usize,
    /// Dropped when the deadline no longer counts.
    _watchdog: Sender<()>,
}

/// What must not be confused when a process is to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its number is its own.
    Ours,
    /// As [`Ours`](Fate::Ours); it was killed for having lived too long.
    Overdue,
    /// It has been reaped, and its number may belong to another.
    Reaped,
}

/// A process that has ended, and what it wrote.
pub struct Finished {
    command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
}

impl Watched {
    /// Starts `command` with pipes for its three streams.
    pub fn spawn(command: &mut Command) -> Watched {
        Watched::spawn_for(command, LIFETIME)
    }

    /// As [`spawn`](Watched::spawn), with another deadline.
    pub fn spawn_for(command: &mut Command, lifetime: Duration) -> Watched {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let shown = format!("{command:?} in {}", directory_of(command));
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let fate = Arc::new(Mutex::new(Fate::Ours));
        let group = Pid::from_raw(child.id().cast_signed());
        Watched {
            stdin: child.stdin.take(),
            stdout: Stream::read(child.stdout.take()),
            stderr: Stream::read(child.stderr.take()),
            _watchdog: watch(group, Arc::clone(&fate), lifetime),
            command: shown,
            child,
            fate,
            taken: 0,
        }
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Writes to its standard input; a process that no longer reads is found out by other means.
    pub fn send(&mut self, bytes: &[u8]) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(bytes).and_then(|()| stdin.flush());
        }
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal to the process, not to its group.
    pub fn signal(&self, signal: Signal) {
        if *locked(&self.fate) != Fate::Reaped {
            let _ = kill(self.pid(), signal); // fails if it has ended: its status tells
        }
    }

    /// The next line of standard output; waits for it.
    pub fn next_line(&mut self) -> String {
        let at = self.taken;
        self.taken += 1;
        let next = |bytes: &[u8]| complete_lines(bytes).nth(at).map(str::to_owned);
        let line = self.stdout.find(next);
        line.unwrap_or_else(|| panic!("no line {at} on standard output"))
    }

    /// The first complete line of standard output that contains `text`; waits for it.
    pub fn stdout_line(&self, text: &str) -> String {
        self.stdout
            .line(text)
            .unwrap_or_else(|| panic!("no line with `{text}` on standard output"))
    }

    /// Waits until standard output has had that many complete lines that contain `text`.
    pub fn stdout_lines(&self, text: &str, count: usize) {
        let has = |bytes: &[u8]| {
            let lines = complete_lines(bytes).filter(|line| line.contains(text));
            lines.count() >= count
        };
        assert!(
            self.stdout.wait(has),
            "no {count} lines with `{text}` on standard output"
        );
    }

    /// Waits until standard output has had `text`, in whatever line.
    pub fn stdout_text(&self, text: &str) {
        let has = |bytes: &[u8]| contains(bytes, text);
        assert!(self.stdout.wait(has), "no {text:?} on standard output");
    }

    /// Whether standard output has had `text` so often by now.
    pub fn stdout_has(&self, times: usize, text: &str) -> bool {
        let all = self.stdout.so_far();
        String::from_utf8_lossy(&all).matches(text).count() >= times
    }

    /// As [`stdout_line`](Watched::stdout_line) for standard error, or nothing if the stream ends
    /// without it.
    pub fn stderr_line(&self, text: &str) -> Option<String> {
        self.stderr.line(text)
    }

    /// Waits until nobody can write to its standard output any more.
    pub fn stdout_end(&self) {
        self.stdout.to_the_end();
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        self.wait_until_over();
        let command = self.described();
        let status = self.reap().expect("it is reaped here or when dropped");
        Finished {
            command,
            status,
            stdout: self.stdout.to_the_end(),
            stderr: self.stderr.to_the_end(),
        }
    }

    /// The command and its streams so far.
    fn shown(&self) -> String {
        streams(
            &self.described(),
            "running",
            &self.stdout.so_far(),
            &self.stderr.so_far(),
        )
    }

    fn described(&self) -> String {
        let overdue = *locked(&self.fate) == Fate::Overdue;
        format!(
            "{}{}",
            self.command,
            if overdue {
                " (killed at its deadline)"
            } else {
                ""
            }
        )
    }

    /// Waits without reaping: until then the process group cannot be another's.
    fn wait_until_over(&self) {
        let how = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        // Any other error is nix having no name for a real-time signal: it has ended all the same.
        while waitid(Id::Pid(self.pid()), how) == Err(Errno::EINTR) {}
    }

    fn reap(&mut self) -> Option<ExitStatus> {
        let mut fate = locked(&self.fate);
        if *fate == Fate::Reaped {
            return None;
        }
        let _ = killpg(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGKILL,
        ); // what it left behind
        let status = self.child.wait().expect("a child of this process");
        *fate = Fate::Reaped;
        Some(status)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if *locked(&self.fate) != Fate::Reaped {
            if thread::panicking() {
                eprintln!("{}", self.shown());
            }
            let _ = killpg(self.pid(), Signal::SIGKILL);
            self.wait_until_over();
            self.reap();
        }
    }
}

impl Finished {
    /// Standard output; what is not UTF-8 is replaced.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error; what is not UTF-8 is replaced.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Fails the test unless it ended with exit status 0.
    pub fn succeeded(self) -> Finished {
        match self.status.code() {
            Some(0) => self,
            _ => self.fail("exit status 0 expected"),
        }
    }

    /// Fails the test, and shows the process.
    pub fn fail(&self, what: impl Display) -> ! {
        panic!("{what}\n{}", self.shown())
    }

    /// Command, status and streams.
    pub fn shown(&self) -> String {
        streams(
            &self.command,
            &self.status.to_string(),
            &self.stdout,
            &self.stderr,
        )
    }
}

/// What a process has written to one stream.
#[derive(Default)]
struct Stream {
    state: Mutex<(Vec<u8>, bool)>,
    more: Condvar,
}

impl Stream {
    /// Reads `source` to its end, in a thread.
    fn read<R: Read + Send + 'static>(source: Option<R>) -> Arc<Stream> {
        let stream = Arc::new(Stream::default());
        let writer = Arc::clone(&stream);
        thread::spawn(move || {
            let mut buffer = [0; 16384];
            let mut source = source.expect("a pipe");
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                locked(&writer.state).0.extend_from_slice(&buffer[..count]);
                writer.more.notify_all();
            }
            locked(&writer.state).1 = true;
            writer.more.notify_all();
        });
        stream
    }

    fn line(&self, text: &str) -> Option<String> {
        let has = |line: &&str| line.contains(text);
        self.find(|bytes| complete_lines(bytes).find(has).map(str::to_owned))
    }

    /// What `find` finds in what has come, as soon as it does; nothing if the stream ends before.
    fn find(&self, find: impl Fn(&[u8]) -> Option<String>) -> Option<String> {
        let mut state = locked(&self.state);
        loop {
            let found = find(&state.0);
            if found.is_some() || state.1 {
                return found;
            }
            let more = self.more.wait(state);
            state = more.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until `holds` of what has come; false if the stream ends before.
    fn wait(&self, holds: impl Fn(&[u8]) -> bool) -> bool {
        let mut state = locked(&self.state);
        while !holds(&state.0) && !state.1 {
            let more = self.more.wait(state);
            state = more.unwrap_or_else(PoisonError::into_inner);
        }
        holds(&state.0)
    }

    fn so_far(&self) -> Vec<u8> {
        locked(&self.state).0.clone()
    }

    fn to_the_end(&self) -> Vec<u8> {
        let ended = self.more.wait_while(locked(&self.state), |state| !state.1);
        ended.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    let mut windows = bytes.windows(text.len());
    windows.any(|window| window == text.as_bytes())
}

fn complete_lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes
        .split_inclusive(|&byte| byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.strip_suffix('\n'))
}

/// Kills the group of `leader` after `lifetime`, unless the sender has been dropped by then.
fn watch(leader: Pid, fate: Arc<Mutex<Fate>>, lifetime: Duration) -> Sender<()> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let timed_out = receiver.recv_timeout(lifetime) == Err(RecvTimeoutError::Timeout);
        let mut fate = locked(&fate);
        if timed_out && *fate == Fate::Ours {
            *fate = Fate::Overdue;
            let _ = killpg(leader, Signal::SIGKILL);
        }
    });
    sender
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn directory_of(command: &Command) -> String {
    let here = || std::env::current_dir().unwrap_or_default();
    command
        .get_current_dir()
        .map_or_else(here, Into::into)
        .display()
        .to_string()
}

fn streams(command: &str, status: &str, stdout: &[u8], stderr: &[u8]) -> String {
    format!(
        "command: {command}\nstatus: {status}\nstdout:\n{}\nstderr:\n{}",
        end_of(stdout),
        end_of(stderr)
    )
}

fn end_of(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(SHOWN);
    let text = String::from_utf8_lossy(&bytes[from..]);
    text.lines()
        .map(|line| format!("  | {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn streams_and_status_of_a_process_are_kept() {
        let mut process = Watched::spawn(&mut shell(
            "read word; echo got $word; echo bad >&2; exit 4",
        ));
        process.send(b"this\n");
        assert_eq!(process.stdout_line("got"), "got this");
        let finished = process.finish();
        assert_eq!(finished.status.code(), Some(4));
        assert_eq!(finished.stderr, b"bad\n");
    }

    #[test]
    fn a_process_dies_at_its_deadline_with_its_children() {
        let process = Watched::spawn_for(
            &mut shell("sleep 100 & sleep 100"),
            Duration::from_millis(50),
        );
        assert!(process.stderr_line("never").is_none());
        let finished = process.finish();
        assert!(!finished.status.success() && finished.shown().contains("killed at its deadline"));
    }

    #[test]
    fn a_process_group_is_killed_when_it_is_dropped() {
        let process = Watched::spawn(&mut shell("echo up; sleep 100"));
        process.stdout_line("up");
        let pid = process.pid();
        drop(process);
        assert_eq!(kill(pid, None), Err(Errno::ESRCH));
    }
}
