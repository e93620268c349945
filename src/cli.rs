//! The command line, as typed.

mod format;
mod help;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ColorChoice, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use leaktap_image::Elsewhere;
use leaktap_probe::Pool;
use leaktap_report::{By, Kind, Mode, Pattern, Sort};
use leaktap_trace::{Engine, How, Settings};

pub(crate) use format::Format;
pub(crate) use values::Process;
use values::{bytes, duration, engine, lossy, pattern, pid, pool, positive};

/// Finds memory leaks in running Linux programs
#[derive(Debug, Parser)]
#[command(name = "leaktap", version, max_term_width = 100, after_long_help = help::ALL)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Launch a program and trace it; report when it ends
    ///
    /// Ctrl-C is the program's. A program that outlives three in a row runs on without leaktap,
    /// which reports.
    #[command(after_long_help = help::RUN)]
    Run(Run),
    /// Attach to a live process; report on detach
    ///
    /// leaktap detaches on Ctrl-C, Ctrl-Z, SIGTERM, after --duration, or at the end of the process.
    #[command(after_long_help = help::ATTACH)]
    Attach(Attach),
    /// Render a capture again
    #[command(after_long_help = help::REPORT)]
    Report(Report),
    /// Show what has changed between two captures, or since one
    #[command(after_long_help = help::DIFF)]
    Diff(Diff),
    /// Sum captures of several processes up, as of replicas of one service
    Merge(Merge),
    /// Say whether a process can be attached, and what will be probed
    #[command(after_long_help = help::DOCTOR)]
    Doctor(Doctor),
    /// Start a leaky program, attach to it for three seconds, report
    Demo,
    /// Print a script that completes leaktap's command line in a shell
    #[command(after_long_help = help::COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page, for man(1)
    #[command(after_long_help = help::MAN)]
    Man {
        /// The command that the page is about [default: leaktap as a whole]
        command: Option<String>,
    },
    /// The process that cleans up after a killed leaktap
    #[command(hide = true, name = leaktap_trace::guard::NAME)]
    Guard {
        /// The target
        pid: i32,
    },
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
#[command(mut_group("Whom", |group| group.required(true)))]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) whom: Whom,
    #[command(flatten)]
    pub(crate) trace: Trace,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) whom: Whom,
}

/// A process.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Whom {
    /// The process: its id, or the name of its program if only one process has that
    #[arg(
        value_name = "PID|NAME",
        value_parser = OsStringValueParser::new().try_map(Process::parse)
    )]
    pub(crate) process: Option<Process>,
    /// The id of the process, repeatable
    #[arg(short, long, value_name = "PID", value_parser = pid)]
    pub(crate) pid: Vec<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    #[command(flatten)]
    pub(crate) listing: Listing,
    /// A file that `-o` wrote, or a JSON report; `-` for standard input
    pub(crate) capture: PathBuf,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("after-or-pid").args(["after", "pid"]).required(true)))]
pub(crate) struct Diff {
    #[command(flatten)]
    pub(crate) trace: Trace,
    #[command(flatten)]
    pub(crate) listing: Listing,
    /// A capture or a JSON report
    pub(crate) before: PathBuf,
    /// Another one, of a later trace; or -p
    pub(crate) after: Option<PathBuf>,
    /// Trace this process, and compare what it leaves
    #[arg(short, long, value_name = "PID", value_parser = pid)]
    pub(crate) pid: Option<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// The capture that is written
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Captures or JSON reports
    #[arg(required = true, value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
}

/// How a trace is made.
#[derive(Clone, Debug, Args)]
pub(crate) struct Trace {
    /// Write a capture, for `leaktap report`
    ///
    /// In FILE, %p stands for the pid, %n for the program's name, %t for the time of the start, %i
    /// for the number of the report.
    #[arg(
        short,
        long,
        value_name = "FILE",
        value_parser = OsStringValueParser::new().try_map(pattern)
    )]
    pub(crate) output: Option<Pattern>,
    /// Detach after this long: 500ms, 30s, 1h30m
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// After --duration, wait so long for blocks to be freed; what comes then is not listed
    #[arg(
        long,
        value_name = "DUR",
        value_parser = duration,
        requires = "duration",
        hide_short_help = true
    )]
    pub(crate) drain: Option<Duration>,
    /// Also report after each such time, and go on. So does SIGUSR1
    #[arg(long, value_name = "DUR", value_parser = positive, hide_short_help = true)]
    pub(crate) every: Option<Duration>,
    /// Do not list what is there after so long, or when SIGUSR2 comes
    #[arg(long, value_name = "DUR", value_parser = duration, hide_short_help = true)]
    pub(crate) baseline_after: Option<Duration>,
    /// Between two moments of the time line, which are fewer in a long trace
    #[arg(
        long,
        value_name = "DUR",
        default_value = "1s",
        value_parser = positive,
        hide_short_help = true
    )]
    pub(crate) interval: Duration,
    /// Most frames a stack
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u16).range(1..=256),
        hide_short_help = true
    )]
    pub(crate) depth: u16,
    /// How functions are probed
    #[arg(long, default_value = "auto", value_parser = engine(), hide_short_help = true)]
    pub(crate) engine: Engine,
    /// Leave unwatched, and name, what would need a breakpoint
    #[arg(long, hide_short_help = true)]
    pub(crate) detours_only: bool,
    /// Detach when stops take more than this share of the target's time; 100: never
    ///
    /// [default: 10 for `attach --engine auto`, else 100]
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u8).range(1..=100),
        hide_short_help = true
    )]
    pub(crate) max_overhead: Option<u8>,
    /// More allocators, repeatable
    ///
    /// `pool_get:size=1,returns pool_put:ptr=0`, `lib.so!NAME:...`, `lib.so!0xOFFSET:...`, or @apr,
    /// @glib, @libxml2, @openssl, @python.
    #[arg(long, value_name = "SPEC", value_parser = pool, hide_short_help = true)]
    pub(crate) alloc_fn: Vec<Pool>,
    /// How what is not freed is graded. Of a program that ends under `run`: what can be reached
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        default_value_t = LeakCheck::None,
        hide_short_help = true
    )]
    pub(crate) leak_check: LeakCheck,
    /// Trace children too, each with a report of its own
    #[arg(short, long)]
    pub(crate) follow_forks: bool,
    /// Also trace to their end the children that outlive the program
    #[arg(long, requires = "follow_forks", hide_short_help = true)]
    pub(crate) wait_all: bool,
    /// Keep whole stacks of the last frees: notes on double frees then say who called the first one
    #[arg(long, hide_short_help = true)]
    pub(crate) free_stacks: bool,
    /// No progress line. There is none either where the target uses the terminal
    #[arg(long, hide_short_help = true)]
    pub(crate) no_progress: bool,
}

/// What is printed.
#[derive(Clone, Debug, Args)]
pub(crate) struct Listing {
    /// The report's format
    #[arg(short = 'F', long, value_enum, value_name = "FMT", default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Where the report goes, as for -o [default: standard output; for run standard error]
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().try_map(pattern))]
    pub(crate) report_file: Option<Pattern>,
    /// Only blocks at least this old: 30s, 5m
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) older: Option<Duration>,
    /// Only groups of at least so many bytes: 4096, 64K, 1.5M
    ///
    /// K, M, G (or KiB, MiB, GiB) are powers of 1024; KB, MB, GB powers of 1000.
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = bytes)]
    pub(crate) min_size: u64,
    /// Only the N first groups; 0: all [default: 20 in text, else all]
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    /// Which groups come first; rate: what grows [default: rate in text, else bytes]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) sort: Option<Order>,
    /// What makes a group [default: caller in text, else stack]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) by: Option<Grouping>,
    /// Count this as your own code, repeatable: a file or folder, a module, a crate
    #[arg(
        long,
        value_name = "PATH|MODULE",
        value_parser = OsStringValueParser::new().map(lossy),
        hide_short_help = true
    )]
    pub(crate) own: Vec<String>,
    /// Do not count this as your own code, repeatable
    #[arg(
        long,
        value_name = "PATH|MODULE",
        value_parser = OsStringValueParser::new().map(lossy),
        hide_short_help = true
    )]
    pub(crate) not_own: Vec<String>,
    /// Debug files for better names, found by build id, path or name
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub(crate) debug_dir: Option<PathBuf>,
    /// A copy of the target's files, for better names
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub(crate) sysroot: Option<PathBuf>,
    /// Ask the servers of DEBUGINFOD_URLS for debug files, also where CI is set
    #[arg(long, hide_short_help = true)]
    pub(crate) debuginfod: bool,
    /// Show source lines, in text and html: where debug information says, or below --sysroot
    #[arg(long, hide_short_help = true)]
    pub(crate) source: bool,
    /// Do not list what this file suppresses, repeatable: valgrind's or LeakSanitizer's format
    ///
    /// As well as the files that LEAKTAP_SUPPRESSIONS names, with a colon between two.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) suppressions: Vec<PathBuf>,
    /// Print suppressions for what would be listed, in place of the report
    #[arg(long, conflicts_with = "format", hide_short_help = true)]
    pub(crate) print_suppressions: bool,
    /// Also list what leaktap's own suppressions for libraries match
    #[arg(long, hide_short_help = true)]
    pub(crate) no_default_suppressions: bool,
    /// Exit with N, which is not 0, if leaks remain
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) error_exitcode: Option<u8>,
    /// Which kinds count as leaks for --error-exitcode
    #[arg(long, value_enum, value_name = "KINDS", value_delimiter = ',', hide_short_help = true,
          default_values_t = [LeakKind::Definite, LeakKind::Possible, LeakKind::Unmatched])]
    pub(crate) errors_for: Vec<LeakKind>,
    /// Leaks of so many bytes in all are no failure: 64K
    #[arg(
        long,
        value_name = "BYTES",
        value_parser = bytes,
        requires = "error_exitcode",
        hide_short_help = true
    )]
    pub(crate) max_leaked: Option<u64>,
    /// Leaks at so many call sites are no failure
    #[arg(
        long,
        value_name = "N",
        requires = "error_exitcode",
        hide_short_help = true
    )]
    pub(crate) max_sites: Option<usize>,
    /// Only what is new, or more, since this capture or JSON report
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) baseline: Option<PathBuf>,
    /// Nothing but the report
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Whole stacks, names in full, build ids, probes
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Colours in the text report; auto: on a terminal, unless NO_COLOR is set
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t = ColorChoice::Auto,
        hide_short_help = true
    )]
    pub(crate) color: ColorChoice,
}

impl Trace {
    /// How a process that comes under trace so is to be traced.
    pub(crate) fn settings(&self, mode: Mode) -> Settings {
        Settings {
            duration: self.duration,
            how: How {
                mode,
                depth: usize::from(self.depth),
                interval: self.interval,
                engine: self.engine,
                detours_only: self.detours_only,
                pools: self.alloc_fn.clone(),
                grades: self.leak_check == LeakCheck::Reachable,
            },
            max_overhead: self.max_overhead,
            free_stacks: self.free_stacks,
            drain: self.drain,
            every: self.every,
            baseline_after: self.baseline_after,
            follow_forks: self.follow_forks,
            wait_all: self.wait_all,
        }
    }
}

impl Listing {
    /// Where files with better names are.
    pub(crate) fn elsewhere(&self) -> Elsewhere {
        Elsewhere {
            debug_dir: self.debug_dir.clone(),
            sysroot: self.sysroot.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LeakCheck {
    /// Everything not freed is `unmatched`
    None,
    /// What can still be reached when the program ends is told from what cannot
    Reachable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Grouping {
    /// The first frame of your own code
    Caller,
    /// The whole stack
    Stack,
    /// Function, file and line of the innermost frame
    Site,
    /// The function of the first frame outside the C library and the runtimes
    Function,
    /// The file of that frame
    File,
    /// The module of that frame
    Module,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    Bytes,
    Blocks,
    Rate,
}

impl From<Order> for Sort {
    fn from(order: Order) -> Sort {
        match order {
            Order::Bytes => Sort::Bytes,
            Order::Blocks => Sort::Blocks,
            Order::Rate => Sort::Rate,
        }
    }
}

impl Listing {
    /// What is printed.
    pub(crate) fn format(&self) -> Format {
        match self.print_suppressions {
            true => Format::Suppressions,
            false => self.format,
        }
    }

    /// Which groups come first.
    pub(crate) fn sort(&self) -> Sort {
        self.sort.unwrap_or(self.format().sort()).into()
    }

    /// What makes a group.
    pub(crate) fn by(&self) -> By {
        match self.by.unwrap_or(self.format().by()) {
            Grouping::Caller => By::Caller,
            Grouping::Stack => By::Stack,
            Grouping::Site => By::Site,
            Grouping::Function => By::Function,
            Grouping::File => By::File,
            Grouping::Module => By::Module,
        }
    }

    /// How many groups are listed, if not all.
    pub(crate) fn top(&self) -> Option<usize> {
        match self.top {
            None => self.format().top(),
            top => top.filter(|&top| top > 0),
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

impl LeakKind {
    /// Whether a trace can find such leaks.
    pub(crate) fn can_occur(self, check: LeakCheck) -> bool {
        check == LeakCheck::Reachable || self == LeakKind::Unmatched
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
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
            (["--leak-check", "perhaps"], "perhaps"),
            (["-F", "xml"], "text, json"),
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
            (listing.format, listing.by(), listing.top()),
            (Format::Text, By::Caller, Some(20))
        );
        let json = Listing {
            format: Format::Json,
            ..listing.clone()
        };
        assert_eq!((json.by(), json.top()), (By::Stack, None));
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
