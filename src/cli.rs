//! The command line, as typed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use leaktap_probe::Pool;
use leaktap_report::{By, Kind, Pattern};

/// Finds memory leaks in running Linux programs.
#[derive(Debug, Parser)]
#[command(name = "leaktap", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Launch a program and trace it; report when it ends. Ctrl-C is the program's: what outlives
    /// that three times in a row runs on without leaktap, which reports
    Run(Run),
    /// Attach to a live process; report on detach: Ctrl-C, Ctrl-Z, SIGTERM, --duration, or
    /// its end
    Attach(Attach),
    /// Render a capture again
    Report(Report),
    /// Say whether a process can be attached, and what will be probed
    Doctor {
        /// The process
        #[arg(short, value_name = "PID", value_parser = pid)]
        pid: Option<i32>,
    },
    /// Start a leaky program, attach to it for three seconds, report
    Demo,
    /// The leaky program
    #[command(hide = true)]
    DemoTarget,
    /// The process that cleans up after a killed leaktap
    #[command(hide = true, name = crate::guard::NAME)]
    Guard,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) trace: Trace,
    #[command(flatten)]
    pub(crate) listing: Listing,
    /// The program, found as execvp(3) does, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) trace: Trace,
    #[command(flatten)]
    pub(crate) listing: Listing,
    /// The process
    #[arg(short, value_name = "PID", value_parser = pid)]
    pub(crate) pid: i32,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    #[command(flatten)]
    pub(crate) listing: Listing,
    /// A file that `-o` wrote, or a JSON report
    pub(crate) capture: PathBuf,
}

/// How a trace is made.
#[derive(Clone, Debug, Args)]
pub(crate) struct Trace {
    /// Write a capture, for `leaktap report`; %p pid, %n program name, %t start time
    #[arg(short, long, value_name = "FILE", value_parser = Pattern::parse)]
    pub(crate) output: Option<Pattern>,
    /// Detach after this long: 500ms, 30s, 5m
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Most frames a stack
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) depth: u16,
    /// How functions are probed
    #[arg(long, value_enum, default_value_t = Engine::Auto)]
    pub(crate) engine: Engine,
    /// Detach, with a report, when stops take more than this share of the target's time; 100: never
    /// [default: 10 for `attach --engine auto`, else none]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) max_overhead: Option<u8>,
    /// More allocators, repeatable: `pool_get:size=1,returns pool_put:ptr=0`, `lib.so!NAME:...`,
    /// `lib.so!0xOFFSET:...`, or @apr, @glib, @libxml2, @openssl, @python
    #[arg(long, value_name = "SPEC", value_parser = pool)]
    pub(crate) alloc_fn: Vec<Pool>,
    /// How leaks are graded; `none`, the only way yet: what is not freed is `unmatched`
    #[arg(long, value_name = "HOW", default_value = "none", value_parser = leak_check)]
    pub(crate) leak_check: LeakCheck,
    /// Keep whole stacks of the last frees: notes on double frees then say who called the first one
    #[arg(long)]
    pub(crate) free_stacks: bool,
    /// No progress line. There is none either where the target uses the terminal
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// What is printed.
#[derive(Clone, Debug, Args)]
pub(crate) struct Listing {
    /// The report's format
    #[arg(short = 'F', long, value_enum, value_name = "FMT", default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Where the report goes, as for -o [default: standard output; for run standard error]
    #[arg(long, value_name = "FILE", value_parser = Pattern::parse)]
    pub(crate) report_file: Option<Pattern>,
    /// Only blocks that lived at least so long
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) older: Option<Duration>,
    /// Only groups of at least so many bytes: 4096, 64K, 1M
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = bytes)]
    pub(crate) min_size: u64,
    /// Only the N largest groups
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    /// What makes a group
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Grouping::Stack)]
    pub(crate) by: Grouping,
    /// Exit with N, which is not 0, if leaks remain
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) error_exitcode: Option<u8>,
    /// Which kinds count as leaks for --error-exitcode
    #[arg(long, value_enum, value_name = "KINDS", value_delimiter = ',',
          default_values_t = [LeakKind::Definite, LeakKind::Possible, LeakKind::Unmatched])]
    pub(crate) errors_for: Vec<LeakKind>,
    /// Nothing but the report
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Names in full, build ids, probes
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Colours in the text report; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    pub(crate) color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    Auto,
    Breakpoint,
}

impl Engine {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Engine::Auto => "auto",
            Engine::Breakpoint => "breakpoint",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeakCheck {
    /// Everything not freed is `unmatched`
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Grouping {
    Stack,
    Site,
    Function,
    File,
    Module,
}

impl From<Grouping> for By {
    fn from(grouping: Grouping) -> By {
        match grouping {
            Grouping::Stack => By::Stack,
            Grouping::Site => By::Site,
            Grouping::Function => By::Function,
            Grouping::File => By::File,
            Grouping::Module => By::Module,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LeakKind {
    Definite,
    Indirect,
    Possible,
    Reachable,
    Unmatched,
}

impl From<LeakKind> for Kind {
    fn from(kind: LeakKind) -> Kind {
        match kind {
            LeakKind::Definite => Kind::Definite,
            LeakKind::Indirect => Kind::Indirect,
            LeakKind::Possible => Kind::Possible,
            LeakKind::Reachable => Kind::Reachable,
            LeakKind::Unmatched => Kind::Unmatched,
        }
    }
}

fn pid(text: &str) -> Result<i32, String> {
    match text.parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err("a process id is a positive number".to_owned()),
    }
}

fn leak_check(text: &str) -> Result<LeakCheck, String> {
    match text {
        "none" => Ok(LeakCheck::None),
        "reachable" => Err("leaktap cannot grade by reachability yet, only `none`".to_owned()),
        _ => Err("expected `none`".to_owned()),
    }
}

/// More allocator functions.
fn pool(spec: &str) -> Result<Pool, String> {
    Pool::parse(spec).map_err(|error| error.to_string())
}

/// A number with `ms`, `s`, `m` or `h`; without a unit, seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is none of ms, s, m, h")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "expected a number, as in 30s".to_owned())?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| "too long".to_owned())
}

/// A number with `K`, `M` or `G`, powers of 1024, or without.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(format!("{unit:?} is none of K, M, G")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a number, as in 64K".to_owned())?;
    number
        .checked_mul(1 << scale)
        .ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_and_sizes() {
        for (text, expected) in [
            ("500ms", Some(0.5)),
            ("30s", Some(30.0)),
            ("5m", Some(300.0)),
            ("2h", Some(7200.0)),
            ("1.5", Some(1.5)),
            ("5parsecs", None),
            ("", None),
            ("s", None),
            ("-1s", None),
        ] {
            let found = duration(text).ok();
            assert_eq!(found, expected.map(Duration::from_secs_f64), "{text:?}");
        }
        for (text, expected) in [
            ("10", Some(10)),
            ("4K", Some(4096)),
            ("1M", Some(1 << 20)),
            ("x", None),
            ("1T", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text:?}");
        }
    }

    fn attach(options: &[&str]) -> Result<Cli, String> {
        let words = ["leaktap", "attach", "-p", "1"].iter().chain(options);
        Cli::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn values_that_are_refused_are_named() {
        for (options, named) in [
            (["--depth", "0"], "--depth"),
            (["--depth", "257"], "257"),
            (["--error-exitcode", "0"], "--error-exitcode"),
            (["--error-exitcode", "256"], "256"),
            (
                ["--leak-check", "reachable"],
                "cannot grade by reachability yet",
            ),
            (["--leak-check", "perhaps"], "perhaps"),
            (["-F", "folded"], "text, json"),
            (["--errors-for", "definite,lost"], "lost"),
            (["-o", "%x"], "%x"),
            (["--max-overhead", "0"], "--max-overhead"),
            (["--max-overhead", "101"], "101"),
            (["-q", "-v"], "--verbose"),
        ] {
            let error = attach(&options).unwrap_err();
            assert!(error.contains(named), "{options:?}: {error}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_manual() {
        let Ok(Command::Attach(options)) = attach(&[]).map(|cli| cli.command) else {
            panic!("attach -p 1")
        };
        let (trace, listing) = (options.trace, options.listing);
        assert_eq!((trace.depth, trace.engine), (64, Engine::Auto));
        assert_eq!(trace.leak_check, LeakCheck::None);
        assert_eq!(trace.max_overhead, None);
        assert_eq!(
            (listing.format, listing.by),
            (Format::Text, Grouping::Stack)
        );
        let kinds = [LeakKind::Definite, LeakKind::Possible, LeakKind::Unmatched];
        assert_eq!(listing.errors_for, kinds);
    }

    #[test]
    fn options_after_the_program_are_its_own() {
        let cli = Cli::parse_from(["leaktap", "run", "-q", "ls", "-v", "--depth", "0"]);
        let Command::Run(run) = cli.command else {
            panic!("{cli:?}")
        };
        assert_eq!(run.program, ["ls", "-v", "--depth", "0"]);
        assert!(run.listing.quiet && !run.listing.verbose);
    }
}
