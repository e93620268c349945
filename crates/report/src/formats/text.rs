//! The report for people.

mod left;

use std::io::{self, Write};

use crate::names::{fold, last_part, printable, up_to_main, without_compiler};
use crate::numbers::{bytes, count, exact_bytes, grouped, seconds};
use crate::{Exit, Format, FrameId, Heap, Mode, Place, Probe, ProbeKind, Report, Site, Source};

/// How the text looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// With colours.
    pub color: bool,
    /// Long names in full, build ids and probes.
    pub verbose: bool,
}

/// Widest column of function names.
const WIDEST: usize = 48;

/// A summary, the sites, what the reader should know, and one line of what is left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text {
    /// How it looks.
    pub style: Style,
}

impl Format for Text {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut reports = reports.iter();
        reports.try_for_each(|report| one_report(report, self.style, out))
    }
}

fn one_report(report: &Report, style: Style, out: &mut dyn Write) -> io::Result<()> {
    summary(report, style, out)?;
    let mut lines = Lines {
        report,
        style,
        known: report.frames.iter().map(|_| None).collect(),
        none: Line::default(),
    };
    let are_many = !report.families.is_empty();
    for (number, site) in (1..).zip(&report.sites) {
        let family = site.family.as_deref().filter(|_| are_many);
        one_site(number, site, family, style, out)?;
        stack(site, &mut lines, out)?;
    }
    if style.verbose {
        probes(report, out)?;
    }
    notes(report, out)?;
    let line = left::last_line(report);
    writeln!(out, "\n{}", style.strong(&line))
}

fn summary(report: &Report, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let (target, totals) = (&report.target, &report.totals);
    let is_run = report.mode == Mode::Run;
    let how = if is_run { "ran for" } else { "attached for" };
    let name = style.strong(&printable(&target.program));
    writeln!(
        out,
        "{name} (pid {}, {}), {how} {}{}",
        target.pid,
        count(target.threads as u64, "thread"),
        seconds(report.duration),
        end(target.exit)
    )?;
    for family in &report.families {
        writeln!(out, "  {}", style.strong(&printable(&family.name)))?;
        heap(&family.heap, is_run, style, out)?;
    }
    if report.families.is_empty() {
        heap(&totals.heap, is_run, style, out)?;
    }
    if let Some(blocks @ 1..) = totals.runtime_blocks {
        let size = bytes(totals.runtime_bytes.unwrap_or_default());
        let blocks = count(blocks, "block");
        writeln!(
            out,
            "  runtime    {size} in {blocks}, which runtimes keep for good"
        )?;
    }
    if totals.mapped_regions > 0 {
        let regions = count(totals.mapped_regions, "region");
        writeln!(
            out,
            "  mapped     {} in {regions} of its own",
            bytes(totals.mapped_bytes)
        )?;
    }
    Ok(())
}

fn heap(heap: &Heap, is_run: bool, style: Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "  allocated  {} in {}, peak {}",
        bytes(heap.allocated_bytes),
        count(heap.allocations, "block"),
        bytes(heap.peak_bytes),
    )?;
    let unmatched = match heap.unmatched_frees {
        0 => String::new(),
        n if is_run => format!(", {} of them of no live block", grouped(n)),
        n => format!(", {} of them from before the trace", grouped(n)),
    };
    let freed = count(heap.frees, "block");
    writeln!(out, "  freed      {freed}{unmatched}")?;
    let left = format!(
        "{} in {}",
        exact_bytes(heap.live_bytes),
        count(heap.live_blocks, "block")
    );
    writeln!(out, "  not freed  {}", style.strong(&left))
}

fn end(exit: Option<Exit>) -> String {
    match exit {
        None => String::new(),
        Some(Exit::Code(code)) => format!(", exited with {code}"),
        Some(Exit::Signal(signal)) => format!(", killed by signal {signal}"),
    }
}

fn one_site(
    number: usize,
    site: &Site,
    family: Option<&str>,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    // The report keeps no sizes of single blocks, only their sum.
    let average = match site.bytes.checked_div(site.blocks) {
        Some(size) if site.blocks > 1 => format!(", {} on average", bytes(size)),
        _ => String::new(),
    };
    let function = match family {
        Some(family) => format!("{} of {family}", site.function),
        None => site.function.clone(),
    };
    let what = if site.source == Source::Mapping {
        "region"
    } else {
        "block"
    };
    let size = format!(
        "{} in {}{average}",
        exact_bytes(site.bytes),
        count(site.blocks, what)
    );
    writeln!(
        out,
        "\n{number:>3}. {}  {}, {}  {}",
        style.strong(&size),
        site.kind.name(),
        ages(site),
        style.dim(&format!("({})", printable(&function))),
    )
}

/// What is printed of each frame. Stacks share them: most are printed many times.
struct Lines<'a> {
    report: &'a Report,
    style: Style,
    /// By number.
    known: Vec<Option<Line>>,
    none: Line,
}

#[derive(Default)]
struct Line {
    name: String,
    /// Of the name, in columns.
    width: usize,
    place: String,
}

impl Lines<'_> {
    fn line(&mut self, id: FrameId, place: &Place<'_>) -> &Line {
        let style = self.style;
        let FrameId(id) = id;
        let Some(known) = self.known.get_mut(id as usize) else {
            return &self.none;
        };
        known.get_or_insert_with(|| {
            let name = name(place, style);
            Line {
                width: name.chars().count(),
                name,
                place: position(place, style),
            }
        })
    }
}

fn stack(site: &Site, lines: &mut Lines<'_>, out: &mut dyn Write) -> io::Result<()> {
    let style = lines.style;
    let all = lines.report.tables().stack(&site.frames);
    let shown = match style.verbose {
        true => &all[..],
        false => up_to_main(&all),
    };
    let frames = || site.frames.iter().copied().zip(shown);
    let widths = frames().map(|(id, place)| lines.line(id, place).width);
    let widest = widths.max().unwrap_or(0).min(WIDEST);
    for (id, place) in frames() {
        let Line { name, width, place } = lines.line(id, place);
        match name.as_str() {
            "" => writeln!(out, "     {place}")?,
            name => {
                let padding = widest.saturating_sub(*width);
                writeln!(out, "     {name}{:padding$}  {place}", "")?;
            }
        }
    }
    match &site.truncated {
        Some(why) => writeln!(
            out,
            "     {}",
            style.dim(&format!("(the stack breaks off: {})", printable(why)))
        ),
        None => Ok(()),
    }
}

fn ages(site: &Site) -> String {
    let (youngest, oldest) = (seconds(site.youngest), seconds(site.oldest));
    if youngest == oldest {
        return format!("{oldest} old");
    }
    format!("{youngest} to {oldest} old")
}

/// The function, or the address where it has no name. Empty if the place says all.
fn name(place: &Place<'_>, style: Style) -> String {
    let frame = place.frame;
    match (&frame.function, &frame.file, frame.address) {
        (Some(function), ..) if style.verbose => printable(function).into_owned(),
        (Some(function), ..) => printable(&fold(function)).into_owned(),
        (None, None, Some(address)) => address.to_string(),
        (None, ..) => String::new(),
    }
}

fn position(place: &Place<'_>, style: Style) -> String {
    let Place { frame, module } = *place;
    let file = |file| match style.verbose {
        true => file,
        false => without_compiler(file),
    };
    let position = match (&frame.file, frame.line, module, frame.offset) {
        (Some(path), Some(line), ..) => format!("{}:{line}", file(path)),
        (Some(path), None, ..) => file(path).to_owned(),
        (None, _, Some(module), Some(offset)) => format!("{}+{offset}", last_part(&module.path)),
        (None, _, Some(module), None) => module.path.clone(),
        (None, _, None, _) => "(no module)".to_owned(),
    };
    let id = module.and_then(|module| module.build_id.as_deref());
    let id = match (id, style.verbose) {
        (Some(id), true) => format!(" [{}]", printable(id)),
        _ => String::new(),
    };
    let inlined = if frame.inlined { " (inlined)" } else { "" };
    let guessed = match frame.by_frame_pointer {
        true => " (by frame pointer)",
        false => "",
    };
    let marks = style.dim(&format!("{id}{inlined}{guessed}"));
    format!("{}{marks}", printable(&position))
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

fn notes(report: &Report, out: &mut dyn Write) -> io::Result<()> {
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
        .try_for_each(|note| writeln!(out, "note: {}", printable(note)))
}

impl Style {
    fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self.color && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
pub(crate) mod tests;
