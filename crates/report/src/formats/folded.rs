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
        for report in reports {
            let titles = foldable_titles(report);
            for site in &report.sites {
                for (number, frame) in stack(site, &titles).enumerate() {
                    let separator = if number > 0 { ";" } else { "" };
                    write!(out, "{separator}{frame}")?;
                }
                writeln!(out, " {}", numbers(site, u64::MAX))?;
            }
        }
        out.flush()
    }
}

/// The names of all frames, by their numbers.
pub(super) fn foldable_titles(report: &Report) -> Vec<String> {
    let titles = titles(report.tables());
    titles.iter().map(|title| foldable(title)).collect()
}

/// The numbers behind a stack: of a difference both, as difffolded.pl has them.
pub(super) fn numbers(site: &Site, most: u64) -> String {
    let now = site.bytes.min(most);
    match site.before {
        Some(before) => format!("{} {now}", before.bytes.min(most)),
        None => now.to_string(),
    }
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
        let mut written = Vec::new();
        Folded.write(&[odd], &mut written).unwrap();
        let expected = "main;f:g\\nh 10\n[truncated];main;f_12 10\n#_f 10\n[no stack] 10\n";
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }
}
