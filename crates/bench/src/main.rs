//! Measures what leaktap costs, beside what it is compared with, in one run.
//!
//! Not a test: it prints figures and judges nothing. The machine's noise is met by interleaving
//! what is compared and by medians.
#![allow(clippy::print_stdout)] // printing is what this program is for

mod bare;
mod breakpoint;
mod detour;
mod events;
mod program;
mod programs;
mod snapshot;
mod under;

use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("breakpoint") => breakpoint::run(),
        Some("detour") | None => detour::run(),
        Some("events") => events::run(),
        Some("programs") => programs::run(),
        Some("snapshot") => snapshot::run(),
        Some(other) => {
            let there_are = "there are detour, breakpoint, events, programs and snapshot";
            Err(format!("no benchmark {other:?}: {there_are}").into())
        }
    }
}

/// The middle one of `values`.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
