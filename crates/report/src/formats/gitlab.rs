//! GitLab's code quality report: a JSON list.

use std::io::{self, Write};

use serde::Serialize;

use super::findings::{Finding, Leaks, hash};
use super::json;
use crate::names::printable;
use crate::{Format, Report};

/// An entry for each leak, and one where not all was seen: an empty list would say that all is
/// well.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gitlab<'a> {
    /// Which sites are leaks.
    pub leaks: Leaks<'a>,
}

#[derive(Serialize)]
struct Entry {
    description: String,
    check_name: String,
    fingerprint: String,
    severity: &'static str,
    location: Location,
}

#[derive(Serialize)]
struct Location {
    path: String,
    lines: Lines,
}

#[derive(Serialize)]
struct Lines {
    begin: u32,
}

impl Format for Gitlab<'_> {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let entries = reports.iter().flat_map(|report| {
            let findings = self.leaks.of(report).into_iter();
            findings.map(entry).chain(doubt(report))
        });
        json::write(&entries.collect::<Vec<_>>(), out)
    }
}

/// That not all was seen.
fn doubt(report: &Report) -> Option<Entry> {
    let doubt = report.doubt()?;
    let program = printable(&report.target.program).into_owned();
    Some(Entry {
        description: format!("leaks of {program} are not known: {doubt}"),
        check_name: "leaktap/unknown".to_owned(),
        fingerprint: hash(&format!("unknown:{program}")),
        severity: "blocker",
        location: Location {
            path: program,
            lines: Lines { begin: 1 },
        },
    })
}

/// GitLab takes no entry without a place: one without a source is at the first line of its module.
fn entry(finding: Finding<'_>) -> Entry {
    let module = printable(finding.module.unwrap_or("unknown")).into_owned();
    let begin = finding.line.filter(|_| finding.file.is_some());
    Entry {
        description: finding.message,
        check_name: format!("leaktap/{}", finding.site.kind.name()),
        fingerprint: finding.fingerprint,
        severity: if finding.is_growing {
            "critical"
        } else {
            "major"
        },
        location: Location {
            path: finding.file.unwrap_or(module),
            lines: Lines {
                begin: begin.unwrap_or(1).max(1),
            },
        },
    }
}
