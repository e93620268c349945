//! redis-server under redis-benchmark, on a socket of its own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{PATIENCE, Running};
use crate::board::Order;
use crate::child::Child;
use crate::wait;

/// The server, its load, and how often it has been asked.
pub(crate) struct Redis {
    load: Child,
    server: Child,
    socket: PathBuf,
    asked: u32,
}

impl Redis {
    /// Starts both.
    pub(crate) fn start(folder: &Path) -> Result<Redis, String> {
        let socket = folder.join("socket");
        let mut server = Command::new("redis-server");
        server.args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--unixsocket",
        ]);
        server.arg(&socket).arg("--dir").arg(folder);
        let server = Child::start(&mut server, folder, "target")?;
        if !wait::until(PATIENCE, || UnixStream::connect(&socket).is_ok()) {
            return Err(format!("redis-server does not come up: {}", server.said()));
        }
        let mut load = Command::new("redis-benchmark");
        load.arg("-s").arg(&socket);
        load.args([
            "-l",
            "-q",
            "-c",
            "8",
            "-P",
            "2",
            "-n",
            "100000",
            "-r",
            "500",
            "-t",
            "set,get,incr,hset",
        ]);
        let load = Child::start(&mut load, folder, "load")?;
        Ok(Redis {
            load,
            server,
            socket,
            asked: 0,
        })
    }

    /// Sets a value, has it changed by the server, and gets it.
    fn ask(&mut self) -> std::io::Result<bool> {
        self.asked += 1;
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let text = "y".repeat(self.asked as usize * 70 % 5000 + 1);
        let command = format!("SET check {text}\r\nAPPEND check end\r\nGET check\r\nDEL check\r\n");
        stream.write_all(command.as_bytes())?;
        let (size, mut answer) = (text.len() + 3, Vec::new());
        let expected = format!("+OK\r\n:{size}\r\n${size}\r\n{text}end\r\n:1\r\n");
        answer.resize(expected.len(), 0);
        stream.read_exact(&mut answer)?;
        Ok(answer == expected.as_bytes())
    }
}

impl Running for Redis {
    fn pid(&self) -> Pid {
        self.server.pid()
    }

    fn progresses(&mut self) -> Result<(), String> {
        for _ in 0..3 {
            match self.ask() {
                Ok(true) => {}
                Ok(false) => return Err("redis answers wrong".to_owned()),
                Err(error) => {
                    let said = self.server.said();
                    return Err(format!("redis does not answer: {error}; it said: {said}"));
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self) -> Option<String> {
        self.server.ended().map(|status| status.to_string())
    }

    fn order(&mut self, _order: Order) {}

    fn disturb(&mut self) {}

    fn finish(&mut self) -> Result<(), String> {
        if let Some(status) = self.load.ended() {
            return Err(format!(
                "redis-benchmark has ended: {status}: {}",
                self.load.said()
            ));
        }
        self.load.signal(Signal::SIGKILL);
        self.load.await_end(PATIENCE);
        self.server.signal(Signal::SIGTERM);
        match self.server.await_end(PATIENCE) {
            Some(status) if status.success() => Ok(()),
            status => Err(format!(
                "redis should have ended well: {status:?}: {}",
                self.server.said()
            )),
        }
    }
}
