//! The report for people.

mod changes;
mod chart;
mod columns;
mod excerpt;
mod left;
mod likeness;
mod site;
mod story;
mod summary;
mod suppressed;

use std::io::{self, Write};

use anstyle::Effects;

pub(crate) use self::changes::heading;
use self::columns::wrapped;
use self::left::last_line;
pub(crate) use self::left::{amount_suppressed, and_suppressed, what_is_left};
use self::site::Sites;
use self::summary::heap;
pub(crate) use self::summary::{process, summary};
pub(crate) use self::suppressed::pieces;
use self::suppressed::suppressed;
use crate::names::printable;
use crate::numbers::grouped;
use crate::reading::Reading;
use crate::{Excerpts, Format, Probe, ProbeKind, Report, Site};

/// How the text looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// With colours.
    pub color: bool,
    /// Charts of ASCII characters.
    pub ascii: bool,
    /// Whole stacks, long names in full, build ids and probes.
    pub verbose: bool,
    /// Columns of the terminal.
    pub width: Option<usize>,
}

/// A summary, the sites, what the reader should know, and one line of what is left. Of several
/// processes, those that have left nothing have a line each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text<'a> {
    /// How it looks.
    pub style: Style,
    /// Only so many sites, the first; how many more there are is said.
    pub top: Option<usize>,
    /// Several reports as one, [`merged`](crate::merged), to be shown after them.
    pub all: Option<&'a Report>,
    /// Source lines to be shown.
    pub excerpts: Option<&'a Excerpts>,
}

impl Format for Text<'_> {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        if let [report] = reports {
            return self.one(report, out);
        }
        for (index, report) in reports.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            match has_left_nothing(report) {
                true => self.brief(report, out)?,
                false => self.one(report, out)?,
            }
        }
        self.all
            .map_or(Ok(()), |all| self.all(all, reports.len(), out))
    }
}

fn has_left_nothing(report: &Report) -> bool {
    let totals = &report.totals;
    let is_silent = report.suppressions.is_empty() && totals.lost_events == 0;
    report.sites.is_empty() && is_silent
}

impl Text<'_> {
    /// One line, and notes.
    fn brief(&self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        let line = format!("{}: {}", process(report), what_is_left(report, &[]));
        writeln!(out, "{}", wrapped(&line, 2, self.style.width))?;
        notes(report, self.style, out)
    }

    /// The sum over all processes.
    fn all(&self, all: &Report, processes: usize, out: &mut dyn Write) -> io::Result<()> {
        let title = format!("All {processes} processes");
        writeln!(out, "\n{}", self.style.strong(&title))?;
        heap(&all.totals.heap, true, self.style, out)?;
        let shown = self.sites(all, Reading::of(all, self.style.verbose), out)?;
        last_line(all, shown, self.style, out)
    }

    fn one(&self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        let style = self.style;
        let reading = Reading::of(report, style.verbose);
        match &report.compared {
            Some(before) => heading(report, before, style, out)?,
            None => summary(report, reading, style, out)?,
        }
        let shown = self.sites(report, reading, out)?;
        if style.verbose {
            probes(report, out)?;
        }
        suppressed(report, style, out)?;
        if has_notes(report) {
            writeln!(out)?;
        }
        notes(report, style, out)?;
        last_line(report, shown, style, out)
    }

    /// The first of the sites, which it returns.
    fn sites<'r>(
        &self,
        report: &'r Report,
        reading: Reading<'r>,
        out: &mut dyn Write,
    ) -> io::Result<&'r [Site]> {
        let mut sites = Sites::new(report, reading, self.style, self.excerpts);
        let all = report.sites.len();
        let shown = self.top.map_or(all, |top| top.min(all));
        let (shown, more) = report.sites.split_at(shown);
        for (number, site) in (1..).zip(shown) {
            sites.print(number, site, out)?;
        }
        if !more.is_empty() {
            writeln!(out, "\n… {} more (--top 0)", grouped(more.len() as u64))?;
        }
        Ok(shown)
    }
}

fn probes(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nProbes")?;
    for probe in &report.probes {
        let reason = probe.reason.as_deref();
        let reason = reason.map(|r| format!(" ({r})")).unwrap_or_default();
        let family = probe.family.as_deref();
        let family = family.map(|f| format!("{f}, ")).unwrap_or_default();
        let line = format!(
            "{:<18}{:<12}{family}{} {}{reason}",
            probe.function,
            probe.kind.name(),
            probe.module,
            probe.address
        );
        writeln!(out, "  {}", printable(&line))?;
    }
    Ok(())
}

fn unwatched(report: &Report) -> impl Iterator<Item = &Probe> {
    let probes = report.probes.iter();
    probes.filter(|probe| probe.kind == ProbeKind::None)
}

fn has_notes(report: &Report) -> bool {
    !report.notes.is_empty() || unwatched(report).next().is_some()
}

/// What the reader should know, and what is not watched.
pub(crate) fn all_notes(report: &Report) -> Vec<String> {
    let notes = report.notes.iter().map(|note| printable(note).into_owned());
    let mut notes: Vec<_> = notes.collect();
    for probe in unwatched(report) {
        let reason = probe.reason.as_deref().unwrap_or("unknown reason");
        let note = format!(
            "{} of {} is not watched: {reason}",
            probe.function, probe.module
        );
        notes.push(printable(&note).into_owned());
    }
    notes
}

fn notes(report: &Report, style: Style, out: &mut dyn Write) -> io::Result<()> {
    all_notes(report)
        .iter()
        .map(|note| wrapped(&format!("note: {note}"), 2, style.width))
        .try_for_each(|note| writeln!(out, "{note}"))
}

impl Style {
    fn strong(self, text: &str) -> String {
        self.wrap(Effects::BOLD, text)
    }

    fn dim(self, text: &str) -> String {
        self.wrap(Effects::DIMMED, text)
    }

    fn wrap(self, effect: Effects, text: &str) -> String {
        let style = anstyle::Style::from(effect);
        match self.color && !text.is_empty() {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
pub(crate) mod tests;
