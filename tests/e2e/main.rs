//! End to end: the `leaktap` binary against small programs that carry the truth about their leaks
//! in their own source (`fixtures/`), and against real ones.
//!
//! Every test runs under both engines ([`engines`]). No test sleeps or tries again: a program says
//! on standard output when it is ready, leaktap says on standard error when it is attached, and
//! every process has a deadline at which it is killed with its process group. A failure shows
//! commands, directories and streams.

#![allow(
    clippy::print_stderr,
    reason = "what a failed test saw goes to standard error"
)]

use leaktap_testing as child;

mod clean;
mod compare;
mod comparing;
mod compile;
mod engines;
mod filters;
mod fixture;
mod leaktap;
mod refused;
mod report;
mod server;
mod tools;
mod truth;

mod blocked;
mod browser;
mod changes;
mod costs;
mod counts;
mod culprit;
mod debuginfod;
mod detours;
mod doctor;
mod elsewhere;
mod ends;
mod errors;
mod exact;
mod families;
mod follow;
mod formats;
mod frozen;
mod graded;
mod guests;
mod harmless;
mod hostile;
mod killed;
mod launch;
mod leaving;
mod limits;
mod links;
mod manual;
mod mappings;
mod meanwhile;
mod misuse;
mod named;
mod others;
mod outputs;
mod overhead;
mod patience;
mod planted;
mod pools;
mod preload;
mod presets;
mod programs;
mod runners;
mod runtimes;
mod safety;
mod samples;
mod servers;
mod sharers;
mod sigtrap;
mod sources;
mod stacks;
mod statuses;
mod stopping;
mod suppressions;
mod terminal;
mod timeline;
