//! Reports of several processes as one.

use std::collections::HashMap;

use crate::grouping::sum as both;
use crate::sight::unwatched;
use crate::{Frame, FrameId, Heap, Kind, Module, ModuleId, Report, Site, Source, Target, Totals};

/// All that `reports` list, as if it were of one process: what is left at the same place of the
/// same build of a program is one site. Nothing if there is no report.
///
/// Not in it is what is told of one process alone: ages, growth, probes, notes.
pub fn merged(reports: &[Report]) -> Option<Report> {
    let first = reports.first()?;
    let mut sum = Report {
        target: Target {
            threads: reports.iter().map(|report| report.target.threads).sum(),
            ..Target::default()
        },
        duration: reports
            .iter()
            .map(|report| report.duration)
            .fold(0.0, f64::max),
        schema: first.schema,
        leaktap: first.leaktap.clone(),
        mode: first.mode,
        engine: first.engine.clone(),
        started: first.started.clone(),
        unwatched: unwatched(reports).map(str::to_owned),
        ..Report::default()
    };
    let mut numbers = Numbers::default();
    for report in reports {
        add(&mut sum.totals, &report.totals);
        numbers.add(report, &mut sum);
    }
    Some(sum)
}

/// The sum of processes that ran the same program, as those of a service's replicas. It keeps no
/// ages. `None` without reports.
pub fn replicas(reports: &[Report]) -> Option<Report> {
    let mut sum = merged(reports)?;
    let target = &reports.first()?.target;
    let mut all = reports.iter().map(|report| &report.target.program);
    if all.all(|program| *program == target.program) {
        sum.target.program.clone_from(&target.program);
        sum.target.executable.clone_from(&target.executable);
        sum.target.args.clone_from(&target.args);
    }
    // Of each there should have been something to be seen.
    sum.unwatched = reports.iter().find_map(|report| report.unwatched.clone());
    for report in reports {
        let pid = report.target.pid;
        let notes = report.notes.iter().map(|note| format!("{pid}: {note}"));
        sum.notes.extend(notes);
        if let Some(text) = &report.target_suppressions {
            let all = sum.target_suppressions.get_or_insert_default();
            if !all.contains(text.as_str()) {
                all.push_str(text);
            }
        }
    }
    let pids: Vec<_> = reports
        .iter()
        .map(|report| report.target.pid.to_string())
        .collect();
    let of = match pids.len() {
        1 => "one process".to_owned(),
        number => format!("{number} processes"),
    };
    sum.notes
        .push(format!("the sum of {of}: {}", pids.join(", ")));
    Some(sum)
}

fn add(sum: &mut Totals, one: &Totals) {
    let heap = |sum: &mut Heap, one: &Heap| {
        sum.allocations = sum.allocations.saturating_add(one.allocations);
        sum.frees = sum.frees.saturating_add(one.frees);
        sum.unmatched_frees = sum.unmatched_frees.saturating_add(one.unmatched_frees);
        sum.allocated_bytes = sum.allocated_bytes.saturating_add(one.allocated_bytes);
        sum.live_blocks = sum.live_blocks.saturating_add(one.live_blocks);
        sum.live_bytes = sum.live_bytes.saturating_add(one.live_bytes);
        // They need not have been at the same time.
        sum.peak_bytes = sum.peak_bytes.max(one.peak_bytes);
    };
    let some = |sum: &mut Option<u64>, one: Option<u64>| {
        if let Some(one) = one {
            *sum = Some(sum.unwrap_or_default().saturating_add(one));
        }
    };
    heap(&mut sum.heap, &one.heap);
    sum.lost_events = sum.lost_events.saturating_add(one.lost_events);
    sum.truncated_stacks = sum.truncated_stacks.saturating_add(one.truncated_stacks);
    sum.suppressed_blocks = sum.suppressed_blocks.saturating_add(one.suppressed_blocks);
    sum.suppressed_bytes = sum.suppressed_bytes.saturating_add(one.suppressed_bytes);
    some(&mut sum.runtime_blocks, one.runtime_blocks);
    some(&mut sum.runtime_bytes, one.runtime_bytes);
    sum.mapped_regions = sum.mapped_regions.saturating_add(one.mapped_regions);
    sum.mapped_bytes = sum.mapped_bytes.saturating_add(one.mapped_bytes);
}

/// What makes sites of several processes one.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    source: Source,
    family: Option<String>,
    function: String,
    frames: Vec<FrameId>,
}

/// Of what has been added, the numbers in the sum.
#[derive(Default)]
struct Numbers {
    /// By path and build id.
    modules: HashMap<(String, Option<String>), ModuleId>,
    frames: HashMap<Frame, FrameId>,
    sites: HashMap<Key, usize>,
}

impl Numbers {
    fn add(&mut self, report: &Report, sum: &mut Report) {
        let modules = report.modules.iter().map(|module| self.module(module, sum));
        let modules: Vec<_> = modules.collect();
        let frames = report.frames.iter();
        let frames: Vec<_> = frames
            .map(|frame| self.frame(frame, &modules, sum))
            .collect();
        let number = |FrameId(id): &FrameId| frames.get(*id as usize).copied();
        for site in &report.sites {
            let numbers = |ids: &[FrameId]| ids.iter().filter_map(number).collect::<Vec<_>>();
            let new = Site {
                kind: site.kind,
                source: site.source,
                family: site.family.clone(),
                function: site.function.clone(),
                blocks: site.blocks,
                bytes: site.bytes,
                allocated_blocks: site.allocated_blocks,
                allocated_bytes: site.allocated_bytes,
                youngest: site.youngest,
                oldest: site.oldest,
                culprit: site.culprit.as_ref().and_then(number),
                frames: numbers(&site.frames),
                allocator: numbers(&site.allocator),
                truncated: site.truncated.clone(),
                ..Site::default()
            };
            self.site(new, &mut sum.sites);
        }
    }

    fn module(&mut self, module: &Module, sum: &mut Report) -> ModuleId {
        let next = ModuleId(sum.modules.len() as u32);
        let key = (module.path.clone(), module.build_id.clone());
        let id = *self.modules.entry(key).or_insert(next);
        if id == next {
            sum.modules.push(module.clone());
        }
        id
    }

    /// Where a module was mapped differs from process to process.
    fn frame(&mut self, frame: &Frame, modules: &[ModuleId], sum: &mut Report) -> FrameId {
        let module = frame.module;
        let module = module.and_then(|ModuleId(id)| modules.get(id as usize).copied());
        let frame = Frame {
            address: frame.address.filter(|_| module.is_none()),
            module,
            ..frame.clone()
        };
        let next = FrameId(sum.frames.len() as u32);
        let id = *self.frames.entry(frame.clone()).or_insert(next);
        if id == next {
            sum.frames.push(frame);
        }
        id
    }

    fn site(&mut self, new: Site, sites: &mut Vec<Site>) {
        let key = Key {
            kind: new.kind,
            source: new.source,
            family: new.family.clone(),
            function: new.function.clone(),
            frames: new.frames.clone(),
        };
        let index = *self.sites.entry(key).or_insert(sites.len());
        match sites.get_mut(index) {
            Some(site) => {
                site.blocks = site.blocks.saturating_add(new.blocks);
                site.bytes = site.bytes.saturating_add(new.bytes);
                site.allocated_blocks = both(site.allocated_blocks, new.allocated_blocks);
                site.allocated_bytes = both(site.allocated_bytes, new.allocated_bytes);
                site.youngest = site.youngest.min(new.youngest);
                site.oldest = site.oldest.max(new.oldest);
            }
            None => sites.push(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hex;
    use crate::formats::text::tests::{add, frame, report};

    #[test]
    fn the_same_place_of_two_processes_is_one_site() {
        let mut one = report();
        add(&mut one, &[frame("f", "a.c", 1)], &[(1.0, 2, 20)]);
        for site in &mut one.sites {
            site.allocated_blocks = Some(7);
        }
        let mut other = one.clone();
        for module in &mut other.modules {
            module.base = Hex(module.base.0 + 0x1000);
        }
        add(&mut other, &[frame("g", "a.c", 2)], &[(3.0, 1, 5)]);
        let sum = merged(&[one.clone(), other]).unwrap();
        let sites: Vec<_> = sum
            .sites
            .iter()
            .map(|site| (site.blocks, site.bytes))
            .collect();
        assert_eq!(sites, [(4, 40), (1, 5)]);
        let allocated = sum.sites.iter().map(|site| site.allocated_blocks);
        assert_eq!(allocated.collect::<Vec<_>>(), [Some(14), None]);
        assert_eq!(sum.modules.len(), one.modules.len());
        assert_eq!(sum.totals.heap.live_blocks, 2 * one.totals.heap.live_blocks);
        assert_eq!(merged(&[]), None);
    }
}
