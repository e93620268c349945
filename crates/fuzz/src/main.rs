//! Feeds one subject, or each, inputs by chance: `leaktap-fuzz SUBJECT|all EXECUTIONS [SEED]`.
#![allow(clippy::print_stdout)] // printing is what this program is for

use std::fs;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

use leaktap_fuzz::{SUBJECTS, Subject, drive};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = || io::Error::other("usage: leaktap-fuzz SUBJECT|all EXECUTIONS [SEED]");
    let (name, executions) = match arguments.as_slice() {
        [name, executions, ..] => (name, executions.parse().map_err(|_| usage())?),
        _ => return Err(usage()),
    };
    let seed = arguments.get(2).map_or(Ok(1), |seed| seed.parse());
    let seed = seed.map_err(|_| usage())?;
    let wanted = |subject: &&Subject| name == "all" || name == subject.name;
    for subject in SUBJECTS.iter().filter(wanted) {
        let begin = Instant::now();
        let sum = drive(subject, executions, seed)?;
        println!(
            "{}: {} executions in {:.0} s, {:.1} % reach the parser, slowest {:.1} ms, peak {} KiB",
            subject.name,
            sum.executions,
            begin.elapsed().as_secs_f64(),
            100.0 * sum.reached as f64 / sum.executions.max(1) as f64,
            sum.slowest.as_secs_f64() * 1000.0,
            peak(),
        );
    }
    Ok(())
}

/// Most memory that this process has had, in KiB (VmHWM, proc_pid_status(5)).
fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or(String::from("?"), |line| {
        line.trim_matches([' ', '\t', 'k', 'B']).to_owned()
    })
}
