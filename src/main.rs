//! leaktap finds memory leaks in running Linux programs.
//!
//! From the command line to the exit status; [`session`] is where the trace is.

mod books;
mod cli;
mod demo;
mod detaching;
mod doctor;
mod error;
mod guard;
mod output;
mod overhead;
mod patience;
mod progress;
mod remedy;
mod result;
mod session;
mod target;
mod tracing;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use leaktap_tracee::{Command as Launch, Tid, is_proc_ours};

use crate::cli::{Attach, Cli, Command, Listing, Run};
use crate::error::Error;
use crate::output::Output;
use crate::result::Asked;
use crate::session::Settings;
use crate::target::{Exit, Target};

fn main() -> ExitCode {
    match checked(Cli::parse().command).and_then(dispatch) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            // Where nobody can read it, the exit status says it.
            let _ = writeln!(io::stderr(), "leaktap: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Refuses what would name processes by the numbers of another pid namespace.
fn checked(command: Command) -> Result<Command, Error> {
    let names_none = matches!(
        command,
        Command::Report(_) | Command::Guard | Command::DemoTarget | Command::Doctor { pid: None }
    );
    match names_none || is_proc_ours() {
        true => Ok(command),
        false => Err(Error::ForeignProc),
    }
}

fn dispatch(command: Command) -> Result<u8, Error> {
    match command {
        Command::Run(options) => run(&options),
        Command::Attach(options) => attach(&options),
        Command::Report(options) => {
            let output = Output::of_report(&options.listing);
            let reports = leaktap_report::read(&options.capture, options.listing.older.is_some())?;
            Ok(output.print(reports)?.unwrap_or(0))
        }
        Command::Doctor { pid } => {
            let well = doctor::examine(pid.map(Tid::new), &mut io::stdout())?;
            Ok(if well { 0 } else { error::FAILURE })
        }
        Command::Demo => demo(),
        Command::DemoTarget => {
            demo::target();
            Ok(0)
        }
        Command::Guard => {
            let what = "guard the target";
            guard::run().map_err(|source| Error::System { what, source })?;
            Ok(0)
        }
    }
}

fn run(options: &Run) -> Result<u8, Error> {
    let Some((program, arguments)) = options.program.split_first() else {
        return Ok(error::USAGE); // clap requires it
    };
    let command = Launch::new(program).args(arguments);
    let mut target = session::run(&command, &Settings::new(&options.trace, &options.listing))?;
    let status = match target.exit {
        None => 0,
        Some(Exit::Code(code)) => code as u8, // as waitpid(2) gives it: eight bits
        Some(Exit::Signal(signal)) => 128 + signal as u8,
    };
    let asked = Asked {
        mode: "run",
        engine: options.trace.engine.name(),
    };
    let output = Output::of_run(&options.trace, &options.listing);
    let leaks = output.of_target(&mut target, asked)?;
    Ok(exit_status(&options.listing, &target, leaks, status))
}

fn attach(options: &Attach) -> Result<u8, Error> {
    let settings = Settings::new(&options.trace, &options.listing);
    let mut target = session::attach(Tid::new(options.pid), &settings)?;
    let asked = Asked {
        mode: "attach",
        engine: options.trace.engine.name(),
    };
    let output = Output::of_attach(&options.trace, &options.listing);
    let leaks = output.of_target(&mut target, asked)?;
    Ok(exit_status(&options.listing, &target, leaks, 0))
}

/// `otherwise`, unless there are `leaks`. Whoever asks for a status must not be told that all is well where nobody has looked.
fn exit_status(listing: &Listing, target: &Target, leaks: Option<u8>, otherwise: u8) -> u8 {
    match listing.error_exitcode {
        Some(_) if !target.watches_allocator() => error::FAILURE,
        _ => leaks.unwrap_or(otherwise),
    }
}

fn demo() -> Result<u8, Error> {
    let started = |source| Error::System {
        what: "start the demo program",
        source,
    };
    let mut program = demo::start().map_err(started)?;
    let pid = program.id().to_string();
    let traced =
        match Cli::parse_from(["leaktap", "attach", "--duration", "3s", "-p", &pid]).command {
            Command::Attach(options) => attach(&options),
            other => dispatch(other),
        };
    drop(program.stdin.take());
    program.wait().map_err(started)?;
    traced
}
