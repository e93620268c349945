//! `bench detour`: a malloc/free pair under `--engine auto`, beside heaptrack's, and after
//! detaching.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::program::{Program, compile};
use crate::under::{Leaktap, Under};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;
const PAIRS: u32 = 5_000_000;

/// Nanoseconds a pair, by the clock and of the thread's own processor time.
type Pair = [f64; 2];

/// Their names. Where threads share a core, the first one has the waiting in it, for the core and
/// for locks.
const CLOCKS: [&str; 2] = ["wall", "cpu"];

/// What the rounds of a program give.
#[derive(Default)]
struct Figures {
    native: Vec<Pair>,
    traced: Vec<Pair>,
    after: Vec<Pair>,
    heaptrack: Vec<Pair>,
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
        "{:>7}{:>6}{:>9}{:>10}{:>10}{:>10}{:>11}{:>10}{:>10}",
        "threads",
        "",
        "native",
        "leaktap",
        "overhead",
        "after",
        "heaptrack",
        "overhead",
        "tracer %"
    );
    for threads in ["1", "2", "4"] {
        let mut figures = Figures::default();
        for _ in 0..ROUNDS {
            attached(&churn, threads, &mut figures)?;
            if let Some(value) = under_heaptrack(&churn, threads, folder.path())? {
                figures.heaptrack.push(value);
            }
        }
        figures.print(threads);
    }
    Ok(())
}

impl Figures {
    fn print(&self, threads: &str) {
        let tracer = crate::median(self.tracer.clone());
        for (clock, name) in CLOCKS.iter().enumerate() {
            let of =
                |rounds: &[Pair]| crate::median(rounds.iter().map(|pair| pair[clock]).collect());
            let [native, traced, after, heaptrack] =
                [&self.native, &self.traced, &self.after, &self.heaptrack].map(|rounds| of(rounds));
            println!(
                "{threads:>7}{name:>6}{native:>9.1}{traced:>10.1}{:>10.1}{after:>10.1}\
                 {heaptrack:>11.1}{:>10.1}{tracer:>10.2}",
                traced - native,
                heaptrack - native,
            );
        }
    }
}

/// What `pairs` of a program take.
fn measure(program: &mut Program, pairs: u32) -> Result<Pair> {
    let figures = program.ask(&pairs.to_string())?;
    Ok(figures.try_into().map_err(|_| "two figures expected")?)
}

/// Native, traced, and after detaching, from one process.
fn attached(program: &Path, threads: &str, figures: &mut Figures) -> Result<()> {
    let mut program = Program::start(program, &[threads])?;
    measure(&mut program, PAIRS / 5)?;
    figures.native.push(measure(&mut program, PAIRS)?);
    let leaktap = Leaktap::attach(program.pid())?;
    measure(&mut program, PAIRS / 5)?;
    let (begun, before) = (Instant::now(), busy(leaktap.pid())?);
    figures.traced.push(measure(&mut program, PAIRS)?);
    let share = (busy(leaktap.pid())? - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    figures.tracer.push(100.0 * share);
    leaktap.detach()?;
    measure(&mut program, PAIRS / 5)?;
    figures.after.push(measure(&mut program, PAIRS)?);
    Ok(())
}

/// Processor time that a process has used: the first field of /proc/PID/schedstat, in nanoseconds.
fn busy(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let used = stat.split_whitespace().next().ok_or("no schedstat")?;
    Ok(Duration::from_nanos(used.parse()?))
}

/// The same program, launched by heaptrack; nothing where it is not installed.
fn under_heaptrack(program: &Path, threads: &str, folder: &Path) -> Result<Option<Pair>> {
    if !Under::Heaptrack.is_installed() {
        return Ok(None);
    }
    let mut command = Under::Heaptrack.command(program, folder)?;
    let mut program = Program::spawn(command.arg(threads))?;
    measure(&mut program, PAIRS / 50)?;
    Ok(Some(measure(&mut program, PAIRS / 10)?))
}
