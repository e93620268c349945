//! Servers for the tests of real programs: started on free ports or in temporary directories, ended
//! with the test.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

use crate::child::{Finished, Watched};
use crate::tools;

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback device");
    listener.local_addr().expect("its address").port()
}

/// A server, the process of it to attach to, and its directory.
pub(crate) struct Server {
    pub(crate) process: Watched,
    pub(crate) pid: Pid,
    pub(crate) directory: TempDir,
}

/// Runs a client to its end.
pub(crate) fn client(command: &mut Command) -> Finished {
    let mut process = Watched::spawn(command);
    process.close_stdin();
    process.finish().succeeded()
}

/// redis-server, single process.
pub(crate) fn redis(port: u16) -> Option<Server> {
    let mut command = Command::new(tools::program("redis-server")?);
    let directory = tempfile::tempdir().expect("a temporary directory");
    command.args([
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    let process = Watched::spawn(command.arg("--dir").arg(directory.path()));
    process.stdout_line("Ready to accept connections");
    Some(Server {
        pid: process.pid(),
        process,
        directory,
    })
}

/// nginx with one worker, which is what to attach to; it serves a page of `size` bytes.
pub(crate) fn nginx(port: u16, size: usize) -> Option<Server> {
    let nginx = tools::program("nginx")?;
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let root = directory.path().display().to_string();
    fs::write(directory.path().join("index.html"), "x".repeat(size)).expect("a page");
    let temporary = |name: &str| format!("{name}_temp_path {root}/{name};");
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(temporary)
        .concat();
    let configuration = format!(
        "daemon off; worker_processes 1; pid {root}/pid; error_log stderr notice; \
         events {{ worker_connections 256; }} http {{ access_log off; {paths} server {{ \
         listen 127.0.0.1:{port}; root {root}; gzip on; gzip_min_length 1; gzip_types *; }} }}"
    );
    fs::write(directory.path().join("conf"), configuration).expect("a configuration");
    let process = Watched::spawn(
        Command::new(nginx)
            .arg("-p")
            .arg(directory.path())
            .arg("-c")
            .arg(directory.path().join("conf")),
    );
    let line = process
        .stderr_line("start worker process ")
        .expect("a worker");
    let number = line
        .rsplit(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .expect("its number");
    Some(Server {
        process,
        pid: Pid::from_raw(number),
        directory,
    })
}

/// The directory of PostgreSQL's own programs, and who may run them.
pub(crate) struct Postgres {
    programs: PathBuf,
    pub(crate) server: Server,
}

impl Postgres {
    /// A new cluster, reached by a socket in its directory.
    pub(crate) fn start() -> Option<Postgres> {
        let programs =
            newest(Path::new("/usr/lib/postgresql")).or_else(|| tools::skipped("postgresql"))?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))
            .expect("permissions");
        let data = directory.path().join("data").display().to_string();
        client(as_postgres(&programs, "initdb").args([
            "--no-sync",
            "-A",
            "trust",
            "-U",
            "postgres",
            "-D",
            &data,
        ]));
        let socket = directory.path().display().to_string();
        let mut command = as_postgres(&programs, "postgres");
        let process = Watched::spawn(command.args([
            "-F",
            "-D",
            &data,
            "-k",
            &socket,
            "-c",
            "listen_addresses=",
        ]));
        process
            .stderr_line("ready to accept connections")
            .expect("a server");
        let server = Server {
            pid: process.pid(),
            process,
            directory,
        };
        Some(Postgres { programs, server })
    }

    /// A client program, told where the server is.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = as_postgres(&self.programs, program);
        command
            .env("PGHOST", self.server.directory.path())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres");
        command
    }

    /// One value of one row.
    pub(crate) fn value(&self, query: &str) -> String {
        client(self.client("psql").args(["-X", "-A", "-t", "-c", query]))
            .stdout_text()
            .trim()
            .to_owned()
    }
}

impl Drop for Postgres {
    /// In order: a server that is killed leaves a segment of System V shared memory behind.
    fn drop(&mut self) {
        let data = self.server.directory.path().join("data");
        let _ = as_postgres(&self.programs, "pg_ctl")
            .args(["-s", "-m", "fast", "-w", "stop", "-D"])
            .arg(data)
            .output();
    }
}

/// PostgreSQL does not run as root.
fn as_postgres(programs: &Path, program: &str) -> Command {
    let path = programs.join(program);
    let mut command = if geteuid().is_root() {
        Command::new("runuser")
    } else {
        Command::new(&path)
    };
    if geteuid().is_root() {
        command.args(["-u", "postgres", "--"]).arg(path);
    }
    command.current_dir("/");
    command
}

fn newest(versions: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(versions).ok()?.flatten();
    entries
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("postgres").exists())
        .max()
}
