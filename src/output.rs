//! Where reports and captures go, and what exit status they mean.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use leaktap_report::{Kind, OutputName, Pattern, Report, Selection, Style, render};

use crate::cli::{Color, Format, Listing, Trace};
use crate::error::Error;
use crate::result::{self, Asked};
use crate::target::Target;

/// What is to be written, and where.
pub(crate) struct Output<'a> {
    listing: &'a Listing,
    capture: Option<&'a Pattern>,
    /// The report goes to standard error: standard output is the program's.
    to_stderr: bool,
}

impl<'a> Output<'a> {
    pub(crate) fn of_run(trace: &'a Trace, listing: &'a Listing) -> Output<'a> {
        Output {
            listing,
            capture: trace.output.as_ref(),
            to_stderr: true,
        }
    }

    pub(crate) fn of_attach(trace: &'a Trace, listing: &'a Listing) -> Output<'a> {
        Output {
            listing,
            capture: trace.output.as_ref(),
            to_stderr: false,
        }
    }

    pub(crate) fn of_report(listing: &'a Listing) -> Output<'a> {
        Output {
            listing,
            capture: None,
            to_stderr: false,
        }
    }

    /// Writes the capture, and prints the report, of a finished trace. A capture that cannot be
    /// written does not keep the report from being printed.
    pub(crate) fn of_target(&self, target: &mut Target, asked: Asked) -> Result<Option<u8>, Error> {
        let report = result::report(target, asked);
        let captured = match self.capture {
            None => Ok(()),
            Some(pattern) => {
                let started = report.started.replace(['-', ':'], "");
                let program = target.program_name();
                let name = OutputName {
                    pid: report.target.pid,
                    program: &program,
                    started: &started,
                };
                leaktap_report::write(&pattern.fill(name), std::slice::from_ref(&report))
            }
        };
        let status = self.print(vec![report])?;
        captured?;
        Ok(status)
    }

    /// Prints `reports`. Returns the exit status that leaks left call for, if they do.
    pub(crate) fn print(&self, reports: Vec<Report>) -> Result<Option<u8>, Error> {
        let selection = Selection {
            older: self.listing.older.map(|age| age.as_secs_f64()),
            min_size: self.listing.min_size,
            top: self.listing.top,
            by: self.listing.by.into(),
        };
        // What is not listed for being too many is still a leak.
        let all = Selection {
            top: None,
            ..selection
        };
        let is_leaky = |report: &Report| self.has_leaks(&all.apply(report.clone()));
        let status = self.listing.error_exitcode;
        let status = status.filter(|_| reports.iter().any(is_leaky));
        let reports: Vec<_> = reports
            .into_iter()
            .map(|report| selection.apply(report))
            .collect();
        match &self.listing.report_file {
            Some(path) => self.to_file(&reports, path)?,
            None if self.to_stderr => {
                let color = self.color(io::stderr().is_terminal());
                self.to_stream(&reports, color, &mut io::stderr().lock())?;
            }
            None => {
                let color = self.color(io::stdout().is_terminal());
                self.to_stream(&reports, color, &mut io::stdout().lock())?;
            }
        }
        Ok(status)
    }

    fn has_leaks(&self, report: &Report) -> bool {
        let kinds: Vec<Kind> = self
            .listing
            .errors_for
            .iter()
            .map(|&kind| kind.into())
            .collect();
        report.sites.iter().any(|site| kinds.contains(&site.kind))
    }

    fn to_file(&self, reports: &[Report], path: &Path) -> Result<(), Error> {
        let write = || -> io::Result<()> {
            let mut out = BufWriter::new(File::create(path)?);
            self.render(reports, self.color(false), &mut out)?;
            out.flush()
        };
        let failed = |source| leaktap_report::Error::Write {
            path: path.to_owned(),
            source,
        };
        Ok(write().map_err(failed)?)
    }

    fn to_stream(&self, reports: &[Report], color: bool, out: &mut dyn Write) -> Result<(), Error> {
        let mut out = BufWriter::new(out);
        match self
            .render(reports, color, &mut out)
            .and_then(|()| out.flush())
        {
            // Whoever read it has seen enough: `leaktap report x | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(|source| Error::System {
                what: "print the report",
                source,
            }),
        }
    }

    fn render(&self, reports: &[Report], color: bool, out: &mut dyn Write) -> io::Result<()> {
        let style = Style {
            color,
            verbose: self.listing.verbose,
        };
        for report in reports {
            match self.listing.format {
                Format::Text => render(report, style, out)?,
                Format::Json => leaktap_report::json(report, out)?,
            }
        }
        Ok(())
    }

    fn color(&self, terminal: bool) -> bool {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match self.listing.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !unwanted,
        }
    }
}
