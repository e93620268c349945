//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Attaches leaktap to random programs with random faults, and checks that no program is harmed.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Args {
    /// What all draws are derived from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How long to go on
    #[arg(long, default_value_t = 2.0)]
    pub(crate) minutes: f64,
    /// Make this draw alone, and show it
    #[arg(long, value_name = "K")]
    pub(crate) draw: Option<u64>,
    /// The first draw
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) from: u64,
    /// At most so many draws
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    pub(crate) draws: u64,
    /// How many draws are made side by side
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) jobs: usize,
    /// Only draws whose description contains all these words, such as `redis` or `freeze`
    #[arg(long, value_name = "WORD")]
    pub(crate) only: Vec<String>,
    /// Instead: attach twice in succession to a busy Python, so often, for each interpreter
    #[arg(long, value_name = "N")]
    pub(crate) twice: Option<u32>,
    /// The Pythons for --twice
    #[arg(long, value_name = "PATH", default_value = "python3")]
    pub(crate) python: Vec<PathBuf>,
    /// The leaktap to test, unless it is beside this program
    #[arg(long, value_name = "PATH")]
    pub(crate) leaktap: Option<PathBuf>,
}
