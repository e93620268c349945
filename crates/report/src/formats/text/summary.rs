//! The first lines: the process, and what happened in all.

use std::io::{self, Write};

use super::Style;
use super::chart::charts;
use super::columns::wrapped;
use crate::names::printable;
use crate::numbers::{bytes, count, exact_bytes, grouped, long_time, seconds};
use crate::reading::Reading;
use crate::selection::is_growing;
use crate::{Exit, Forecast, Heap, Kind, Mode, Report, Site};

pub(crate) fn summary(
    report: &Report,
    reading: Reading<'_>,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let (target, totals) = (&report.target, &report.totals);
    let is_run = report.mode == Mode::Run;
    let program = printable(&target.program);
    let first = wrapped(&process(report), 2, style.width);
    writeln!(
        out,
        "{}",
        first.replacen(&*program, &style.strong(&program), 1)
    )?;
    if let Some(file) = &target.executable {
        writeln!(out, "  file       {}", printable(file))?;
    }
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
    charts(report, style, out)?;
    if let Some(forecast) = &report.forecast {
        let line = format!("  forecast   {}", future(forecast));
        writeln!(out, "{}", wrapped(&line, 13, style.width))?;
    }
    if let Some(folder) = reading.folder {
        writeln!(out, "  sources    in {}", printable(folder))?;
    }
    for line in meanings(&report.sites) {
        writeln!(out, "{}", wrapped(&line, 13, style.width))?;
    }
    Ok(())
}

/// What is listed, and in what order, where that is not by size.
fn meanings(sites: &[Site]) -> Vec<String> {
    let order = match sites {
        [first, _, ..] if is_growing(first) => "; what grows is listed first",
        _ => "",
    };
    let has = |kind: Kind| sites.iter().any(|site| site.kind == kind);
    let listed = KINDS.iter().filter(|(kind, _)| has(*kind));
    let lines = listed.map(|(kind, meaning)| format!("  {:9}  {meaning}", kind.name()));
    let mut lines: Vec<_> = lines.collect();
    if let Some(last) = lines.last_mut() {
        last.push_str(order);
    }
    lines
}

/// What kinds are.
const KINDS: &[(Kind, &str)] = &[
    (Kind::Definite, "lost: nothing points to it any more"),
    (Kind::Indirect, "lost: only what is lost leads to it"),
    (
        Kind::Possible,
        "not freed, and what leads to it points into its middle",
    ),
    (
        Kind::Unmatched,
        "allocated while leaktap watched, and not freed",
    ),
    (
        Kind::Reachable,
        "not freed, but the program could still do so",
    ),
];

/// When a limit will be reached.
fn future(forecast: &Forecast) -> String {
    format!(
        "at this rate ({}/s) {} of {} is reached in {}",
        bytes(forecast.bytes_per_second.round() as u64),
        printable(&forecast.limit),
        bytes(forecast.bytes),
        long_time(forecast.seconds)
    )
}

/// What the process is, how long it was traced, and how it ended.
pub(crate) fn process(report: &Report) -> String {
    let target = &report.target;
    let how = match report.mode {
        Mode::Run => "ran for",
        _ => "attached for",
    };
    let parent = target.parent.map(|parent| format!("child of {parent}, "));
    format!(
        "{} (pid {}, {}{}), {how} {}{}",
        printable(&target.program),
        target.pid,
        parent.unwrap_or_default(),
        count(target.threads as u64, "thread"),
        seconds(report.duration),
        end(target.exit)
    )
}

pub(super) fn heap(heap: &Heap, is_run: bool, style: Style, out: &mut dyn Write) -> io::Result<()> {
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
    writeln!(out, "  not freed  {}", style.strong(&left))?;
    match is_run {
        true => Ok(()),
        false => writeln!(out, "  net        {}", net(heap)),
    }
}

/// How many blocks more there are than before: what is kept, without blocks from before that were
/// freed.
fn net(heap: &Heap) -> String {
    let (kept, gone) = (heap.live_blocks, heap.unmatched_frees);
    let (sign, more) = match kept >= gone {
        true => ("+", kept - gone),
        false => ("-", gone - kept),
    };
    let more = format!("{sign}{}", count(more, "block"));
    match gone {
        0 => more,
        gone => format!(
            "{more}: {} kept, {} from before freed",
            grouped(kept),
            grouped(gone)
        ),
    }
}

fn end(exit: Option<Exit>) -> String {
    match exit {
        None => String::new(),
        Some(Exit::Code(code)) => format!(", exited with {code}"),
        Some(Exit::Signal(signal)) => format!(", killed by signal {signal}"),
    }
}
