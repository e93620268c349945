//! Hunts for what harms a target: random programs, moments and faults, all drawn from a seed.
//!
//! `tests/campaign` builds leaktap and this, and runs it. The campaign starts a process for each
//! draw ([`campaign`]); that process starts a target, attaches leaktap to it, does the fault at its
//! moment, and checks what is left ([`trial`]). A draw depends on nothing but seed and number, so
//! each can be made again alone.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // printing is what this program is for

mod args;
mod board;
mod campaign;
mod child;
mod code;
mod draw;
mod fault;
mod freezer;
mod harm;
mod kit;
mod leaktap;
mod moment;
mod processes;
mod random;
mod report;
mod snapshot;
mod subject;
mod subjects;
mod trial;
mod twice;
mod verdict;
mod wait;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::draw::Draw;
use crate::kit::Kit;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            println!("campaign: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<u8, String> {
    let kit = Kit::prepare(args)?;
    if let Some(count) = args.twice {
        return twice::run(count, &kit);
    }
    match args.draw {
        Some(number) => Ok(trial::run(&Draw::of(args.seed, number), &kit)),
        None => campaign::run(args),
    }
}
