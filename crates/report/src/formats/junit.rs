//! Results of tests, as JUnit's are: each leak is a test that has failed.

use std::io::{self, BufWriter, Write};

use super::findings::{Finding, Leaks};
use super::frames::{stack, titles};
use super::text::what_is_left;
use super::xml::escaped;
use crate::{Format, Report};

/// A suite a process. One that has no leak has a test that has passed, or, where not all was seen,
/// was skipped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Junit<'a> {
    /// Which sites are leaks.
    pub leaks: Leaks<'a>,
}

impl Format for Junit<'_> {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
        writeln!(out, "<testsuites name=\"leaktap\">")?;
        for report in reports {
            self.suite(report, &mut out)?;
        }
        writeln!(out, "</testsuites>")?;
        out.flush()
    }
}

impl Junit<'_> {
    fn suite(&self, report: &Report, out: &mut impl Write) -> io::Result<()> {
        let findings = self.leaks.of(report);
        let program = escaped(&report.target.program);
        let is_blind = findings.is_empty() && report.totals.lost_events > 0;
        writeln!(
            out,
            "<testsuite name=\"leaktap: {program}\" tests=\"{}\" failures=\"{}\" errors=\"0\" \
             skipped=\"{}\" time=\"{:.3}\">",
            findings.len().max(1),
            findings.len(),
            u32::from(is_blind),
            report.duration
        )?;
        let titles = titles(report.tables());
        for finding in &findings {
            leak(report, finding, &titles, out)?;
        }
        if findings.is_empty() {
            let left = what_is_left(report, &report.sites);
            let skipped = match is_blind {
                true => format!("<skipped message=\"{}\"/>", escaped(&left)),
                false => String::new(),
            };
            writeln!(
                out,
                "<testcase classname=\"{program}\" name=\"leaks\" time=\"{:.3}\">{skipped}\
                 </testcase>",
                report.duration
            )?;
        }
        writeln!(out, "</testsuite>")
    }
}

fn leak(
    report: &Report,
    finding: &Finding<'_>,
    titles: &[String],
    out: &mut impl Write,
) -> io::Result<()> {
    let position = match (&finding.file, finding.line) {
        (Some(file), Some(line)) => format!(" {file}:{line}"),
        (Some(file), None) => format!(" {file}"),
        (None, _) => String::new(),
    };
    let name = format!("{}{position}", finding.function);
    let mut stack: Vec<_> = stack(finding.site, titles).collect();
    stack.reverse();
    writeln!(
        out,
        "<testcase classname=\"{}\" name=\"{}\">",
        escaped(&report.target.program),
        escaped(&name)
    )?;
    writeln!(
        out,
        "<failure type=\"{}\" message=\"{}\">",
        finding.site.kind.name(),
        escaped(&finding.message)
    )?;
    for frame in stack {
        writeln!(out, "{}", escaped(frame))?;
    }
    writeln!(out, "</failure>\n</testcase>")
}
