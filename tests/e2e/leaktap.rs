//! The `leaktap` binary: attached, launching, or told to fail.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::child::{Finished, Watched};
use crate::engines::Engine;
use crate::report::Report;

/// `leaktap`, without arguments.
pub(crate) fn leaktap() -> Command {
    Command::new(env!("CARGO_BIN_EXE_leaktap"))
}

/// Runs `leaktap` with these arguments to its end.
pub(crate) fn leaktap_with<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Finished {
    let mut process = Watched::spawn(leaktap().args(arguments));
    process.close_stdin();
    process.finish()
}

/// A `leaktap` that traces, and will write its report to a file.
pub(crate) struct Tracing {
    process: Watched,
    directory: TempDir,
}

/// A `leaktap` that has ended.
pub(crate) struct Traced {
    pub(crate) finished: Finished,
    report: Result<Report, String>,
}

/// Attaches, and waits until all probes are armed.
pub(crate) fn attach(engine: Engine, pid: Pid, more: &[&str]) -> Tracing {
    attached(begin_to_attach(engine, pid, more), pid)
}

/// The same without `CAP_SYS_ADMIN`.
pub(crate) fn attach_unprivileged(engine: Engine, pid: Pid) -> Tracing {
    attach_by(&["setpriv", "--bounding-set", "-sys_admin"], engine, pid)
}

/// The same by a program that executes its arguments.
pub(crate) fn attach_by(by: &[&str], engine: Engine, pid: Pid) -> Tracing {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let leaktap = reporting("attach", engine, &report_file(&directory));
    let mut command = Command::new(by[0]);
    command
        .args(&by[1..])
        .arg(leaktap.get_program())
        .args(leaktap.get_args())
        .args(["-p", &pid.to_string()]);
    let process = Watched::spawn(&mut command);
    attached(Tracing { process, directory }, pid)
}

fn attached(tracing: Tracing, pid: Pid) -> Tracing {
    let line = tracing.process.stderr_line("leaktap: attached to ");
    let line = line.unwrap_or_default();
    // Reasons for breakpoints may follow.
    let first = line.split(',').next();
    assert_eq!(first, Some(&*format!("leaktap: attached to {pid}")));
    tracing
}

/// Starts to attach.
pub(crate) fn begin_to_attach(engine: Engine, pid: Pid, more: &[&str]) -> Tracing {
    let pid = pid.to_string();
    Tracing::start(engine, "attach", more, &["-p".as_ref(), pid.as_ref()])
}

/// Launches `program` (a path and arguments).
pub(crate) fn begin_to_run(engine: Engine, program: &[&OsStr]) -> Tracing {
    let mut words: Vec<&OsStr> = vec!["--".as_ref()];
    words.extend(program);
    Tracing::start(engine, "run", &[], &words)
}

/// Launches `program` and waits for its end; its standard input is empty.
pub(crate) fn run(engine: Engine, program: &[&OsStr]) -> Traced {
    let mut tracing = begin_to_run(engine, program);
    tracing.process.close_stdin();
    tracing.wait()
}

/// Launches `program`, and waits for its end and the reports of all that it has started.
pub(crate) fn run_all(engine: Engine, options: &[&str], program: &[&OsStr]) -> Vec<Report> {
    let mut words: Vec<&OsStr> = vec!["--".as_ref()];
    words.extend(program);
    let mut tracing = Tracing::start(engine, "run", options, &words);
    tracing.process.close_stdin();
    tracing.wait_for_all()
}

/// The same with more options.
pub(crate) fn run_with(engine: Engine, options: &[&str], program: &[&OsStr]) -> Traced {
    let mut words: Vec<&OsStr> = vec!["--".as_ref()];
    words.extend(program);
    let mut tracing = Tracing::start(engine, "run", options, &words);
    tracing.process.close_stdin();
    tracing.wait()
}

/// `leaktap run` or `attach`, with a JSON report in the file `report`.
pub(crate) fn reporting(what: &str, engine: Engine, report: &Path) -> Command {
    let mut command = leaktap();
    command
        .args([what, "--engine", &engine.to_string()])
        // However slow the machine is.
        .args(["--max-overhead", "100"])
        .args(["--leak-check", "none", "-F", "json", "--report-file"])
        .arg(report);
    command
}

impl Tracing {
    fn start(engine: Engine, what: &str, more: &[&str], rest: &[&OsStr]) -> Tracing {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = reporting(what, engine, &report_file(&directory));
        command.args(more).args(rest);
        Tracing {
            process: Watched::spawn(&mut command),
            directory,
        }
    }

    pub(crate) fn process(&self) -> &Watched {
        &self.process
    }

    /// Ctrl-C, and the report.
    pub(crate) fn detach(self) -> Traced {
        self.process.signal(Signal::SIGINT);
        self.wait()
    }

    /// Waits for the reports of several processes.
    pub(crate) fn wait_for_all(self) -> Vec<Report> {
        let finished = self.process.finish();
        let reports = Report::read_all(&report_file(&self.directory));
        reports.unwrap_or_else(|error| finished.fail(&error))
    }

    /// Waits for the report.
    pub(crate) fn wait(self) -> Traced {
        let finished = self.process.finish();
        let report = Report::read(&report_file(&self.directory));
        Traced { finished, report }
    }
}

impl Traced {
    /// The report, or a failed test.
    pub(crate) fn report(&self) -> &Report {
        self.report
            .as_ref()
            .unwrap_or_else(|error| self.finished.fail(error))
    }

    /// True if there is a report.
    pub(crate) fn has_report(&self) -> bool {
        self.report.is_ok()
    }

    /// Fails the test unless leaktap ended with exit status 0; the report then.
    pub(crate) fn succeeded(&self) -> &Report {
        if self.finished.status.code() != Some(0) {
            self.finished.fail("leaktap: exit status 0 expected");
        }
        self.report()
    }

    /// Fails the test, showing leaktap's streams and the report's head.
    pub(crate) fn fail(&self, what: &str, differences: &[String]) -> ! {
        let head = self
            .report
            .as_ref()
            .map_or_else(Clone::clone, Report::summary);
        let differences = differences.join("\n");
        self.finished
            .fail(format_args!("{what}\n{differences}\nreport: {head}"))
    }
}

fn report_file(directory: &TempDir) -> PathBuf {
    directory.path().join("report.json")
}
