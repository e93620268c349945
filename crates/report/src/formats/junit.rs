//! Results of tests, as JUnit's are: each leak is a test that has failed.

use std::io::{self, BufWriter, Write};

use super::findings::{Finding, Leaks};
use super::frames::{stack, titles};
use super::text::what_is_left;
use super::xml::escaped;
use crate::sight::unwatched;
use crate::{Format, Report};

/// A suite a process. One that has no leak has a test that has passed; where not all was seen, it
/// is an error, or, if other processes of the trace were seen, was skipped.
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
            let is_seen = report.totals.lost_events == 0 && unwatched(reports).is_none();
            self.suite(report, is_seen, &mut out)?;
        }
        writeln!(out, "</testsuites>")?;
        out.flush()
    }
}

impl Junit<'_> {
    /// `is_seen` if enough of the trace was seen.
    fn suite(&self, report: &Report, is_seen: bool, out: &mut impl Write) -> io::Result<()> {
        let findings = self.leaks.of(report);
        let program = escaped(&report.target.program);
        let is_doubtful = findings.is_empty() && report.doubt().is_some();
        let outcome = match is_seen {
            true => "skipped",
            false => "error",
        };
        writeln!(
            out,
            "<testsuite name=\"leaktap: {program}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" \
             skipped=\"{}\" time=\"{:.3}\">",
            findings.len().max(1),
            findings.len(),
            u32::from(is_doubtful && !is_seen),
            u32::from(is_doubtful && is_seen),
            report.duration
        )?;
        properties(report, out)?;
        let titles = titles(report.tables());
        for finding in &findings {
            leak(report, finding, &titles, out)?;
        }
        if findings.is_empty() {
            let left = what_is_left(report, &report.sites);
            let outcome = match is_doubtful {
                true => format!("<{outcome} message=\"{}\"/>", escaped(&left)),
                false => String::new(),
            };
            writeln!(
                out,
                "<testcase classname=\"{program}\" name=\"leaks\" time=\"{:.3}\">{outcome}\
                 </testcase>",
                report.duration
            )?;
        }
        writeln!(out, "</testsuite>")
    }
}

/// What is suppressed.
fn properties(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let totals = &report.totals;
    if totals.suppressed_blocks == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "<properties>\n<property name=\"suppressed_blocks\" value=\"{}\"/>\n\
         <property name=\"suppressed_bytes\" value=\"{}\"/>\n</properties>",
        totals.suppressed_blocks, totals.suppressed_bytes
    )
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
