//! The report for people.

mod columns;
mod left;
mod likeness;
mod site;
mod story;
mod summary;

use std::io::{self, Write};

use anstyle::Effects;

use self::columns::wrapped;
use self::left::last_line;
use self::site::Sites;
use self::summary::summary;
use crate::names::printable;
use crate::numbers::grouped;
use crate::reading::Reading;
use crate::{Format, Probe, ProbeKind, Report};

/// How the text looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// With colours.
    pub color: bool,
    /// Whole stacks, long names in full, build ids and probes.
    pub verbose: bool,
    /// Columns of the terminal.
    pub width: Option<usize>,
}

/// A summary, the sites, what the reader should know, and one line of what is left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text {
    /// How it looks.
    pub style: Style,
    /// Only so many sites, the first; how many more there are is said.
    pub top: Option<usize>,
}

impl Format for Text {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut reports = reports.iter();
        reports.try_for_each(|report| self.one(report, out))
    }
}

impl Text {
    fn one(&self, report: &Report, out: &mut dyn Write) -> io::Result<()> {
        let style = self.style;
        let reading = Reading::of(report, style.verbose);
        summary(report, reading, style, out)?;
        let mut sites = Sites::new(report, reading, style);
        let all = report.sites.len();
        let shown = self.top.map_or(all, |top| top.min(all));
        let (shown, more) = report.sites.split_at(shown);
        for (number, site) in (1..).zip(shown) {
            sites.print(number, site, out)?;
        }
        if !more.is_empty() {
            writeln!(out, "\n… {} more (--top 0)", grouped(more.len() as u64))?;
        }
        if style.verbose {
            probes(report, out)?;
        }
        notes(report, style, out)?;
        last_line(report, shown, style, out)
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

fn notes(report: &Report, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let mut notes = report.notes.clone();
    let is_unwatched = |probe: &&Probe| probe.kind == ProbeKind::None;
    for probe in report.probes.iter().filter(is_unwatched) {
        let reason = probe.reason.as_deref().unwrap_or("unknown reason");
        notes.push(format!(
            "{} of {} is not watched: {reason}",
            probe.function, probe.module
        ));
    }
    if !notes.is_empty() {
        writeln!(out)?;
    }
    notes
        .iter()
        .map(|note| wrapped(&format!("note: {}", printable(note)), 2, style.width))
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
