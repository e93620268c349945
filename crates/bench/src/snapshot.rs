//! `bench snapshot`: what a report of a program that runs on takes, by how many blocks live.

use std::error::Error;

use crate::program::{Program, compile};
use crate::under::Leaktap;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;

/// Live blocks; the first are as good as none: what else a report takes.
const LIVE: [u32; 4] = [1_000, 1_000_000, 4_000_000, 10_000_000];

/// Prints a line for each number of blocks.
pub(crate) fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut program = Program::start(&compile("live", folder.path())?, &[])?;
    let file = folder.path().join("report").display().to_string();
    let mut leaktap = Leaktap::attach_with(program.pid(), &["--report-file", &file])?;
    println!("a JSON report by SIGUSR1, until it is written; medians of {ROUNDS}; milliseconds.");
    println!("Longest gap: of a thread that reads the clock all the time\n");
    println!(
        "{:>12}{:>10}{:>14}{:>14}",
        "live blocks", "report", "a million", "longest gap"
    );
    let mut few = 0.0;
    for live in LIVE {
        program.ask(&live.to_string())?;
        let times: Result<Vec<f64>> = (0..ROUNDS)
            .map(|_| Ok(leaktap.report_now()?.as_secs_f64() * 1e3))
            .collect();
        let time = crate::median(times?);
        let gap = program.ask(&live.to_string())?;
        let gap = gap.get(1).copied().unwrap_or(f64::NAN) / 1e6;
        if live == LIVE[0] {
            few = time;
        }
        let million = (time - few) / f64::from(live) * 1e6;
        println!("{live:>12}{time:>10.1}{million:>14.1}{gap:>14.1}");
    }
    leaktap.end()
}
