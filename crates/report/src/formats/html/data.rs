//! All that the page shows.

use std::collections::{BTreeMap, HashMap};
use std::slice;

use serde::Serialize;

use super::Html;
use super::columns::{Compared, Nodes, Process, Sites, Stacks};
use super::course::{moments, peak, series};
use super::tables::{Tables, numbered};
use crate::formats::text::{Style, all_notes, heading, pieces, process, summary, what_is_left};
use crate::names::{last_part, printable};

use crate::reading::Reading;
use crate::{Age, Amount, Growth, Mode, Probe, Report, Site, Source};

/// Parts that the time is divided in: as many as can be told apart with a mouse.
const PARTS: u32 = 200;

/// What is in the page's element of JSON.
#[derive(Debug, Serialize)]
pub(super) struct Data<'a> {
    leaktap: String,
    started: String,
    tables: Tables<'a>,
    /// The sum comes first, if there is one.
    processes: Vec<Process>,
}

impl<'a> Data<'a> {
    pub(super) fn of(reports: &[Report], page: &Html<'a>) -> Data<'a> {
        let mut tables = Tables::new(page.excerpts);
        let sum = page.all.map(|all| {
            let title = format!("All {}", many(reports.len()));
            of_report(all, title.clone(), title, &mut tables)
        });
        let mut processes: Vec<_> = sum.into_iter().collect();
        for report in reports {
            let program = last_part(&report.target.program);
            let name = printable(&format!("{program} ({})", report.target.pid)).into_owned();
            processes.push(of_report(report, name, title(report), &mut tables));
        }
        let first = reports.first();
        let text = |of: fn(&Report) -> &str| printable(first.map_or("", of)).into_owned();
        Data {
            leaktap: text(|report| &report.leaktap),
            started: text(|report| &report.started),
            tables,
            processes,
        }
    }
}

fn many(processes: usize) -> String {
    match processes {
        1 => "1 process".to_owned(),
        more => format!("{more} processes"),
    }
}

/// What it is.
fn title(report: &Report) -> String {
    match &report.compared {
        Some(before) => {
            let times = format!("What has changed since {}", before.started);
            printable(&times).into_owned()
        }
        None => process(report),
    }
}

fn of_report(report: &Report, name: String, title: String, tables: &mut Tables<'_>) -> Process {
    let reading = Reading::of(report, false);
    let frames = tables.frames(report, reading);
    let mut rows = Rows {
        report,
        known: HashMap::new(),
        process: Process {
            name,
            title,
            verdict: what_is_left(report, &report.sites),
            about: about(report, reading),
            notes: all_notes(report),
            probes: report.probes.iter().map(probe).collect(),
            suppressed: report.suppressions.iter().map(pieces).collect(),
            duration: report.duration,
            compared: report.compared.as_ref().map(|before| Compared {
                // What runs to its end takes as long as it takes.
                duration: (report.mode == Mode::Attach).then_some(before.duration),
            }),
            moments: moments(report),
            series: series(report),
            peak: peak(report, &frames, tables),
            parts: PARTS,
            ..Process::default()
        },
        frames,
        tables,
    };
    rows.node(0, 0);
    report.sites.iter().for_each(|site| rows.site(site));
    let stacks = &mut rows.process.stacks;
    if stacks.allocated.iter().all(Option::is_none) {
        stacks.allocated.clear();
    }
    rows.process
}

/// The lines that a report in text begins with, but for the title.
fn about(report: &Report, reading: Reading<'_>) -> Vec<(String, String)> {
    let mut text = Vec::new();
    let style = Style::default();
    // There is no error but the writer's.
    let _ = match &report.compared {
        Some(before) => heading(report, before, style, &mut text),
        None => summary(report, reading, style, &mut text),
    };
    let text = String::from_utf8_lossy(&text);
    let title = usize::from(report.compared.is_none());
    let lines = text.lines().skip(title).map(|line| {
        let line = line.trim();
        let (name, value) = line.split_once("  ").unwrap_or((line, ""));
        // The page draws these itself.
        let value = match name {
            "RSS" | "live" => value.rsplit_once("  ").map_or(value, |(_, value)| value),
            _ => value,
        };
        (name.to_owned(), value.trim().to_owned())
    });
    let args = report.target.args.join(" ");
    let command = ("command".to_owned(), printable(&args).into_owned());
    let is_one = report.compared.is_none();
    let command = (is_one && !args.is_empty()).then_some(command);
    command.into_iter().chain(lines).collect()
}

fn probe(probe: &Probe) -> [String; 4] {
    let reason = probe.reason.as_deref().unwrap_or_default();
    let texts = [&probe.function, probe.kind.name(), &probe.module, reason];
    texts.map(|text| printable(text).into_owned())
}

/// Fills the columns of a process.
struct Rows<'a, 't> {
    report: &'a Report,
    tables: &'a mut Tables<'t>,
    /// By the report's numbers.
    frames: Vec<u32>,
    /// Nodes, by caller and frame.
    known: HashMap<(u32, u32), u32>,
    process: Process,
}

/// Sites of the same node.
#[derive(Default)]
struct Sum {
    blocks: u64,
    bytes: u64,
    /// Nothing is known of them all if it is not of one.
    allocated: Option<u64>,
    ages: Vec<Age>,
    before: Amount,
}

impl Rows<'_, '_> {
    fn site(&mut self, site: &Site) {
        let stacks = self.stacks(site);
        let first = site.culprit.or(site.frames.first().copied());
        let frame = first.and_then(|id| numbered(&self.frames, id));
        let growth = site.growth.as_ref();
        let pattern = growth.and_then(Growth::word).unwrap_or_default();
        let text = growth.and_then(|growth| growth.text.as_deref());
        let family = site.family.as_deref();
        let family = family.filter(|_| !self.report.families.is_empty());
        let function = match family {
            Some(family) => format!("{} of {family}", site.function),
            None => site.function.clone(),
        };
        let tables = &mut *self.tables;
        let sites: &mut Sites = &mut self.process.sites;
        sites.kind.push(tables.text(site.kind.name()));
        sites.region.push((site.source == Source::Mapping).into());
        sites.function.push(tables.text(&function));
        sites.growth.push(tables.text(pattern));
        sites.growing.push(tables.text(text.unwrap_or(pattern)));
        sites.frame.push(frame.map_or(0, |frame| frame + 1));
        sites.blocks.push(site.blocks);
        sites.bytes.push(site.bytes);
        if self.report.compared.is_some() {
            let change = site.change.map_or("", |change| change.kind.name());
            sites.change.push(tables.text(change));
            sites.before.push(site.before.unwrap_or_default());
        }
        sites.youngest.push(site.youngest);
        sites.oldest.push(site.oldest);
        sites.stacks.push(stacks);
    }

    /// Adds the stacks of a site, and says how many they are.
    fn stacks(&mut self, site: &Site) -> u32 {
        let members = match &site.members[..] {
            [] => slice::from_ref(site),
            members => members,
        };
        let mut sums: BTreeMap<u32, Sum> = BTreeMap::new();
        for member in members {
            let node = self.leaf(member);
            let new = || Sum {
                allocated: Some(0),
                ..Sum::default()
            };
            let sum = sums.entry(node).or_insert_with(new);
            sum.blocks = sum.blocks.saturating_add(member.blocks);
            sum.bytes = sum.bytes.saturating_add(member.bytes);
            let allocated = sum.allocated.zip(member.allocated_bytes);
            sum.allocated = allocated.map(|(sum, one)| sum.saturating_add(one));
            let before = member.before.unwrap_or_default();
            sum.before.add(before.blocks, before.bytes);
            // A difference has no ages: of what was there before none are known.
            if self.report.compared.is_none() {
                sum.ages.extend(&member.ages);
            }
        }
        let count = sums.len() as u32;
        for (node, sum) in sums {
            let ages = self.ages(&sum.ages);
            let stacks: &mut Stacks = &mut self.process.stacks;
            stacks.node.push(node);
            stacks.blocks.push(sum.blocks);
            stacks.bytes.push(sum.bytes);
            if self.report.compared.is_some() {
                stacks.before.push(sum.before);
            }
            stacks.allocated.push(sum.allocated);
            stacks.ages.push(ages);
        }
        count
    }

    /// The node of the innermost frame of a stack.
    fn leaf(&mut self, site: &Site) -> u32 {
        let mut node = 0;
        if let Some(why) = &site.truncated {
            let frame = self
                .tables
                .stand_in(&format!("[the stack breaks off: {why}]"));
            node = self.node(node, frame);
        }
        if site.frames.is_empty() {
            let frame = self.tables.stand_in("[no stack]");
            node = self.node(node, frame);
        }
        for id in site.frames.iter().rev() {
            if let Some(frame) = numbered(&self.frames, *id) {
                node = self.node(node, frame);
            }
        }
        node
    }

    fn node(&mut self, caller: u32, frame: u32) -> u32 {
        let nodes: &mut Nodes = &mut self.process.nodes;
        let next = nodes.up.len() as u32;
        let node = match next {
            0 => 0,
            _ => *self.known.entry((caller, frame)).or_insert(next),
        };
        if node == next {
            nodes.up.push(next - caller);
            nodes.frame.push(frame);
        }
        node
    }

    /// Adds what was allocated in each part of the time, and says how many parts that are.
    fn ages(&mut self, ages: &[Age]) -> u32 {
        let mut parts: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for age in ages {
            let at = (self.report.duration - age.age) / self.report.duration;
            let part = (at * f64::from(PARTS)) as u32; // 0 for what is no number
            let (blocks, bytes) = parts.entry(part.min(PARTS - 1)).or_default();
            *blocks = blocks.saturating_add(age.blocks);
            *bytes = bytes.saturating_add(age.bytes);
        }
        let ages = &mut self.process.ages;
        for (part, (blocks, bytes)) in &parts {
            ages.extend([u64::from(*part), *blocks, *bytes]);
        }
        parts.len() as u32
    }
}
