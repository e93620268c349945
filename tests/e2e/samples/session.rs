//! Runs the commands of a sample, and writes down what a reader would see.

use std::env;
use std::path::Path;
use std::process::Command;

use nix::unistd::Pid;
use tempfile::TempDir;

use super::document::Sample;
use crate::child::Watched;
use crate::compile::{Build, compile, sources};

/// The number of the process that is live.
const LIVE: &str = "4711";

/// Where the commands run, and where sources are.
const FOLDER: &str = "/home/anna";
const SOURCES: &str = "/home/anna/src";

/// Keeps `$?`, and says that a command begins: with the command's number, after this byte.
const BEGIN: &str =
    "exec 2>&1\nbegin() { status=$?; printf '\\001%s\\n' \"$1\"; return $status; }\n";

/// The commands of `sample`, each with what it prints now.
pub(super) fn run(sample: &Sample) -> String {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for program in sample.programs.iter().chain(&sample.live) {
        copy(program, folder.path());
    }
    let mut live = sample
        .live
        .as_deref()
        .map(|name| start(name, folder.path()));
    let commands: Vec<&str> = sample
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .collect();
    let pid = live.as_ref().map(Watched::pid);
    let mut shell = Watched::spawn(&mut script(&commands, pid, folder.path()));
    shell.close_stdin();
    let printed = shell.finish().stdout_text();
    if let Some(live) = &mut live {
        live.close_stdin();
    }
    drop(live);
    let mut text = String::new();
    for (command, output) in commands.iter().zip(printed.split('\u{1}').skip(1)) {
        let (_, output) = output.split_once('\n').unwrap_or_default();
        text.push_str(&format!("$ {command}\n{output}"));
    }
    documented(&text, pid, &folder)
}

/// A program that is called as its source. By another process: while this one has the copy open,
/// what other tests start has it open, too, and it cannot be executed.
fn copy(name: &str, folder: &Path) {
    let program = compile(name, &Build::default()).unwrap_or_else(|error| panic!("{error}"));
    let file = program.file_name().expect("a name");
    let status = Command::new("cp")
        .args([&program, &folder.join(file)])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "cp {name}");
}

/// Works already when this returns.
fn start(name: &str, folder: &Path) -> Watched {
    let stem = name.split('.').next().unwrap_or(name);
    let mut live = Watched::spawn(&mut Command::new(folder.join(stem)));
    live.stdout_line("ready");
    live.send(b"\n");
    live
}

fn script(commands: &[&str], pid: Option<Pid>, folder: &Path) -> Command {
    let mut text = BEGIN.to_owned();
    for (number, command) in commands.iter().enumerate() {
        let command = match pid {
            Some(pid) => command.replace(LIVE, &pid.to_string()),
            None => (*command).to_owned(),
        };
        text.push_str(&format!("begin {number}\n{command}\n"));
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_leaktap")).parent();
    let path = env::var_os("PATH").unwrap_or_default();
    let path = binary
        .map(Path::to_owned)
        .into_iter()
        .chain(env::split_paths(&path));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &text])
        .current_dir(folder)
        .env("PATH", env::join_paths(path).expect("a path"))
        .env("LC_ALL", "C.UTF-8");
    shell
}

/// As a reader of the document sees it: folders and numbers that this run happened to have have
/// others.
fn documented(text: &str, pid: Option<Pid>, folder: &TempDir) -> String {
    let mut text = text.replace(&folder.path().display().to_string(), FOLDER);
    text = text.replace(&sources().display().to_string(), SOURCES);
    if let Some(pid) = pid {
        for before in ["to ", "pid "] {
            text = text.replace(&format!("{before}{pid}"), &format!("{before}{LIVE}"));
        }
    }
    text
}
