//! Stacks as flamegraph.pl and its kin read them: a line each, `main;work;leak 192`, in bytes.

use std::io::{self, BufWriter, Write};

use super::frames::{stack, titles};
use crate::{Format, Report, Site};

/// A line for each stack, with its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Folded;

impl Format for Folded {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        for line in reports.iter().flat_map(|report| lines(report, u64::MAX)) {
            writeln!(out, "{line}")?;
        }
        out.flush()
    }
}

/// The lines of a report, of at most so many bytes in all: no more is counted.
pub(super) fn lines(report: &Report, most: u64) -> Vec<String> {
    let titles: Vec<_> = titles(report.tables())
        .iter()
        .map(|title| foldable(title))
        .collect();
    let mut left = most;
    let line = |site: &Site| {
        let frames: Vec<_> = stack(site, &titles).collect();
        let bytes = site.bytes.min(left);
        if most < u64::MAX {
            left -= bytes;
        }
        format!("{} {bytes}", frames.join(";"))
    };
    report.sites.iter().map(line).collect()
}

/// A name without what its reader would take for the end of a frame, a comment, or another number.
fn foldable(name: &str) -> String {
    let name = name.trim().replace(';', ":");
    let name = match name.strip_prefix("# ") {
        Some(rest) => format!("#_{rest}"),
        None => name,
    };
    match name.rsplit_once(' ') {
        Some((before, number)) if number.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("{before}_{number}")
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::text::tests::{add, frame, report};

    #[test]
    fn names_end_neither_frames_nor_lines() {
        let mut odd = report();
        for name in ["f;g\nh", "f 12", "# f ", "operator new(unsigned long)"] {
            let frames = [frame(name, "a.c", 1), frame("main", "a.c", 2)];
            add(&mut odd, &frames, &[(1.0, 1, 10)]);
        }
        odd.sites[1].truncated = Some("no frame".to_owned());
        odd.sites[2].frames.truncate(1);
        odd.sites[3].frames.clear();
        let expected = [
            "main;f:g\\nh 10",
            "[truncated];main;f_12 10",
            "#_f 10",
            "[no stack] 10",
        ];
        assert_eq!(lines(&odd, u64::MAX), expected);
    }
}
