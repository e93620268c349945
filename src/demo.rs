//! `leaktap demo`: a program that leaks, to attach to.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::setsid;

/// Milliseconds between two requests that the demo's server handles.
const PERIOD: u8 = 2;

/// Starts the leaky program. It ends when its standard input is closed.
pub(crate) fn start() -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    let piped = command
        .arg("demo-target")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = piped.spawn()?;
    // It says that it has begun: before that, its C library may not even be mapped.
    if let Some(stdout) = &mut child.stdout {
        stdout.read_exact(&mut [0])?;
    }
    Ok(child)
}

/// The leaky program: a server with a cache that it never empties.
pub(crate) fn target() {
    // The terminal is leaktap's: Ctrl-C asks for the report.
    let _ = setsid();
    let mut server = Server::default();
    // Fails if nobody waits any more: then standard input is closed, too.
    let _ = io::stdout()
        .write_all(b"\n")
        .and_then(|()| io::stdout().flush());
    while !stdin_closed() {
        server.handle_request();
    }
}

#[derive(Default)]
struct Server {
    requests: u64,
    sessions: HashMap<u64, Session>,
}

struct Session {
    _token: Box<[u8; 48]>,
}

impl Server {
    #[inline(never)]
    fn handle_request(&mut self) {
        self.requests += 1;
        let answer = render_page(self.requests);
        if self.requests.is_multiple_of(3) {
            self.open_session();
        }
        if self.requests.is_multiple_of(10) {
            log_line(&answer);
        }
    }

    /// The first leak: sessions are opened and never closed.
    #[inline(never)]
    fn open_session(&mut self) {
        let token = black_box(Box::new([0; 48]));
        self.sessions
            .insert(self.requests, Session { _token: token });
    }
}

/// No leak: the page is dropped by its caller.
#[inline(never)]
fn render_page(request: u64) -> String {
    format!("<html><body>request {request}</body></html>")
}

/// The second leak: a buffer that is given away and forgotten.
#[inline(never)]
fn log_line(answer: &str) {
    let buffer = Vec::from(answer.as_bytes());
    black_box(buffer.leak());
}

/// True once nobody holds the other end of standard input; waits a little.
fn stdin_closed() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    !matches!(
        poll(&mut fds, PollTimeout::from(PERIOD)),
        Ok(0) | Err(nix::errno::Errno::EINTR)
    )
}
