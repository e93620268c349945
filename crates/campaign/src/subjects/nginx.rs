//! A worker of nginx under ab, on a port that the kernel has chosen.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{PATIENCE, Running};
use crate::board::Order;
use crate::child::Child;
use crate::{processes, wait};

/// Bytes of the page.
const PAGE: usize = 20_000;

/// The server, its only worker, and its load.
pub(crate) struct Nginx {
    load: Child,
    master: Child,
    worker: Pid,
    port: u16,
}

impl Nginx {
    /// Starts all.
    pub(crate) fn start(folder: &Path) -> Result<Nginx, String> {
        let failed = |error: std::io::Error| format!("nginx: {error}");
        let port = free_port().map_err(failed)?;
        fs::write(folder.join("index.html"), "x".repeat(PAGE)).map_err(failed)?;
        fs::write(folder.join("conf"), configuration(folder, port)).map_err(failed)?;
        let mut master = Command::new("/usr/sbin/nginx");
        master
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(folder.join("conf"));
        let master = Child::start(&mut master, folder, "target")?;
        let mut worker = None;
        wait::until(PATIENCE, || {
            worker = worker_of(&master.err());
            worker.is_some() && TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let worker = worker.ok_or_else(|| format!("nginx does not come up: {}", master.said()))?;
        let mut load = Command::new("ab");
        load.args([
            "-q",
            "-t",
            "600",
            "-n",
            "1000000",
            "-c",
            "4",
            "-H",
            "Accept-Encoding: gzip",
        ]);
        load.arg(format!("http://127.0.0.1:{port}/index.html"));
        Ok(Nginx {
            load: Child::start(&mut load, folder, "load")?,
            master,
            worker,
            port,
        })
    }

    fn ask(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok(head.starts_with("HTTP/1.1 200") && body.len() == PAGE)
    }
}

impl Running for Nginx {
    fn pid(&self) -> Pid {
        self.worker
    }

    fn progresses(&mut self) -> Result<(), String> {
        for _ in 0..3 {
            match self.ask() {
                Ok(true) => {}
                Ok(false) => return Err("nginx answers wrong".to_owned()),
                Err(error) => {
                    let said = self.master.said();
                    return Err(format!("nginx does not answer: {error}; it said: {said}"));
                }
            }
        }
        match self.ended() {
            Some(how) => Err(how),
            None => Ok(()),
        }
    }

    fn ended(&mut self) -> Option<String> {
        let is_over = self.master.ended().is_some() || !processes::is_alive(self.worker);
        is_over.then(|| format!("nginx's worker has ended: {}", self.master.said()))
    }

    fn order(&mut self, _order: Order) {}

    fn disturb(&mut self) {}

    fn finish(&mut self) -> Result<(), String> {
        self.load.signal(Signal::SIGINT);
        self.load.await_end(PATIENCE);
        let result = self.load.out();
        let line = |name: &str| {
            result
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or("")
        };
        if !line("Failed requests:").ends_with(" 0") || !line("Non-2xx").is_empty() {
            return Err(format!("ab has seen errors: {}", self.load.said()));
        }
        self.master.signal(Signal::SIGQUIT);
        match self.master.await_end(PATIENCE) {
            Some(status) if status.success() && !self.master.err().contains("exited on") => Ok(()),
            status => Err(format!(
                "nginx should have ended well: {status:?}: {}",
                self.master.said()
            )),
        }
    }
}

/// A port that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn configuration(folder: &Path, port: u16) -> String {
    let root = folder.display();
    let temporary = |name: &str| format!("{name}_temp_path {root}/{name};");
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(temporary)
        .concat();
    format!(
        "user root; daemon off; worker_processes 1; pid {root}/pid; error_log stderr notice; \
         events {{ worker_connections 64; }} \
         http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port}; root {root}; \
         gzip on; gzip_min_length 1; gzip_types *; }} }}"
    )
}

fn worker_of(log: &str) -> Option<Pid> {
    let line = log
        .lines()
        .find(|line| line.contains("start worker process "))?;
    line.rsplit(' ').next()?.parse().ok().map(Pid::from_raw)
}
