//! From the books of a finished trace to the report: frames get their names.

mod misuses;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use leaktap_api::FunctionId;
use leaktap_heap::{SiteKey, Sum, sum};
use leaktap_image::{Module, Symbolizer};
use leaktap_ledger::FamilyId;
use leaktap_probe::{Kind as Probed, Refusal};
use leaktap_report::{
    Age, Exit, Family, Frame, Heap, Kind, Probe, Report, SCHEMA, Site, Source, Stopped,
    Target as Process, Totals, caller_of_allocator,
};
use leaktap_unwind as unwind;
use leaktap_unwind::End;

use crate::books::{live_blocks, live_bytes};
use crate::error::cause;
use crate::remedy;
use crate::roots::Roots;
use crate::target::{self, Target};

/// Most frames of all stacks, and most of them that have names: a target can write millions of
/// stacks into what it shares with us. With as many, leaktap needs a gigabyte.
const MOST_FRAMES: usize = 1 << 25;
const MOST_NAMES: usize = 1 << 20;

/// Why a call site has no stack.
const UNKNOWN: &str =
    "the target has written over what was noted, or has more than a million of them";
const TOO_MANY: &str = "there are more than 32 million frames";

/// What was called there: nobody knows.
const NO_FUNCTION: FunctionId = FunctionId(u8::MAX);

/// How the trace was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// `run` or `attach`.
    pub(crate) mode: &'static str,
    /// `auto` or `breakpoint`.
    pub(crate) engine: &'static str,
}

/// The report of all that `target` holds, unfiltered, with the ages of its blocks.
pub(crate) fn report(target: &mut Target, asked: Asked) -> Report {
    let symbolizer = std::mem::take(&mut target.symbolizer);
    let target = &*target;
    let mut namer = Namer {
        target,
        symbolizer,
        named: HashMap::new(),
        nameless: Arc::default(),
        frames_left: MOST_FRAMES,
    };
    let sums = known(sum(target.books.held()), target);
    let end = target.duration.as_secs_f64();
    let mut sites: Vec<_> = sums
        .iter()
        .map(|(key, sum)| namer.site(key, sum, end))
        .collect();
    sites.sort_by_key(|site| std::cmp::Reverse((site.bytes, site.blocks)));
    let mut notes = notes(target, &sites);
    notes.extend(namer.misuses());
    // To take debug information apart piece by piece would take as long as some reports do.
    std::mem::forget(namer);
    Report {
        schema: SCHEMA,
        leaktap: env!("CARGO_PKG_VERSION").to_owned(),
        target: process(target),
        mode: asked.mode.to_owned(),
        engine: asked.engine.to_owned(),
        started: started(target),
        duration: end,
        stopped: stopped(target),
        probes: probes(target),
        totals: totals(target, &sites),
        families: families(target),
        notes,
        sites,
    }
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

/// When the trace began, as RFC 3339 has it.
pub(crate) fn started(target: &Target) -> String {
    let started = Timestamp::try_from(target.started).unwrap_or(Timestamp::UNIX_EPOCH);
    started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn process(target: &Target) -> Process {
    Process {
        pid: target.tid().get(),
        program: target.program.display().to_string(),
        args: target.args.clone(),
        threads: target.threads,
        exit: target.exit.map(|exit| match exit {
            target::Exit::Code(code) => Exit::Code(code),
            target::Exit::Signal(signal) => Exit::Signal(signal),
        }),
        detached: target.exit.is_none(),
    }
}

fn stopped(target: &Target) -> Stopped {
    let halts = target.halts;
    Stopped {
        attach: halts.attach.as_secs_f64(),
        detach: halts.detach.as_secs_f64(),
        longest: halts.longest.as_secs_f64(),
    }
}

fn probes(target: &Target) -> Vec<Probe> {
    let probe = |point: &leaktap_probe::Probepoint| Probe {
        function: point.known.name.clone().into_owned(),
        family: family_of(target, point.family).filter(|_| point.known.is_of_heap()),
        module: point.module.display().to_string(),
        address: point.address.to_string(),
        kind: match point.kind {
            Probed::Breakpoint => "breakpoint".to_owned(),
            Probed::Detour => "detour".to_owned(),
            Probed::None(_) => "none".to_owned(),
        },
        reason: match point.kind {
            Probed::Breakpoint => point.refusal.map(|refusal| refusal.to_string()),
            Probed::Detour => None,
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
    let heaps = target.families().map(|id| heap(target, id));
    // The first of the largest.
    let heap = heaps.rev().max_by_key(|heap| heap.allocations);
    Totals {
        heap: heap.unwrap_or_default(),
        lost_events: target.books.lost(),
        truncated_stacks: sites.iter().filter(|site| site.truncated.is_some()).count() as u64,
        suppressed_blocks: 0,
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
        notes.push(format!(
            "{} call sites have truncated stacks: {why}",
            group.len()
        ));
    }
    notes.extend(target.mapping_notes());
    notes.extend(target.process().refused().map(without_agent));
    let lost = target.books.lost();
    if lost > 0 {
        notes.push(format!("{lost} calls were seen and could not be counted"));
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
    let tables = modules.skipped_tables();
    if tables > 0 {
        notes.push(format!(
            "{tables} unwind tables, or parts of them, could not be read"
        ));
    }
    notes
}

/// What the program has paid for it, and what could be done.
fn without_agent(refusal: Refusal) -> String {
    let why = remedy::remedy(refusal);
    format!("breakpoints were used, not detours, and cost some 50 µs a call: {refusal}, {why}")
}

/// Gives frames their names.
struct Namer<'a> {
    target: &'a Target,
    symbolizer: Symbolizer,
    named: HashMap<u64, Vec<Arc<Frame>>>,
    /// Stands for frames beyond [`MOST_NAMES`].
    nameless: Arc<Frame>,
    /// How many may still be listed.
    frames_left: usize,
}

impl Namer<'_> {
    fn site(&mut self, key: &SiteKey, sum: &Sum, end: f64) -> Site {
        let age = |time: u32| (end - f64::from(time) / 1000.0).max(0.0);
        let ages: Vec<_> = sum
            .by_time
            .iter()
            .map(|&(time, blocks, bytes)| Age {
                age: age(time),
                blocks,
                bytes,
            })
            .collect();
        let (frames, truncated, function) = self.stack(key.stack);
        Site {
            kind: Kind::Unmatched,
            source: if key.mapping {
                Source::Mapping
            } else {
                Source::Heap
            },
            family: family_of(self.target, key.family).filter(|_| !key.mapping),
            function: self
                .target
                .process()
                .functions()
                .display(function)
                .to_owned(),
            blocks: sum.blocks,
            bytes: sum.bytes,
            youngest: ages.last().map_or(0.0, |age| age.age),
            oldest: ages.first().map_or(0.0, |age| age.age),
            frames,
            truncated,
            ages,
        }
    }

    /// The frames of a stack, why it breaks off if it does, and what was called.
    fn stack(&mut self, id: u32) -> (Vec<Arc<Frame>>, Option<String>, FunctionId) {
        let Some((raw, end, function)) = self.target.books.stack(id) else {
            return (Vec::new(), Some(UNKNOWN.to_owned()), NO_FUNCTION);
        };
        let Some(left) = self.frames_left.checked_sub(raw.len()) else {
            return (Vec::new(), Some(TOO_MANY.to_owned()), function);
        };
        self.frames_left = left;
        let named = raw.into_iter().flat_map(|frame| self.names(frame));
        let mut frames: Vec<_> = named.collect();
        frames.drain(..caller_of_allocator(&frames));
        let truncated = (end != End::Root).then(|| end.to_string());
        (frames, truncated, function)
    }

    fn names(&mut self, raw: u64) -> Vec<Arc<Frame>> {
        if let Some(named) = self.named.get(&raw) {
            return named.clone();
        }
        if self.named.len() >= MOST_NAMES {
            return vec![Arc::clone(&self.nameless)];
        }
        let frame = unwind::Frame::from_raw(raw);
        let bare = Frame {
            address: format!("{:#x}", frame.address().get()),
            by_frame_pointer: frame.by_frame_pointer(),
            ..Frame::default()
        };
        let named = match self.target.process().modules().module_at(frame.lookup()) {
            Some(module) => self.named_in(module, frame, &bare),
            None => vec![bare],
        };
        let named: Vec<_> = named.into_iter().map(Arc::new).collect();
        self.named.insert(raw, named.clone());
        named
    }

    fn named_in(&mut self, module: &Module, frame: unwind::Frame, bare: &Frame) -> Vec<Frame> {
        let file = module.file();
        let place = Frame {
            module: Some(module.path().display().to_string()),
            build_id: file.build_id_hex(),
            offset: Some(format!("{:#x}", module.offset_of(frame.address()))),
            ..bare.clone()
        };
        let names = self.symbolizer.names(file, module.svma(frame.lookup()));
        let named = names.into_iter().map(|name| Frame {
            function: name.function,
            file: name.file,
            line: name.line,
            inlined: name.inlined,
            ..place.clone()
        });
        named.collect()
    }
}
