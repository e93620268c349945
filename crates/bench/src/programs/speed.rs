//! How much slower programs are: launched, or attached to while they serve.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{ROUNDS, Result, Row, VALGRIND_ROUNDS, inputs, row};
use crate::program::{Program, target};
use crate::under::{Leaktap, Under};

/// What the rounds gave: native in milliseconds, the others as multiples of it.
#[derive(Default)]
struct Rounds {
    native: Vec<f64>,
    leaktap: Vec<f64>,
    after: Vec<f64>,
    heaptrack: Vec<f64>,
    valgrind: Vec<f64>,
    /// Milliseconds that leaktap took before and after the trace.
    around: Vec<f64>,
}

impl Rounds {
    /// The row of the slowdowns; the rest of the rounds.
    fn slowdown(&mut self, goal: &'static str) -> Row {
        Row {
            heaptrack: std::mem::take(&mut self.heaptrack),
            valgrind: std::mem::take(&mut self.valgrind),
            native: std::mem::take(&mut self.native),
            ..row("slowdown", goal, "x", std::mem::take(&mut self.leaktap))
        }
    }
}

/// Whether a tool is to be measured in this round.
fn is_due(under: Under, round: usize) -> bool {
    under.is_installed() && (under != Under::Valgrind || round < VALGRIND_ROUNDS)
}

/// Runs a program that reads `input`, native and under each tool.
fn launched(program: &Path, arguments: &[&Path], input: &Path, folder: &Path) -> Result<Rounds> {
    let time = |under: Under| -> Result<f64> {
        let mut command = under.command(program, folder)?;
        command.args(arguments).stdin(File::open(input)?);
        let begun = Instant::now();
        let status = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        match status.success() {
            true => Ok(begun.elapsed().as_secs_f64() * 1e3),
            false => Err(format!("{command:?}: {status}").into()),
        }
    };
    let mut rounds = Rounds::default();
    for round in 0..ROUNDS {
        let native = time(Under::Native)?;
        rounds.native.push(native);
        let traced = time(Under::Leaktap)?;
        rounds.leaktap.push(traced / native);
        let report: serde_json::Value =
            serde_json::from_reader(File::open(folder.join("report"))?)?;
        let within = report["duration"].as_f64().ok_or("no duration")?;
        rounds.around.push(traced - within * 1e3);
        if is_due(Under::Heaptrack, round) {
            rounds.heaptrack.push(time(Under::Heaptrack)? / native);
        }
        if is_due(Under::Valgrind, round) {
            rounds.valgrind.push(time(Under::Valgrind)? / native);
        }
    }
    Ok(rounds)
}

fn launched_rows(mut rounds: Rounds) -> Vec<Row> {
    vec![
        rounds.slowdown("<= 1.2x"),
        row("  of it start-up and report", "", "ms", rounds.around),
    ]
}

/// sqlite3 in memory.
pub(super) fn sqlite(folder: &Path) -> Result<Vec<Row>> {
    let input = folder.join("rows.sql");
    std::fs::write(&input, inputs::sql())?;
    let rounds = launched(
        Path::new("sqlite3"),
        &[Path::new(":memory:")],
        &input,
        folder,
    )?;
    Ok(launched_rows(rounds))
}

/// The compiler proper.
pub(super) fn cc1(folder: &Path) -> Result<Vec<Row>> {
    let (input, output) = (folder.join("input.c"), folder.join("output.s"));
    std::fs::write(&input, inputs::c())?;
    let told = Command::new("gcc").arg("-print-prog-name=cc1").output()?;
    let program = PathBuf::from(String::from_utf8(told.stdout)?.trim());
    let arguments = [
        "-quiet".as_ref(),
        "-O2".as_ref(),
        &*input,
        "-o".as_ref(),
        &output,
    ];
    Ok(launched_rows(launched(
        &program, &arguments, &input, folder,
    )?))
}

/// A program that works when it is asked to.
struct Service {
    program: Program,
    /// Seconds that so much work takes.
    work: fn(&mut Program, &Path, u32) -> Result<f64>,
}

/// Attaches to services in turn: each before, while and after leaktap is attached, others under the
/// tools that have to be there from the start. `under_valgrind` is less work, or none.
fn attached(
    start: impl Fn(Under) -> Result<Service>,
    folder: &Path,
    work: u32,
    under_valgrind: Option<u32>,
) -> Result<Rounds> {
    let mut rounds = Rounds::default();
    let seconds_a_unit = |service: &mut Service, work: u32| -> Result<f64> {
        (service.work)(&mut service.program, folder, work)?; // warms up
        Ok((service.work)(&mut service.program, folder, work)? / f64::from(work))
    };
    for round in 0..ROUNDS {
        let mut service = start(Under::Native)?;
        let native = seconds_a_unit(&mut service, work)?;
        let leaktap = Leaktap::attach(service.program.pid())?;
        let traced = seconds_a_unit(&mut service, work)?;
        leaktap.detach()?;
        let after = seconds_a_unit(&mut service, work)?;
        drop(service);
        rounds.native.push(native * f64::from(work) * 1e3);
        rounds.leaktap.push(traced / native);
        rounds.after.push(after / native);
        if is_due(Under::Heaptrack, round) {
            let under = seconds_a_unit(&mut start(Under::Heaptrack)?, work)?;
            rounds.heaptrack.push(under / native);
        }
        if let Some(work) = under_valgrind
            && is_due(Under::Valgrind, round)
        {
            let under = seconds_a_unit(&mut start(Under::Valgrind)?, work)?;
            rounds.valgrind.push(under / native);
        }
    }
    Ok(rounds)
}

/// The speeds that belong to `rounds` of times.
fn speeds(rounds: Vec<f64>) -> Vec<f64> {
    rounds.into_iter().map(f64::recip).collect()
}

fn after(rounds: Vec<f64>) -> Row {
    Row {
        ascending: true,
        ..row("speed after detach", "1.00x", "x", speeds(rounds))
    }
}

/// Python, every object a malloc.
pub(super) fn python(folder: &Path) -> Result<Vec<Row>> {
    // What is in PATH may be a script that finds the interpreter.
    let told = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()?;
    let program = PathBuf::from(String::from_utf8(told.stdout)?.trim());
    let start = |under: Under| {
        let mut command = under.command(&program, folder)?;
        command
            .env("PYTHONMALLOC", "malloc")
            .arg(target("documents.py"));
        Ok(Service {
            program: Program::spawn(&mut command)?,
            work: |program, _, work| program.measure(work),
        })
    };
    let mut rounds = attached(start, folder, 500, Some(10))?;
    Ok(vec![rounds.slowdown("<= 1.5x"), after(rounds.after)])
}

/// redis-server, by its own benchmark.
pub(super) fn redis(folder: &Path) -> Result<Vec<Row>> {
    let start = |under: Under| {
        let mut command = under.command(Path::new("redis-server"), folder)?;
        command
            .args(["--port", "0", "--save", "", "--dir"])
            .arg(folder);
        command.arg("--unixsocket").arg(socket(folder));
        let mut program = Program::spawn(&mut command)?;
        while !program.line()?.contains("ready to accept connections") {}
        Ok(Service {
            program,
            work: |_, folder, work| requests(folder, work),
        })
    };
    let rounds = attached(start, folder, 60_000, None)?;
    let throughput = Row {
        heaptrack: speeds(rounds.heaptrack),
        native: rounds.native,
        ascending: true,
        ..row("throughput", ">= 0.95x", "x", speeds(rounds.leaktap))
    };
    Ok(vec![throughput, after(rounds.after)])
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("socket")
}

/// The seconds that so many requests of each kind take.
fn requests(folder: &Path, count: u32) -> Result<f64> {
    let begun = Instant::now();
    let mut command = Command::new("redis-benchmark");
    command.args([
        "-q",
        "-t",
        "set,get",
        "-r",
        "100000",
        "-d",
        "64",
        "-n",
        &count.to_string(),
    ]);
    let status = command
        .arg("-s")
        .arg(socket(folder))
        .stdout(Stdio::null())
        .status()?;
    match status.success() {
        true => Ok(begun.elapsed().as_secs_f64()),
        false => Err(format!("redis-benchmark: {status}").into()),
    }
}
