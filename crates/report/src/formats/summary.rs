//! What a program or a person in a hurry has to know: a small JSON object.

mod cut;
mod next;

use std::io::{self, Write};

use serde::Serialize;

use self::cut::cut;
use self::next::next;
use super::frames::title;
use super::json;
use super::text::what_is_left;
use crate::selection::is_growing;
use crate::{Exit, Format, Growth, Mode, ProbeKind, Report, Site};

/// One object of at most 4 KiB: of several processes, that of their sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary<'a> {
    /// The processes that the report sums up, if there are several.
    pub of: &'a [Report],
}

/// So many sites.
const SITES: usize = 5;

/// Most bytes of a name, and of a longer text.
const NAME: usize = 120;
const TEXT: usize = 300;

#[derive(Serialize)]
struct Object {
    leaktap: String,
    program: String,
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<usize>,
    exit: Option<Exit>,
    seconds: f64,
    verdict: Verdict,
    left: String,
    sites: Vec<Listed>,
    more_sites: usize,
    confidence: Confidence,
    next: Option<String>,
}

/// In a word.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// A site is proven to grow.
    Growing,
    /// Something is left, of which no more is known.
    Unfreed,
    /// Nothing is left, and each call was seen.
    Clean,
    /// Nothing is left of what was seen.
    Unknown,
}

#[derive(Serialize)]
struct Listed {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    course: Option<&'static str>,
    blocks: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<f64>,
    oldest: f64,
    culprit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    function: String,
}

/// What there is to be known of how much was seen.
#[derive(Serialize)]
struct Confidence {
    lost_events: u64,
    truncated_stacks: u64,
    suppressed_blocks: u64,
    suppressed_bytes: u64,
    unwatched_functions: usize,
    notes: usize,
}

impl Format for Summary<'_> {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        for report in reports {
            json::write(&self.object(report), out)?;
        }
        Ok(())
    }
}

impl Summary<'_> {
    fn object(&self, report: &Report) -> Object {
        let of = match self.of {
            [] => std::slice::from_ref(report),
            several => several,
        };
        let first = of.first().unwrap_or(report);
        let verdict = verdict(report);
        let sites = report.sites.iter().take(SITES);
        Object {
            leaktap: cut(&report.leaktap, NAME),
            program: cut(&first.target.program, TEXT),
            pid: first.target.pid,
            processes: Some(of.len()).filter(|&processes| processes > 1),
            exit: first.target.exit,
            seconds: report.duration,
            verdict,
            left: cut(&what_is_left(report, &report.sites), TEXT),
            sites: sites.map(|site| listed(report, site)).collect(),
            more_sites: report.sites.len().saturating_sub(SITES),
            confidence: confidence(report, of),
            next: next(first, verdict),
        }
    }
}

fn verdict(report: &Report) -> Verdict {
    match report.sites.is_empty() {
        _ if report.sites.iter().any(is_growing) => Verdict::Growing,
        false => Verdict::Unfreed,
        true if report.totals.heap.live_blocks > 0 => Verdict::Unfreed,
        true if report.doubt().is_some() || has_done_nothing(report) => Verdict::Unknown,
        true => Verdict::Clean,
    }
}

/// Nothing was allocated while it was looked at.
fn has_done_nothing(report: &Report) -> bool {
    report.mode != Mode::Run && report.totals.heap.allocations == 0
}

fn listed(report: &Report, site: &Site) -> Listed {
    let culprit = site.culprit.or(site.frames.first().copied());
    let place = culprit.and_then(|id| report.tables().place(id));
    let frame = place.map(|place| place.frame);
    let growth = site.growth.as_ref();
    Listed {
        kind: site.kind.name(),
        course: growth.and_then(Growth::word),
        blocks: site.blocks,
        bytes: site.bytes,
        bytes_per_second: growth.and_then(|growth| growth.bytes_per_second),
        oldest: site.oldest,
        culprit: place.map(|place| cut(&title(&place), NAME)),
        file: frame.and_then(|frame| Some(cut(frame.file.as_deref()?, NAME))),
        line: frame.and_then(|frame| frame.line),
        function: cut(&site.function, NAME / 2),
    }
}

fn confidence(report: &Report, of: &[Report]) -> Confidence {
    let probes = of.iter().flat_map(|report| &report.probes);
    let unwatched = probes.filter(|probe| probe.kind == ProbeKind::None);
    Confidence {
        lost_events: report.totals.lost_events,
        truncated_stacks: report.totals.truncated_stacks,
        suppressed_blocks: report.totals.suppressed_blocks,
        suppressed_bytes: report.totals.suppressed_bytes,
        unwatched_functions: unwatched.count(),
        notes: of.iter().map(|report| report.notes.len()).sum(),
    }
}
