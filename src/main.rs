//! leaktap finds memory leaks in running Linux programs.
//!
//! From the command line to the exit status; the trace is in `crates/trace`.

mod cli;
mod comparing;
mod debuginfod;
mod demo;
mod doctor;
mod error;
mod known;
mod manual;
mod named;
mod output;
mod progress;
mod renaming;
mod rendering;
mod sources;
mod terminal;

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use leaktap_report::{Mode, Needs, printable};
use leaktap_trace::{Outcome, guard};
use leaktap_tracee::{Command as Launch, Reserve, is_proc_ours};

use crate::cli::{Attach, Cli, Command, Listing, Report, Run};
use crate::debuginfod::Servers;
use crate::demo::Demo;
use crate::error::Error;
use crate::output::Output;
use crate::progress::Progress;

/// With what it takes to let the target go when memory runs out.
#[global_allocator]
static ALLOCATOR: Reserve = Reserve;

fn main() -> ExitCode {
    leaktap_tracee::set_aside();
    leaktap_tracee::raise_file_limit();
    let understood = Cli::try_parse();
    let done = understood.map_or_else(misunderstood, |cli| checked(cli.command).and_then(dispatch));
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let text = error.to_string();
            // Where nobody can read it, the exit status says it.
            let _ = writeln!(io::stderr(), "leaktap: {}", printable(&text));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Refuses what would name processes by the numbers of another pid namespace.
fn checked(command: Command) -> Result<Command, Error> {
    let names_none = match &command {
        Command::Diff(options) => options.pid.is_none(),
        Command::Doctor(options) => options.whom.process.is_none() && options.whom.pid.is_empty(),
        Command::Run(_) | Command::Attach(_) | Command::Demo => false,
        _ => true,
    };
    match names_none || is_proc_ours() {
        true => Ok(command),
        false => Err(Error::ForeignProc),
    }
}

/// Says what is wrong with the command line, or helps; but for what a terminal would act on.
fn misunderstood(error: clap::Error) -> Result<u8, Error> {
    let text = error.render().to_string();
    let is_plain = |line: &str| matches!(printable(line), Cow::Borrowed(_));
    let arguments: Vec<_> = std::env::args_os().collect();
    let arguments = arguments.iter().map(|argument| argument.to_string_lossy());
    if text.lines().all(is_plain) && arguments.into_iter().all(|argument| is_plain(&argument)) {
        error.exit();
    }
    for line in text.lines() {
        let _ = writeln!(io::stderr(), "{}", printable(line)); // as above
    }
    Ok(error::USAGE)
}

fn dispatch(command: Command) -> Result<u8, Error> {
    match command {
        Command::Run(options) => run(&options),
        Command::Attach(options) => attach(&options),
        Command::Report(options) => report(&options),
        Command::Diff(options) => comparing::diff(&options),
        Command::Merge(options) => comparing::merge(&options),
        Command::Doctor(options) => {
            let pids = named::processes(&options.whom)?;
            let well = doctor::examine(&pids, &mut io::stdout())?;
            Ok(if well { 0 } else { error::FAILURE })
        }
        Command::Completions { shell } => manual::completions(shell).map(|()| 0),
        Command::Man { command } => manual::man(command.as_deref()).map(|()| 0),
        Command::Demo => demo(),
        Command::Guard { pid } => {
            let what = "guard the target";
            guard::run(pid).map_err(|source| Error::System { what, source })?;
            Ok(0)
        }
    }
}

fn run(options: &Run) -> Result<u8, Error> {
    let Some((program, arguments)) = options.program.split_first() else {
        return Ok(error::USAGE); // clap requires it
    };
    let output = Output::of_run(&options.trace, &options.listing)?;
    output.check(None, &last_part(Path::new(program)))?;
    let command = Launch::new(program).args(arguments);
    let settings = options.trace.settings(Mode::Run);
    let mut progress = Progress::new(&options.trace, &options.listing, &output);
    let outcome = leaktap_trace::run(&command, &settings, &mut progress)?;
    end(outcome, &output, Mode::Run)
}

fn attach(options: &Attach) -> Result<u8, Error> {
    let output = Output::of_attach(&options.trace, &options.listing)?;
    traced(options, &output)
}

/// Attaches, and writes what came of it to `output`.
fn traced(options: &Attach, output: &Output<'_>) -> Result<u8, Error> {
    let settings = options.trace.settings(Mode::Attach);
    let pids = named::processes(&options.whom)?;
    let Some(pid) = pids.first().copied() else {
        return Ok(error::USAGE); // clap requires it
    };
    let program = leaktap_trace::Program::of(pid).unwrap_or_default();
    output.check(Some(pid), &program.name())?;
    let mut progress =
        Progress::new(&options.trace, &options.listing, output).announces(&options.listing);
    let outcome = leaktap_trace::attach(&pids, &settings, &mut progress)?;
    end(outcome, output, Mode::Attach)
}

/// Writes what came of a trace. Returns the exit status.
fn end(mut outcome: Outcome, output: &Output<'_>, mode: Mode) -> Result<u8, Error> {
    // The one that was asked for.
    let exit = outcome.processes.first().and_then(|first| first.exit);
    let Some(sight) = outcome.sight() else {
        return Ok(error::FAILURE);
    };
    let reports = outcome.processes.drain(..).map(|ended| ended.report);
    let leaks = output.of_trace(reports.collect(), Some(mode))?;
    outcome.forget_names();
    Ok(output.exit_status(mode, exit, sight, leaks))
}

fn report(options: &Report) -> Result<u8, Error> {
    let output = Output::of_report(&options.listing)?;
    output.check_format()?;
    let reports = captured(&options.capture, &options.listing)?;
    Ok(output.print(reports)?.unwrap_or(0))
}

/// What is in a capture or a JSON report, with the names that `listing` has files for.
fn captured(path: &Path, listing: &Listing) -> Result<Vec<leaktap_report::Report>, Error> {
    let elsewhere = listing.elsewhere();
    let read = |stacks| {
        let ages = listing.older.is_some();
        leaktap_report::read(path, Needs { ages, stacks })
    };
    // A pipe is read once only, and only captures have what is named anew.
    let servers = Servers::of(listing, Mode::Attach).filter(|_| path.is_file());
    let (mut reports, mut servers) = match servers.map(|servers| (read(true), servers)) {
        Some((Ok(reports), servers)) => (reports, Some(servers)),
        _ => (read(elsewhere.has_any())?, None),
    };
    for report in &mut reports {
        renaming::rename(report, &elsewhere, servers.as_mut());
    }
    Ok(reports)
}

fn last_part(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn demo() -> Result<u8, Error> {
    let what = "start the demo program";
    let program = Demo::start().map_err(|source| Error::System { what, source })?;
    let pid = program.id().to_string();
    let words = ["leaktap", "attach", "--duration", "3s", "-p", &pid];
    match Cli::parse_from(words).command {
        Command::Attach(options) => attach(&options),
        other => dispatch(other),
    }
}
