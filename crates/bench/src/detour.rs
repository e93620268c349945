//! `bench detour`: a malloc/free pair under `--engine auto`, beside heaptrack's, and after detaching.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::program::{Program, compile};
use crate::under::{Leaktap, Under};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;
const PAIRS: u32 = 5_000_000;

/// What one round of a program gives: nanoseconds a pair.
#[derive(Default)]
struct Figures {
    native: Vec<f64>,
    traced: Vec<f64>,
    after: Vec<f64>,
    heaptrack: Vec<f64>,
    /// Percent of a core that leaktap itself took.
    tracer: Vec<f64>,
}

/// Prints the medians of interleaved rounds.
pub(crate) fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let churn = compile("churn", folder.path())?;
    println!("a malloc/free pair at 16 frames, 50 call sites, 1000 blocks live, sizes 16 to 512;");
    println!(
        "medians of {ROUNDS} interleaved rounds of {PAIRS} pairs; nanoseconds a pair and thread\n"
    );
    println!(
        "{:>7}{:>9}{:>10}{:>10}{:>10}{:>11}{:>10}{:>10}",
        "threads", "native", "leaktap", "overhead", "after", "heaptrack", "overhead", "tracer %"
    );
    for threads in ["1", "2", "4"] {
        let mut figures = Figures::default();
        for _ in 0..ROUNDS {
            attached(&churn, threads, &mut figures)?;
            if let Some(value) = under_heaptrack(&churn, threads, folder.path())? {
                figures.heaptrack.push(value);
            }
        }
        let Figures {
            native,
            traced,
            after,
            heaptrack,
            tracer,
        } = figures;
        let [native, traced, after, heaptrack, tracer] =
            [native, traced, after, heaptrack, tracer].map(crate::median);
        println!(
            "{threads:>7}{native:>9.1}{traced:>10.1}{:>10.1}{after:>10.1}{heaptrack:>11.1}{:>10.1}{tracer:>10.2}",
            traced - native,
            heaptrack - native,
        );
    }
    Ok(())
}

/// Native, traced, and after detaching, from one process.
fn attached(program: &Path, threads: &str, figures: &mut Figures) -> Result<()> {
    let mut program = Program::start(program, &[threads])?;
    program.measure(PAIRS / 5)?;
    figures.native.push(program.measure(PAIRS)?);
    let leaktap = Leaktap::attach(program.pid())?;
    program.measure(PAIRS / 5)?;
    let (begun, before) = (Instant::now(), busy(leaktap.pid())?);
    figures.traced.push(program.measure(PAIRS)?);
    let share = (busy(leaktap.pid())? - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    figures.tracer.push(100.0 * share);
    leaktap.detach()?;
    program.measure(PAIRS / 5)?;
    figures.after.push(program.measure(PAIRS)?);
    Ok(())
}

/// Processor time that a process has used: the first field of /proc/PID/schedstat, in nanoseconds.
fn busy(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let used = stat.split_whitespace().next().ok_or("no schedstat")?;
    Ok(Duration::from_nanos(used.parse()?))
}

/// The same program, launched by heaptrack; nothing where it is not installed.
fn under_heaptrack(program: &Path, threads: &str, folder: &Path) -> Result<Option<f64>> {
    if !Under::Heaptrack.is_installed() {
        return Ok(None);
    }
    let mut command = Under::Heaptrack.command(program, folder)?;
    let mut program = Program::spawn(command.arg(threads))?;
    program.measure(PAIRS / 50)?;
    Ok(Some(program.measure(PAIRS / 10)?))
}
