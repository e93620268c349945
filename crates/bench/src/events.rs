//! `bench events`: what a program pays for what a tracer is told of: threads, forks, signals,
//! loaded modules; and for how long 2,000 threads are stopped.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::bare;
use crate::breakpoint;
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
    println!(
        "microseconds a piece, medians of {ROUNDS} interleaved rounds. A bare tracer lets go on"
    );
    println!(
        "whatever stops; a bare stop is an int3, wait, GETREGS, SETREGS, CONT. Stops: how many of"
    );
    println!("these leaktap costs more than no tracer\n");
    println!(
        "{:<24}{:>10}{:>13}{:>10}{:>11}{:>8}",
        "event", "native", "bare tracer", "leaktap", "bare stop", "stops"
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
    let piece = |program: &mut Program| -> Result<f64> {
        let figures = program.ask(order)?;
        Ok(*figures.first().ok_or("a figure expected")?)
    };
    let mut rounds = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let mut one = program()?;
        let native = piece(&mut one)?;
        let leaktap = Leaktap::attach(one.pid())?;
        let traced = piece(&mut one)?;
        leaktap.detach()?;
        let mut other = program()?;
        piece(&mut other)?;
        bare::trace(other.pid())?;
        let barely = piece(&mut other)?;
        let stop = breakpoint::bare(stops, BOTH_CORES, BOTH_CORES)?;
        for (list, value) in rounds.iter_mut().zip([native, barely, traced, stop]) {
            list.push(value);
        }
    }
    let [native, barely, traced, stop] = rounds.map(crate::median);
    let stops = (traced - native) / stop;
    println!("{name:<24}{native:>10.2}{barely:>13.2}{traced:>10.2}{stop:>11.2}{stops:>8.1}");
    Ok(())
}

/// For how long a program of many threads is stopped, as it sees that itself.
fn many_threads(folder: &Path) -> Result<()> {
    let watch: PathBuf = compile("watch", folder)?;
    let (mut bare, mut attach, mut detach) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut program = Program::start(&watch, &[THREADS])?;
        program.ask("spin")?;
        bare::stop(program.pid())?;
        bare.extend(program.ask("gaps")?.first());
        program.ask("spin")?;
        let leaktap = Leaktap::attach(program.pid())?;
        attach.extend(program.ask("gaps")?.first());
        program.ask("spin")?;
        leaktap.detach()?;
        detach.extend(program.ask("gaps")?.first());
    }
    let [bare, attach, detach] = [bare, attach, detach].map(crate::median);
    println!("\n{THREADS} threads are stopped for milliseconds: {bare:.1} by a bare tracer, once;");
    println!("{attach:.1} by leaktap's attach, which stops them twice; {detach:.1} by its detach");
    Ok(())
}
