//! Annotations of GitHub Actions: lines that a step prints.

use std::io::{self, BufWriter, Write};

use super::findings::Leaks;
use super::text::what_is_left;
use crate::names::printable;
use crate::{Format, Report};

/// A `::warning` for each leak, an `::error` for what grows, and a `::notice` that says what is
/// left of each process: an `::error`, where not all was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Github<'a> {
    /// Which sites are leaks.
    pub leaks: Leaks<'a>,
}

impl Format for Github<'_> {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        for report in reports {
            for finding in self.leaks.of(report) {
                let level = if finding.is_growing {
                    "error"
                } else {
                    "warning"
                };
                let file = finding.file.as_deref();
                let file = file.map(|file| format!("file={},", property(file)));
                let line = finding.line.filter(|_| file.is_some());
                let line = line.map(|line| format!("line={line},"));
                let (file, line) = (file.unwrap_or_default(), line.unwrap_or_default());
                let title = property(&format!("leaktap: {}", finding.function));
                let message = data(&finding.message);
                writeln!(out, "::{level} {file}{line}title={title}::{message}")?;
            }
            let left = data(&printable(&what_is_left(report, &report.sites)));
            let title = property(&format!("leaktap: {}", printable(&report.target.program)));
            let level = match report.doubt() {
                Some(_) => "error",
                None => "notice",
            };
            writeln!(out, "::{level} title={title}::{left}")?;
        }
        out.flush()
    }
}

/// Escaped as GitHub's toolkit does it.
fn data(text: &str) -> String {
    let text = text.replace('%', "%25");
    text.replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_commands() {
        assert_eq!(property("a::b, 5%"), "a%3A%3Ab%2C 5%25");
        assert_eq!(data("x\n::error::y"), "x%0A::error::y");
    }
}
