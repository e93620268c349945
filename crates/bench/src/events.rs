//! `bench events`: what a program pays for what a tracer is told of: threads, forks, signals, loaded
//! modules; and for how long 2,000 threads are stopped.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::breakpoint::bare;
use crate::program::{Program, compile, modules};
use crate::under::Leaktap;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;
const BOTH_CORES: &[usize] = &[0, 1];

/// Orders, with how often, and what is paid for each.
const EVENTS: [(&str, u32); 3] = [("threads", 2_000), ("forks", 500), ("signals", 20_000)];

/// Modules that are loaded while another one comes and goes.
const LOADED: [usize; 2] = [7, 700];
const LOADS: u32 = 100;

const THREADS: &str = "2000";

/// Prints, for each event, the medians of interleaved rounds.
pub(crate) fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (stops, events) = (
        compile("stops", folder.path())?,
        compile("events", folder.path())?,
    );
    println!("microseconds a piece, medians of {ROUNDS} interleaved rounds; a bare stop is what");
    println!("ptrace(2) itself costs: an int3, wait, GETREGS, SETREGS, CONT\n");
    println!(
        "{:<28}{:>10}{:>10}{:>10}{:>12}",
        "event", "native", "leaktap", "bare stop", "in stops"
    );
    for (what, count) in EVENTS {
        let program = || Program::start(&events, &[]);
        compare(what, &format!("{what} {count}"), &stops, program)?;
    }
    let modules = modules(folder.path(), LOADED[1] + 1)?;
    let (extra, modules) = modules.split_last().ok_or("no modules")?;
    for loaded in LOADED {
        let arguments: Vec<_> = modules.iter().take(loaded).map(String::as_str).collect();
        let program = || Program::start(&events, &arguments);
        let name = format!("dlopen, {loaded} modules");
        compare(&name, &format!("modules {LOADS} {extra}"), &stops, program)?;
    }
    many_threads(folder.path())
}

/// One line of the table.
fn compare(
    name: &str,
    order: &str,
    stops: &Path,
    program: impl Fn() -> Result<Program>,
) -> Result<()> {
    let mut rounds = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let mut program = program()?;
        let mut piece = || -> Result<f64> {
            let figures = program.ask(order)?;
            Ok(*figures.first().ok_or("a figure expected")?)
        };
        let native = piece()?;
        let leaktap = Leaktap::attach(program.pid())?;
        let traced = program.ask(order)?;
        leaktap.detach()?;
        let traced = *traced.first().ok_or("a figure expected")?;
        let bare = bare(stops, BOTH_CORES, BOTH_CORES)?;
        for (list, value) in rounds.iter_mut().zip([native, traced, bare]) {
            list.push(value);
        }
    }
    let [native, traced, bare] = rounds.map(crate::median);
    let stops = (traced - native) / bare;
    println!("{name:<28}{native:>10.2}{traced:>10.2}{bare:>10.2}{stops:>12.2}");
    Ok(())
}

/// For how long a program of many threads is stopped, as it sees that itself.
fn many_threads(folder: &Path) -> Result<()> {
    let watch: PathBuf = compile("watch", folder)?;
    let (mut attach, mut detach) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut program = Program::start(&watch, &[THREADS])?;
        program.ask("spin")?;
        let leaktap = Leaktap::attach(program.pid())?;
        attach.extend(program.ask("gaps")?.first());
        program.ask("spin")?;
        leaktap.detach()?;
        detach.extend(program.ask("gaps")?.first());
    }
    let [attach, detach] = [attach, detach].map(crate::median);
    println!(
        "\n{THREADS} threads: stopped {attach:.1} ms by the attach, {detach:.1} by the detach"
    );
    Ok(())
}
