//! What the page has of the course of a trace. Of a difference it has nothing: the trace before has
//! another time.

use super::columns::{Moments, Peak, PeakSites, Series};
use super::tables::{Tables, numbered};
use crate::{Moment, Report};

/// The time line.
pub(super) fn moments(report: &Report) -> Moments {
    if report.compared.is_some() {
        return Moments::default();
    }
    let moments = report.timeline.iter();
    let rss = |moment: &Moment| moment.rss.saturating_sub(moment.agent);
    Moments {
        at: moments.clone().map(|moment| moment.at).collect(),
        live: moments.clone().map(|moment| moment.live_bytes).collect(),
        rss: moments.map(rss).collect(),
    }
}

/// The bytes that sites had.
pub(super) fn series(report: &Report) -> Series {
    let mut series = Series::default();
    let sites = report.sites.iter().filter(|_| report.compared.is_none());
    for (number, site) in (0..).zip(sites) {
        if !site.series.is_empty() && site.series.len() == report.series_at.len() {
            series.site.push(number);
            series.bytes.extend(&site.series);
        }
    }
    if !series.site.is_empty() {
        series.at.clone_from(&report.series_at);
    }
    series
}

/// What lived when most did. `frames` are the numbers of the report's frames.
pub(super) fn peak(report: &Report, frames: &[u32], tables: &mut Tables<'_>) -> Option<Peak> {
    let peak = report.peak.as_ref();
    let peak = peak.filter(|_| report.compared.is_none())?;
    let mut sites = PeakSites::default();
    for site in &peak.sites {
        let stack = site.frames.iter().filter_map(|&id| numbered(frames, id));
        sites.function.push(tables.text(&site.function));
        sites.bytes.push(site.bytes);
        sites.frames.push(stack.collect());
    }
    Some(Peak {
        at: peak.at,
        bytes: peak.live_bytes,
        sites,
    })
}
