//! Where reports and captures go, and what exit status they mean.

use std::cell::Cell;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anstream::AutoStream;
use anstream::stream::RawStream;
use clap::ColorChoice;
use jiff::{SignedDuration, Timestamp};
use leaktap_report::{
    Baseline, Budget, Choice, Error as Failed, Excerpts, Kind, Listed, Mode, OutputName, Pattern,
    Report, Selection, Source, Style, Suppressions, is_in_doubt, printable, replace,
    try_to_replace,
};
use leaktap_trace::{Exit, Sight};
use leaktap_tracee::Tid;

use crate::cli::{Format, LeakCheck, LeakKind, Listing, Trace};
use crate::debuginfod::Servers;
use crate::error::{Error, FAILURE};
use crate::known::{baseline, own, suppressions};
use crate::renaming;
use crate::rendering::{Rendering, Shown};
use crate::{sources, terminal};

/// What is to be written, and where.
pub(crate) struct Output<'a> {
    listing: &'a Listing,
    capture: Option<&'a Pattern>,
    leak_check: LeakCheck,
    /// How long the trace will take at most.
    duration: Option<Duration>,
    /// The report goes to standard error: standard output is the program's.
    to_stderr: bool,
    /// What is not listed.
    suppressions: Suppressions,
    baseline: Option<Baseline>,
    /// What reports are compared with.
    before: Option<Vec<Report>>,
    /// How many reports there have been.
    reports: Cell<u32>,
}

impl<'a> Output<'a> {
    pub(crate) fn of_run(trace: &'a Trace, listing: &'a Listing) -> Result<Output<'a>, Error> {
        Ok(Output {
            to_stderr: true,
            ..Output::of_attach(trace, listing)?
        })
    }

    pub(crate) fn of_attach(trace: &'a Trace, listing: &'a Listing) -> Result<Output<'a>, Error> {
        Ok(Output {
            capture: trace.output.as_ref(),
            leak_check: trace.leak_check,
            duration: trace.duration,
            ..Output::of_report(listing)?
        })
    }

    pub(crate) fn of_report(listing: &'a Listing) -> Result<Output<'a>, Error> {
        Ok(Output {
            listing,
            capture: None,
            leak_check: LeakCheck::None,
            duration: None,
            to_stderr: false,
            suppressions: suppressions(listing)?,
            baseline: baseline(listing)?,
            before: None,
            reports: Cell::new(0),
        })
    }

    /// The same, of what has changed since those of another trace.
    pub(crate) fn compared_with(self, before: Vec<Report>) -> Output<'a> {
        Output {
            before: Some(before),
            ..self
        }
    }

    /// Refuses, before anything is traced, what would not work at its end. `pid` is nothing for a
    /// `program` that is yet to be launched.
    pub(crate) fn check(&self, pid: Option<Tid>, program: &str) -> Result<(), Error> {
        if let (Some(older), Some(duration)) = (self.listing.older, self.duration)
            && older > duration
        {
            return Err(Error::Usage(format!(
                "--older {} is longer than the trace, --duration {}: no block would be listed",
                shown(older),
                shown(duration)
            )));
        }
        if pid.is_some() && self.leak_check == LeakCheck::Reachable {
            return Err(Error::Usage(
                "--leak-check reachable is of programs that end under `run`, not yet of others"
                    .to_owned(),
            ));
        }
        self.check_format()?;
        let can_occur = |kind: &LeakKind| kind.can_occur(self.leak_check);
        if !self.listing.errors_for.iter().any(can_occur) {
            return Err(Error::Usage(
                "--errors-for names only kinds that --leak-check none cannot find: add unmatched, \
                 or, under `run`, --leak-check reachable"
                    .to_owned(),
            ));
        }
        let started = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let name = OutputName {
            pid: pid.map_or(0, Tid::get),
            program,
            started: &started,
            number: 1,
        };
        // Of a folder with an unknown name there is nothing to be tried.
        let is_known = |pattern: &&Pattern| pid.is_some() || !pattern.has_folder_of_target();
        if let Some(pattern) = self.capture.filter(is_known) {
            let path = pattern.fill(name);
            try_to_replace(&path).map_err(|source| Failed::Capture { path, source })?;
        }
        if let Some(pattern) = self.listing.report_file.as_ref().filter(is_known) {
            let path = pattern.fill(name);
            try_to_replace(&path).map_err(|source| Failed::Write { path, source })?;
        }
        Ok(())
    }

    /// Refuses what a terminal cannot show.
    pub(crate) fn check_format(&self) -> Result<(), Error> {
        let is_terminal = match self.to_stderr {
            true => io::stderr().is_terminal(),
            false => io::stdout().is_terminal(),
        };
        if self.listing.format().is_binary() && self.listing.report_file.is_none() && is_terminal {
            return Err(Error::Usage(
                "-F pprof is no text for a terminal: add --report-file FILE".to_owned(),
            ));
        }
        if self.listing.source && !self.listing.format().has_source() {
            return Err(Error::Usage("--source is for -F text and html".to_owned()));
        }
        if self.before.is_some() && !self.listing.format().has_changes() {
            return Err(Error::Usage(
                "a difference has -F text, json, html, csv, folded or flamegraph; pprof -base \
                 compares two profiles"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Writes the capture, and prints the report, of a trace: one that is over was made in a
    /// `mode`, and servers may be asked for names then. A capture that cannot be written does not
    /// keep the report from being printed.
    pub(crate) fn of_trace(
        &self,
        mut reports: Vec<Report>,
        mode: Option<Mode>,
    ) -> Result<Option<u8>, Error> {
        self.reports.set(self.reports.get() + 1);
        let mut servers = mode.and_then(|mode| Servers::of(self.listing, mode));
        for report in &mut reports {
            renaming::rename(report, &self.listing.elsewhere(), servers.as_mut());
        }
        let captured = match (self.capture, reports.first()) {
            (Some(pattern), Some(first)) => {
                let path = self.filled(pattern, first);
                let own = own(self.listing);
                reports.iter_mut().for_each(|report| own.mark(report));
                let written = leaktap_report::write(&path, &reports);
                written.map(|replaced| self.name(&path, replaced))
            }
            _ => Ok(()),
        };
        let status = self.print(reports)?;
        captured?;
        Ok(status)
    }

    /// The status of the program if that has failed, else that for `leaks`. Whoever asks for a
    /// status must not be told that all is well where leaktap has not looked.
    pub(crate) fn exit_status(
        &self,
        mode: Mode,
        exit: Option<Exit>,
        sight: Sight,
        leaks: Option<u8>,
    ) -> u8 {
        let of_program = match (mode, exit) {
            (Mode::Run, Some(Exit::Code(code))) => code as u8, // as waitpid(2) gives it: eight bits
            (Mode::Run, Some(Exit::Signal(signal))) => 128 + signal as u8,
            _ => 0,
        };
        let has_looked = match (self.listing.error_exitcode, mode) {
            (Some(_), _) => sight.allocator,
            // It had an allocator when leaktap attached. It may have been killed before a probe was
            // written, or execute another program.
            (None, Mode::Attach) => !sight.is_unwatched,
            (None, _) => sight.any,
        };
        match (has_looked, of_program) {
            (false, _) => FAILURE,
            (true, 0) => leaks.unwrap_or(0),
            (true, failed) => failed,
        }
    }

    /// Prints `reports`. Returns the exit status that they call for, if one is asked for.
    pub(crate) fn print(&self, reports: Vec<Report>) -> Result<Option<u8>, Error> {
        // A report is never lost: it is printed in full, and the error comes after it.
        let young = self.too_young(&reports);
        let older = self.listing.older.filter(|_| young.is_ok());
        let mut listed = self.choice(older).listed(reports);
        // What is not listed for being too many is still a leak.
        let status = self.status(&listed.reports);
        // Text says how many more there are, and that it is a sum.
        if self.listing.format() != Format::Text {
            if let (Some(all), Some(first)) = (&mut listed.all, listed.reports.first()) {
                all.target = first.target.clone();
            }
            let top = self.listing.top().unwrap_or(usize::MAX);
            for report in listed.reports.iter_mut().chain(&mut listed.all) {
                report.sites.truncate(top);
            }
        }
        let excerpts = self.listing.source.then(|| self.excerpts(&mut listed));
        let listed = Shown {
            listed: &listed,
            excerpts: excerpts.as_ref(),
        };
        match &self.listing.report_file {
            Some(pattern) => self.to_file(listed, pattern)?,
            None => self.to_default(listed, self.listing.format())?,
        }
        young.map(|()| status)
    }

    /// The exit status that leaks left call for, or that not all was seen.
    fn status(&self, reports: &[Report]) -> Option<u8> {
        let wanted = self.listing.error_exitcode?;
        match self.budget().is_exceeded_by(reports) {
            true => Some(wanted),
            false if self.is_ungraded(reports) => Some(FAILURE),
            false => is_in_doubt(reports).then_some(FAILURE),
        }
    }

    /// Whether blocks that were to be graded are not, and are no leaks as they are.
    fn is_ungraded(&self, reports: &[Report]) -> bool {
        let fails = |kind: LeakKind| self.listing.errors_for.contains(&kind);
        let has_blocks = |report: &Report| {
            let mut sites = report.sites.iter();
            sites.any(|site| site.kind == Kind::Unmatched && site.source == Source::Heap)
        };
        self.leak_check == LeakCheck::Reachable
            && !fails(LeakKind::Unmatched)
            && reports.iter().any(has_blocks)
    }

    /// The source lines that are to be shown with `listed`.
    fn excerpts(&self, listed: &mut Listed) -> Excerpts {
        // Text shows those of culprits.
        let is_text = self.listing.format() == Format::Text;
        let culprits = is_text.then(|| self.listing.top().unwrap_or(usize::MAX));
        sources::read(listed, culprits, self.listing.sysroot.as_deref())
    }

    /// What the user wants to see, of blocks at least so old.
    fn choice(&self, older: Option<Duration>) -> Choice<'_> {
        let format = self.listing.format();
        Choice {
            own: own(self.listing),
            suppressions: &self.suppressions,
            baseline: self.baseline.as_ref(),
            before: self.before.as_deref(),
            selection: Selection {
                older: older.map(|age| age.as_secs_f64()),
                min_size: self.listing.min_size,
                by: self.listing.by(),
                sort: self.listing.sort(),
                members: format.has_members(),
            },
            // Text has one line for it, but for who wants to see all.
            has_runtime: format.has_runtime() || self.listing.verbose,
            sums_all: format.sums_all(),
            has_sum: format.has_sum(),
        }
    }

    /// An error if all traces were shorter than the age that blocks are to have.
    fn too_young(&self, reports: &[Report]) -> Result<(), Error> {
        let longest = reports.iter().map(|report| report.duration);
        match (self.listing.older, longest.reduce(f64::max)) {
            (Some(older), Some(longest)) if older.as_secs_f64() > longest => Err(Error::TooYoung {
                older: shown(older),
                longest: format!("{longest:.1}s"),
            }),
            _ => Ok(()),
        }
    }

    /// Those that count as leaks.
    fn kinds(&self) -> Vec<Kind> {
        let kinds = self.listing.errors_for.iter();
        kinds.map(|&kind| kind.into()).collect()
    }

    fn budget(&self) -> Budget {
        Budget {
            kinds: self.kinds(),
            bytes: self.listing.max_leaked,
            sites: self.listing.max_sites,
        }
    }

    /// If that fails, to where they would have gone without a file.
    fn to_file(&self, listed: Shown<'_>, pattern: &Pattern) -> Result<(), Error> {
        let path = match listed.listed.reports.first() {
            Some(first) => self.filled(pattern, first),
            None => return Ok(()), // a capture has a report or more
        };
        match replace(&path, |out| {
            self.rendering(self.listing.format(), self.style_in_file())
                .write(listed, out)
        }) {
            Ok(replaced) => {
                self.name(&path, replaced);
                Ok(())
            }
            Err(source) => {
                // Whatever is wrong with the file or the format, people can read text.
                self.to_default(listed, Format::Text)?;
                Err(Error::Elsewhere {
                    source: Failed::Write { path, source },
                    stream: self.default_stream(),
                })
            }
        }
    }

    /// The file that `pattern` names for the target of `report`.
    fn filled(&self, pattern: &Pattern, report: &Report) -> PathBuf {
        let program = report.target.program.rsplit('/').next();
        pattern.fill(OutputName {
            pid: report.target.pid,
            program: program.unwrap_or_default(),
            started: &report.started.replace(['-', ':'], ""),
            number: self.reports.get(),
        })
    }

    /// Says what has been written. Standard error is left alone where it is the program's, and the
    /// report not on it; not if another file was there, or somebody looks on.
    fn name(&self, path: &Path, replaced: bool) {
        let is_the_programs = self.to_stderr && self.listing.report_file.is_some();
        let is_of_interest = replaced || !is_the_programs || io::stderr().is_terminal();
        if self.listing.quiet || !is_of_interest {
            return;
        }
        let path = path.display().to_string();
        let how = if replaced { ", which was there" } else { "" };
        // Where nobody can read it, the file is there all the same.
        let _ = writeln!(io::stderr(), "leaktap: wrote {}{how}", printable(&path));
    }

    fn default_stream(&self) -> &'static str {
        match self.to_stderr {
            true => "standard error",
            false => "standard output",
        }
    }

    fn to_default(&self, listed: Shown<'_>, format: Format) -> Result<(), Error> {
        if self.to_stderr {
            let style = self.style_on(&io::stderr());
            self.to_stream(listed, (format, style), &mut io::stderr().lock())
        } else {
            let style = self.style_on(&io::stdout());
            self.to_stream(listed, (format, style), &mut io::stdout().lock())
        }
    }

    fn to_stream(
        &self,
        listed: Shown<'_>,
        (format, style): (Format, Style),
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let mut out = BufWriter::new(out);
        let rendering = self.rendering(format, style);
        match rendering.write(listed, &mut out).and_then(|()| out.flush()) {
            // Whoever read it has seen enough: `leaktap report x | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(|source| Error::System {
                what: "print the report",
                source,
            }),
        }
    }

    fn rendering(&self, format: Format, style: Style) -> Rendering {
        Rendering {
            format,
            style,
            quiet: self.listing.quiet,
            top: self.listing.top(),
            kinds: self.kinds(),
        }
    }

    /// For a stream that may be a terminal. NO_COLOR, CLICOLOR and TERM count as everywhere.
    fn style_on(&self, stream: &(impl RawStream + AsFd + IsTerminal)) -> Style {
        let color = match self.listing.color {
            ColorChoice::Auto => AutoStream::choice(stream) != anstream::ColorChoice::Never,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        Style {
            color,
            ascii: !terminal::is_utf8(),
            verbose: self.listing.verbose,
            width: terminal::columns(stream),
        }
    }

    fn style_in_file(&self) -> Style {
        Style {
            color: self.listing.color == ColorChoice::Always,
            ascii: !terminal::is_utf8(),
            verbose: self.listing.verbose,
            width: None,
        }
    }
}

/// As people write it: `1h 30m`, `100ms`.
fn shown(time: Duration) -> String {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    format!("{time:#}")
}
