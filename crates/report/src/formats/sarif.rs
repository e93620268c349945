//! SARIF 2.1.0, as GitHub's code scanning and others take it.

mod model;

use std::collections::BTreeSet;
use std::io::{self, Write};

use self::model::{
    ArtifactLocation, Driver, Frame, Invocation, Left, Location, Log, LogicalLocation, Message,
    Notification, PhysicalLocation, Properties, Region, Rule, Run, SarifResult, Stack, Tool,
};
use super::findings::{Finding, Leaks};
use super::frames::title;
use super::json;
use super::text::what_is_left;
use crate::names::printable;
use crate::{Exit, Format, Place, Report};

/// A run a report, a result a leak.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sarif<'a> {
    /// Which sites are leaks.
    pub leaks: Leaks<'a>,
}

impl Format for Sarif<'_> {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let log = Log {
            schema: "https://json.schemastore.org/sarif-2.1.0.json",
            version: "2.1.0",
            runs: reports.iter().map(|report| self.run(report)).collect(),
        };
        json::write(&log, out)
    }
}

impl Sarif<'_> {
    fn run(&self, report: &Report) -> Run {
        let findings = self.leaks.of(report);
        let kinds = findings.iter().map(|finding| finding.site.kind);
        let rules = kinds.collect::<BTreeSet<_>>().into_iter().map(|kind| Rule {
            id: rule(kind.name()),
            short_description: message(format!("Memory that is not freed: {}", kind.name())),
        });
        Run {
            tool: Tool {
                driver: Driver {
                    name: "leaktap",
                    version: printable(&report.leaktap).into_owned(),
                    rules: rules.collect(),
                },
            },
            invocations: [Invocation {
                execution_successful: report.doubt().is_none(),
                tool_execution_notifications: report
                    .doubt()
                    .map(notification)
                    .into_iter()
                    .collect(),
                exit_code: match report.target.exit {
                    Some(Exit::Code(code)) => Some(code),
                    _ => None,
                },
                command_line: super::frames::command_line(report),
            }],
            properties: Left {
                left: printable(&what_is_left(report, &report.sites)).into_owned(),
                suppressed_blocks: report.totals.suppressed_blocks,
                suppressed_bytes: report.totals.suppressed_bytes,
            },
            results: findings
                .iter()
                .map(|finding| self.result(report, finding))
                .collect(),
        }
    }

    fn result(&self, report: &Report, finding: &Finding<'_>) -> SarifResult {
        let place = finding.file.as_ref().map(|file| PhysicalLocation {
            artifact_location: ArtifactLocation { uri: uri(file) },
            region: finding.line.filter(|&line| line > 0).map(region),
        });
        let frames = report.tables().places(&finding.site.frames);
        let frames = frames.take(MOST_FRAMES).map(|place| self.frame(&place));
        SarifResult {
            rule_id: rule(finding.site.kind.name()),
            level: if finding.is_growing {
                "error"
            } else {
                "warning"
            },
            message: message(finding.message.clone()),
            locations: [Location {
                physical_location: place,
                logical_locations: [logical(finding.function.clone())],
            }],
            stacks: [Stack {
                frames: frames.collect(),
            }],
            partial_fingerprints: [("leaktap/v2", finding.fingerprint.clone())].into(),
            properties: Properties {
                bytes: finding.site.bytes,
                blocks: finding.site.blocks,
            },
        }
    }

    fn frame(&self, place: &Place<'_>) -> Frame {
        let file = place.frame.file.as_deref();
        let physical_location = file.map(|file| PhysicalLocation {
            artifact_location: ArtifactLocation {
                uri: uri(&self.leaks.path(file)),
            },
            region: place.frame.line.filter(|&line| line > 0).map(region),
        });
        Frame {
            location: Location {
                physical_location,
                logical_locations: [logical(title(place))],
            },
        }
    }
}

/// What GitHub keeps of a stack.
const MOST_FRAMES: usize = 100;

fn rule(kind: &str) -> String {
    format!("leaktap/{kind}")
}

fn message(text: String) -> Message {
    Message { text }
}

/// That not all was seen.
fn notification(doubt: String) -> Notification {
    Notification {
        level: "error",
        message: message(doubt),
    }
}

fn region(start_line: u32) -> Region {
    Region { start_line }
}

fn logical(fully_qualified_name: String) -> LogicalLocation {
    LogicalLocation {
        fully_qualified_name,
    }
}

/// A path as a URI, RFC 3986.
fn uri(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/+".contains(&byte);
    let scheme = if path.starts_with('/') { "file://" } else { "" };
    let mut uri = scheme.to_owned();
    for byte in path.bytes() {
        match is_plain(byte) {
            true => uri.push(char::from(byte)),
            false => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_uris() {
        assert_eq!(uri("src/a b.c"), "src/a%20b.c");
        assert_eq!(uri("/x/ü#1"), "file:///x/%C3%BC%231");
        assert_eq!(uri("c:d"), "c%3Ad");
    }
}
