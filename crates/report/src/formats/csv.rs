//! A table for spreadsheets: RFC 4180, a row a site.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use super::frames::{stack, title, titles};
use crate::names::printable;
use crate::{Format, Growth, Report, Site, Source};

/// A row for each site of each process, and one with the names of the columns before them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Csv;

const COLUMNS: &str = "pid,program,kind,source,family,function,blocks,bytes,allocated_blocks,\
    allocated_bytes,youngest_seconds,oldest_seconds,course,bytes_per_second,culprit,file,line,\
    module,change,blocks_more,bytes_more,stack";

impl Format for Csv {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        writeln!(out, "{COLUMNS}")?;
        for report in reports {
            let titles = titles(report.tables());
            let titles: Vec<_> = titles.iter().map(|title| doubled(title)).collect();
            for site in &report.sites {
                row(report, site, &titles, &mut out)?;
            }
        }
        out.flush()
    }
}

fn row(report: &Report, site: &Site, titles: &[String], out: &mut impl Write) -> io::Result<()> {
    let culprit = site.culprit.or(site.frames.first().copied());
    let place = culprit.and_then(|id| report.tables().place(id));
    let frame = place.map(|place| place.frame);
    let growth = site.growth.as_ref();
    let source = match site.source {
        Source::Heap => "heap",
        Source::Mapping => "mapping",
        Source::Before => "before",
    };
    let mut stack: Vec<_> = stack(site, titles).collect();
    stack.reverse();
    let cells = [
        report.target.pid.to_string(),
        text(&report.target.program),
        text(site.kind.name()),
        text(source),
        text(site.family.as_deref().unwrap_or_default()),
        text(&site.function),
        site.blocks.to_string(),
        site.bytes.to_string(),
        number(site.allocated_blocks),
        number(site.allocated_bytes),
        site.youngest.to_string(),
        site.oldest.to_string(),
        text(growth.and_then(Growth::word).unwrap_or_default()),
        number(growth.and_then(|growth| growth.bytes_per_second)),
        text(&place.map(|place| title(&place)).unwrap_or_default()),
        text(
            frame
                .and_then(|frame| frame.file.as_deref())
                .unwrap_or_default(),
        ),
        number(frame.and_then(|frame| frame.line)),
        text(
            place
                .and_then(|place| place.module)
                .map_or("", |module| module.path.as_str()),
        ),
        text(site.change.map_or("", |change| change.kind.name())),
        number(site.change.map(|change| change.blocks)),
        number(site.change.map(|change| change.bytes)),
    ];
    write!(out, "{}", cells.join(","))?;
    // It is most of the row.
    let mut before = ",\"";
    if stack.first().is_some_and(|frame| is_formula(frame)) {
        before = ",\"'";
    }
    for frame in stack {
        write!(out, "{before}{frame}")?;
        before = " < ";
    }
    writeln!(out, "\"")
}

/// Empty where it is not known.
fn number<N: ToString>(number: Option<N>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// Text in quotes, which a spreadsheet does not take for a formula.
fn text(text: &str) -> String {
    let text = printable(text);
    let text = match is_formula(&text) {
        true => Cow::Owned(format!("'{text}")),
        false => text,
    };
    match text.contains([',', '"', ' ', '\'', ';']) {
        true => format!("\"{}\"", doubled(&text)),
        false => text.into_owned(),
    }
}

fn is_formula(text: &str) -> bool {
    text.trim_start()
        .starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// As text in quotes has quotes.
fn doubled(text: &str) -> String {
    text.replace('"', "\"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_or_two_cells() {
        for (name, expected) in [
            ("main", "main"),
            ("f(int, char)", "\"f(int, char)\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=HYPERLINK(1)", "\"'=HYPERLINK(1)\""),
            (" @SUM(A1)", "\"' @SUM(A1)\""),
            ("-1", "\"'-1\""),
            ("a\nb", "a\\nb"),
            ("", ""),
        ] {
            assert_eq!(text(name), expected);
        }
    }
}
