//! A fixture as a test sees it: a program, its truth, and the protocol of `fixtures/fixture.h`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::Pid;

use crate::child::{Finished, Watched};
use crate::compile::{Build, compile, header, sources};
use crate::truth::{Mode, Truth};

/// A compiled fixture.
pub(crate) struct Fixture {
    name: String,
    program: PathBuf,
}

impl Fixture {
    /// Compiles `fixtures/NAME` as its first line says.
    pub(crate) fn new(name: &str) -> Fixture {
        Fixture::built(name, &Build::default())
    }

    /// As [`new`](Fixture::new), with another compiler or more flags.
    pub(crate) fn built(name: &str, build: &Build) -> Fixture {
        let program = compile(name, build).unwrap_or_else(|error| panic!("{error}"));
        Fixture {
            name: name.to_owned(),
            program,
        }
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// What it states for `mode`, its libraries' statements included.
    pub(crate) fn truth(&self, mode: Mode) -> Truth {
        let mut truth = Truth::default();
        let text = read(&self.name);
        truth.add(&self.name, &text, mode);
        for library in header(&text).libraries {
            truth.add(&library, &read(&library), mode);
        }
        truth
    }

    /// Starts it, to be attached to: it is ready when this returns.
    pub(crate) fn start(&self) -> Target {
        Target::start(&mut Command::new(&self.program))
    }

    /// As [`start`](Fixture::start), for a test that takes longer than most.
    pub(crate) fn start_for(&self, lifetime: Duration) -> Target {
        Target::of(Watched::spawn_for(
            &mut Command::new(&self.program),
            lifetime,
        ))
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(sources().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A running fixture.
pub(crate) struct Target {
    process: Watched,
}

impl Target {
    /// Starts a program that follows the protocol, and waits until it is ready.
    pub(crate) fn start(command: &mut Command) -> Target {
        Target::of(Watched::spawn(command))
    }

    fn of(process: Watched) -> Target {
        process.stdout_line("ready");
        Target { process }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    pub(crate) fn process(&self) -> &Watched {
        &self.process
    }

    /// Lets it work, and waits until it is done.
    pub(crate) fn work(&mut self) {
        self.begin();
        self.process.stdout_line("done");
    }

    /// Lets it work.
    pub(crate) fn begin(&mut self) {
        self.process.send(b"\n");
    }

    /// Lets it end.
    pub(crate) fn close(&mut self) {
        self.process.close_stdin();
    }

    /// The same, and waits for that.
    pub(crate) fn end(mut self) -> Finished {
        self.close();
        self.process.finish()
    }
}
