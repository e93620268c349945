//! Stacks for <https://www.speedscope.app>: of each process two profiles, bytes and blocks.

use std::io::{self, Write};

use serde::Serialize;

use super::frames::{NO_STACK, TRUNCATED, title};
use super::json;
use super::text::and_suppressed;
use crate::names::printable;
use crate::{Format, FrameId, Report, Site};

/// What speedscope opens: its own format, a JSON object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speedscope;

#[derive(Serialize)]
struct File {
    #[serde(rename = "$schema")]
    schema: &'static str,
    name: String,
    exporter: String,
    shared: Shared,
    profiles: Vec<Profile>,
}

#[derive(Default, Serialize)]
struct Shared {
    frames: Vec<Frame>,
}

#[derive(Serialize)]
struct Frame {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    /// The numbers of frames, outermost first.
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

impl Format for Speedscope {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut shared = Shared::default();
        let no_stack = shared.add(NO_STACK);
        let truncated = shared.add(TRUNCATED);
        let mut profiles = Vec::new();
        for report in reports {
            let numbers = shared.add_all(report);
            let samples = |site: &Site| {
                let number = |FrameId(id): &FrameId| numbers.get(*id as usize).copied().flatten();
                let frames = site.frames.iter().rev().filter_map(number);
                let cut = site.truncated.as_ref().map(|_| truncated);
                let empty = site.frames.is_empty().then_some(no_stack);
                cut.into_iter().chain(frames).chain(empty).collect()
            };
            let samples: Vec<Vec<usize>> = report.sites.iter().map(samples).collect();
            profiles.push(profile(report, "bytes", &samples, |site| site.bytes));
            profiles.push(profile(report, "blocks", &samples, |site| site.blocks));
        }
        let first = reports.first();
        let file = File {
            schema: "https://www.speedscope.app/file-format-schema.json",
            name: first.map(name).unwrap_or_default(),
            exporter: format!(
                "leaktap@{}",
                first.map_or("", |report| report.leaktap.as_str())
            ),
            shared,
            profiles,
        };
        json::write(&file, out)
    }
}

fn name(report: &Report) -> String {
    let target = &report.target;
    format!("{} ({})", printable(&target.program), target.pid)
}

fn profile(
    report: &Report,
    what: &'static str,
    samples: &[Vec<usize>],
    weight: fn(&Site) -> u64,
) -> Profile {
    let weights: Vec<_> = report.sites.iter().map(weight).collect();
    let suppressed = and_suppressed(", ", report);
    Profile {
        kind: "sampled",
        name: format!("{}: {what} not freed{suppressed}", name(report)),
        unit: if what == "bytes" { "bytes" } else { "none" },
        start_value: 0,
        end_value: weights
            .iter()
            .fold(0, |sum, weight| sum.saturating_add(*weight)),
        samples: samples.to_vec(),
        weights,
    }
}

impl Shared {
    fn add(&mut self, name: &str) -> usize {
        self.frames.push(Frame {
            name: name.to_owned(),
            file: None,
            line: None,
        });
        self.frames.len() - 1
    }

    /// The frames that stacks of `report` have. Returns their numbers here.
    fn add_all(&mut self, report: &Report) -> Vec<Option<usize>> {
        let mut numbers = vec![None; report.frames.len()];
        for FrameId(id) in report.sites.iter().flat_map(|site| &site.frames) {
            let place = report.tables().place(FrameId(*id));
            if let (Some(number @ None), Some(place)) = (numbers.get_mut(*id as usize), place) {
                *number = Some(self.frames.len());
                let file = place.frame.file.as_deref();
                self.frames.push(Frame {
                    name: title(&place),
                    file: file.map(|file| printable(file).into_owned()),
                    line: place.frame.line.filter(|_| file.is_some()),
                });
            }
        }
        numbers
    }
}
