//! From the books of a finished trace to the report: frames get their names.

mod guesses;
mod misuses;
mod namer;
mod suppressions;

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use leaktap_agent::Counts;
use leaktap_analysis::reach::Grade;
use leaktap_heap::{SiteKey, Sum, sum};
use leaktap_ledger::FamilyId;
use leaktap_probe::{Kind as Probed, Reason, Refusal};
use leaktap_report::{
    Age, Exit, Family, Forecast, Heap, Hex, Kind, Look, Measure, Peak, PeakSite, Probe, ProbeKind,
    Report, SCHEMA, Site, Source, Stopped, Target as Process, Totals, count, forecast,
};
use leaktap_symbols::Resolver;
use leaktap_tracee::Tid;

use crate::books::{self, live_blocks, live_bytes};
use crate::error::cause;
use crate::limits::limits;
use crate::remedy;
use crate::result::namer::Namer;
use crate::roots::Roots;
use crate::target::{self, Target};

impl Target {
    /// The report of all that it holds, unfiltered, with the ages of its blocks. This changes
    /// nothing but what is known of names: there can be another one later.
    pub(crate) fn report(&self, resolver: &mut Resolver) -> Report {
        report_with(&mut Namer::new(self, resolver))
    }
}

fn report_with(namer: &mut Namer<'_>) -> Report {
    let target = namer.target;
    let sums = known(sum(target.books.held()), target);
    let counts = target.books.counts();
    let stacks = stacks(&sums);
    let mut sites: Vec<_> = sums
        .iter()
        .map(|(key, sum)| {
            let stack = stacks.get(&key.stack);
            let allocated = allocated(key, sum, &counts, stack);
            Site {
                allocated_blocks: allocated.map(|(blocks, _)| blocks),
                allocated_bytes: allocated.map(|(_, bytes)| bytes),
                ..site(
                    namer,
                    key,
                    sum,
                    stack.is_none_or(|stack| stack.first == *key),
                )
            }
        })
        .collect();
    sites.sort_by_key(|site| std::cmp::Reverse((site.bytes, site.blocks)));
    let peak = peak(namer, &sums);
    let mut notes = notes(target, &sites);
    notes.extend(namer.misuses());
    let mut report = Report {
        schema: SCHEMA,
        leaktap: env!("CARGO_PKG_VERSION").to_owned(),
        target: process(target),
        mode: target.how.mode,
        engine: target.how.engine.name().to_owned(),
        started: started(target),
        duration: in_seconds(target.duration),
        verdict: None,
        stopped: stopped(target),
        probes: probes(target),
        unwatched: target.unwatched_allocator(),
        totals: totals(target, &sites),
        families: families(target),
        modules: std::mem::take(&mut namer.modules),
        frames: std::mem::take(&mut namer.frames),
        sites,
        looks: target.books.recent_looks().map(look).collect(),
        snapshots: Vec::new(),
        checked: None,
        memory: None,
        timeline: target.timeline.moments().to_vec(),
        series_at: series_at(target),
        peak,
        forecast: future(target),
        children: target.children.list(),
        notes,
        suppressions: Vec::new(),
        target_suppressions: None,
        compared: None,
    };
    suppressions::note(target, &mut report);
    report.mark_runtime();
    report
}

/// `sums`, with those of stacks that are none as one.
fn known(sums: HashMap<SiteKey, Sum>, target: &Target) -> HashMap<SiteKey, Sum> {
    let mut roots = Roots::new();
    let caller = |id: u32| target.books.caller(id);
    let (mut known, unknown): (HashMap<_, _>, HashMap<_, _>) = sums
        .into_iter()
        .partition(|(key, _)| roots.has(key.stack, caller));
    if !unknown.is_empty() {
        let rest = Sum::of_all(unknown.into_values());
        known.insert(SiteKey::REST, rest);
    }
    known
}

/// To the microsecond: what is beyond is noise.
pub(crate) fn in_seconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}

/// When the trace began, as RFC 3339 has it.
pub(crate) fn started(target: &Target) -> String {
    let started = Timestamp::try_from(target.started).unwrap_or(Timestamp::UNIX_EPOCH);
    started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn process(target: &Target) -> Process {
    Process {
        pid: target.tid().get(),
        parent: target.parent.map(Tid::get),
        program: target.program.called.display().to_string(),
        executable: executable(target),
        args: target.args.clone(),
        threads: target.threads,
        exit: target.exit.map(|exit| match exit {
            target::Exit::Code(code) => Exit::Code(code),
            target::Exit::Signal(signal) => Exit::Signal(signal),
        }),
        detached: target.exit.is_none(),
    }
}

/// Its file, where that has another path than it is called by.
fn executable(target: &Target) -> Option<String> {
    let program = &target.program;
    let is_other = program.file != program.called;
    is_other.then(|| program.file.display().to_string())
}

fn stopped(target: &Target) -> Stopped {
    let halts = target.halts;
    Stopped {
        attach: in_seconds(halts.attach),
        detach: in_seconds(halts.detach),
        longest: in_seconds(halts.longest),
    }
}

fn probes(target: &Target) -> Vec<Probe> {
    let probe = |point: &leaktap_probe::Probepoint| Probe {
        function: point.known.name.clone().into_owned(),
        family: family_of(target, point.family).filter(|_| point.known.is_of_heap()),
        module: point.module.display().to_string(),
        address: Hex(point.address.get()),
        kind: match point.kind {
            Probed::Breakpoint => ProbeKind::Breakpoint,
            Probed::Detour => ProbeKind::Detour,
            Probed::None(_) => ProbeKind::None,
        },
        reason: match point.kind {
            Probed::Breakpoint => point.refusal.map(|refusal| refusal.to_string()),
            Probed::Detour => None,
            Probed::None(Reason::WouldTrap) if point.refusal.is_some() => {
                point.refusal.map(|refusal| refusal.to_string())
            }
            Probed::None(reason) => Some(reason.name().to_owned()),
        },
    };
    target.process().probepoints().iter().map(probe).collect()
}

/// What the family of blocks is called.
fn family_of(target: &Target, id: FamilyId) -> Option<String> {
    let families = target.process().modules().families();
    families.name(id).map(str::to_owned)
}

/// Those of which anything was seen, if they are more than one.
fn families(target: &Target) -> Vec<Family> {
    let of = |id| Family {
        name: family_of(target, id).unwrap_or_default(),
        heap: heap(target, id),
    };
    let all = target.families().map(of);
    let seen = all.filter(|family| family.heap.allocations > 0 || family.heap.frees > 0);
    let seen: Vec<_> = seen.collect();
    if seen.len() > 1 { seen } else { Vec::new() }
}

fn heap(target: &Target, id: FamilyId) -> Heap {
    let sums = target.books.totals(id);
    let live_bytes = live_bytes(&sums);
    Heap {
        allocations: sums.allocations,
        frees: sums.frees,
        unmatched_frees: sums.unmatched_frees,
        allocated_bytes: sums.allocated_bytes,
        live_blocks: live_blocks(&sums),
        live_bytes,
        peak_bytes: target.books.peak_bytes(id).max(live_bytes),
    }
}

fn totals(target: &Target, sites: &[Site]) -> Totals {
    let regions = || target.books.regions.live();
    Totals {
        heap: heap(target, target.most_used()),
        lost_events: target.books.lost(),
        truncated_stacks: sites.iter().filter(|site| site.truncated.is_some()).count() as u64,
        suppressed_blocks: 0,
        suppressed_bytes: 0,
        runtime_blocks: None,
        runtime_bytes: None,
        before_blocks: None,
        before_bytes: None,
        mapped_regions: regions().count() as u64,
        mapped_bytes: regions().map(|region| region.bytes).sum(),
    }
}

fn notes(target: &Target, sites: &[Site]) -> Vec<String> {
    let mut notes = target.notes.clone();
    let mut truncated: Vec<_> = sites
        .iter()
        .filter_map(|site| site.truncated.as_deref())
        .collect();
    truncated.sort_unstable();
    for group in truncated.chunk_by(|a, b| a == b) {
        let why = group.first().copied().unwrap_or_default();
        let sites = count(group.len() as u64, "call site");
        notes.push(format!("{sites} with truncated stacks: {why}"));
    }
    notes.extend(target.mapping_notes());
    notes.extend(target.ungraded());
    notes.extend(target.children.note());
    notes.extend(target.process().refused().map(without_agent));
    let lost = target.books.lost();
    if lost > 0 {
        notes.push(format!("seen, but not counted: {}", count(lost, "call")));
    }
    let left_out = target.books.left_out();
    if left_out > 0 {
        let blocks = count(left_out, "block");
        notes.push(format!(
            "not listed, as asked for, for when they were made: {blocks}"
        ));
    }
    let retried = target.books.retried();
    if retried > 0 {
        notes.push(format!(
            "memory ran out in {retried} calls of operator new; what these came to was not seen"
        ));
    }
    let modules = target.process().modules();
    for skipped in modules.image().skipped() {
        let path = skipped.path.display();
        notes.push(format!(
            "module {path} could not be read, so its frames have no names: {}{}",
            skipped.why,
            cause(&skipped.why)
        ));
    }
    notes
}

/// What the program has paid for it, and what could be done.
fn without_agent(refusal: Refusal) -> String {
    let why = remedy::remedy(refusal);
    format!("breakpoints were used, not detours, and cost some 50 µs a call: {refusal}, {why}")
}

/// When sites are known to have had so many bytes, and the end, unless that is just after.
fn series_at(target: &Target) -> Vec<f64> {
    let times = target.books.series.times().chain(end_of_series(target));
    times.map(in_seconds).collect()
}

/// The end of the trace, if it is another moment than the last one of the series.
fn end_of_series(target: &Target) -> Option<Duration> {
    let last = target.books.series.times().last()?;
    let least = target.how.interval / 4;
    (target.duration.saturating_sub(last) >= least).then_some(target.duration)
}

/// What a site had at each of these times, if it is one of those of which that is known; `bytes` at
/// the end.
fn series(target: &Target, key: &SiteKey, bytes: u64) -> Vec<Option<u64>> {
    // Nobody was graded while they were taken.
    let ungraded = SiteKey {
        grade: None,
        ..*key
    };
    let mut series = target.books.series.of(&ungraded);
    if !series.is_empty() && end_of_series(target).is_some() {
        series.push(Some(bytes));
    }
    series
}

/// What lived when most did, with names.
fn peak(namer: &mut Namer<'_>, sums: &HashMap<SiteKey, Sum>) -> Option<Peak> {
    let target = namer.target;
    let end = books::Peak::of(
        target.duration,
        sums.iter().map(|(key, sum)| (*key, sum.bytes)),
        target.most_used(),
    );
    let peak = target.books.series.peak();
    let peak = peak.filter(|peak| peak.bytes > end.bytes).unwrap_or(&end);
    if peak.bytes == 0 {
        return None;
    }
    let sites = peak.sites.iter().map(|(key, bytes)| {
        let stack = namer.stack(key.stack);
        let function = target.process().functions().display(stack.function);
        PeakSite {
            function: function.to_owned(),
            bytes: *bytes,
            frames: stack.frames,
        }
    });
    Some(Peak {
        sites: sites.collect(),
        at: in_seconds(peak.at),
        live_bytes: peak.bytes,
    })
}

/// When a process that runs on will reach a limit.
fn future(target: &Target) -> Option<Forecast> {
    if target.exit.is_some() {
        return None;
    }
    let mut limits = limits(target.tid());
    // The agent's reservation is no growth of its own, and gone afterwards.
    limits.retain(|limit| limit.of != Measure::Addresses || !target.books.is_injected());
    forecast(target.timeline.moments(), &limits)
}

fn kind(grade: Grade) -> Kind {
    match grade {
        Grade::Definite => Kind::Definite,
        Grade::Indirect => Kind::Indirect,
        Grade::Possible => Kind::Possible,
        Grade::Reachable => Kind::Reachable,
    }
}

fn look(look: &crate::books::Look) -> Look {
    Look {
        at: look.at.as_secs_f64(),
        live_blocks: look.live,
        unmatched_frees: look.unmatched,
    }
}

/// What is left of a stack in the heap, in blocks of all grades.
struct OfStack {
    blocks: u64,
    bytes: u64,
    /// Those that have most: what is known of the stack alone is told of them.
    first: SiteKey,
    most: u64,
}

fn stacks(sums: &HashMap<SiteKey, Sum>) -> HashMap<u32, OfStack> {
    let mut stacks: HashMap<_, OfStack> = HashMap::new();
    for (key, sum) in sums.iter().filter(|(key, _)| !key.mapping) {
        let of = stacks.entry(key.stack).or_insert(OfStack {
            blocks: 0,
            bytes: 0,
            first: *key,
            most: 0,
        });
        of.blocks = of.blocks.saturating_add(sum.blocks);
        of.bytes = of.bytes.saturating_add(sum.bytes);
        if (sum.bytes, key.grade) > (of.most, of.first.grade) {
            (of.most, of.first) = (sum.bytes, *key);
        }
    }
    stacks
}

/// What a stack has allocated in all, which is what is left or more: regions are cut and joined, so
/// nobody counts those. Of blocks of several grades those of one have what was freed, too.
fn allocated(
    key: &SiteKey,
    sum: &Sum,
    counts: &Counts,
    stack: Option<&OfStack>,
) -> Option<(u64, u64)> {
    let (blocks, bytes) = counts.of(key.stack).filter(|_| !key.mapping)?;
    let all = stack?;
    if all.first != *key {
        return Some((sum.blocks, sum.bytes));
    }
    let blocks = blocks.wrapping_sub(all.blocks.saturating_sub(sum.blocks));
    let bytes = bytes.wrapping_sub(all.bytes.saturating_sub(sum.bytes));
    // Below zero, if a thread was killed before it had counted what another one handed on.
    let is_known = i64::try_from(blocks).is_ok() && i64::try_from(bytes).is_ok();
    is_known.then(|| (blocks.max(sum.blocks), bytes.max(sum.bytes)))
}

/// `is_first`: it is told what is known of the stack as a whole.
fn site(namer: &mut Namer<'_>, key: &SiteKey, sum: &Sum, is_first: bool) -> Site {
    let target = namer.target;
    // In milliseconds, as times are noted.
    let end = target.duration.as_millis() as u64;
    let age = |time: u32| end.saturating_sub(u64::from(time)) as f64 / 1000.0;
    let ages = sum.by_time.iter().map(|&(time, blocks, bytes)| Age {
        age: age(time),
        blocks,
        bytes,
    });
    let ages: Vec<_> = ages.collect();
    let counts = target.books.recent_looks();
    let counts: Vec<_> = counts.map(|look| look.blocks(key.stack)).collect();
    let series = match is_first {
        true => series(target, key, sum.bytes),
        false => Vec::new(),
    };
    let stack = namer.stack(key.stack);
    let function = target.process().functions().display(stack.function);
    Site {
        kind: key.grade.map_or(Kind::Unmatched, kind),
        source: match key.mapping {
            true => Source::Mapping,
            false => Source::Heap,
        },
        family: family_of(target, key.family).filter(|_| !key.mapping),
        function: function.to_owned(),
        blocks: sum.blocks,
        bytes: sum.bytes,
        youngest: ages.last().map_or(0.0, |age| age.age),
        oldest: ages.first().map_or(0.0, |age| age.age),
        frames: stack.frames,
        seen: target
            .books
            .first_seen(key.stack)
            .map(|at| at.as_secs_f64()),
        counts: match !is_first || counts.iter().all(|count| *count == 0) {
            true => Vec::new(),
            false => counts,
        },
        series,
        allocator: stack.allocator,
        truncated: stack.truncated,
        ages,
        ..Site::default()
    }
}
