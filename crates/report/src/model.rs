//! The JSON report, schema 2, as types. Times are in seconds, sizes in bytes.
//!
//! Each frame is in one table, once; a site's stack is a list of its numbers there. What leaktap
//! cannot tell is `None` or an empty list, never a guess.

mod frames;
mod memory;
mod site;

use serde::{Deserialize, Serialize};

pub use self::frames::{Frame, FrameId, Hex, Module, ModuleId, Place, Tables};
pub use self::memory::{
    Checked, Child, Forecast, Look, Memory, Moment, Part, Peak, PeakSite, Rung, Snapshot, What,
};
pub use self::site::{
    Age, Alike, Amount, Change, Changed, Course, Growth, Kind, Shape, Site, Slope, Source,
};

/// The schema that this crate writes and reads.
pub const SCHEMA: u32 = 2;

/// All that leaktap says of one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// leaktap's version.
    pub leaktap: String,
    /// The process.
    pub target: Target,
    /// How it came under leaktap.
    pub mode: Mode,
    /// What was asked for: `auto` or `breakpoint`.
    pub engine: String,
    /// When the trace began, RFC 3339, UTC.
    pub started: String,
    /// How long it took.
    pub duration: f64,
    /// What it comes to, in a line.
    pub verdict: Option<String>,
    /// For how long all threads were stopped.
    pub stopped: Stopped,
    /// The functions that were looked for and found.
    pub probes: Vec<Probe>,
    /// Why what it allocates could not be watched, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwatched: Option<String>,
    /// What happened in all; with several `families`, in that with the most allocations.
    pub totals: Totals,
    /// What happened in each allocator that was called, if that is more than one. There is no sum:
    /// a pool's objects lie in blocks of another one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<Family>,
    /// What was loaded, or had been.
    pub modules: Vec<Module>,
    /// What stacks are made of.
    pub frames: Vec<Frame>,
    /// What is left, largest first.
    pub sites: Vec<Site>,
    /// How many blocks there were in the later part of the trace; captures only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<Look>,
    /// When memory was looked at.
    pub snapshots: Vec<Snapshot>,
    /// Whether the grades were right.
    pub checked: Option<Checked>,
    /// Where the resident memory went.
    pub memory: Option<Memory>,
    /// How memory changed.
    pub timeline: Vec<Moment>,
    /// The times of the [`series`](Site::series) of sites.
    #[serde(default)]
    pub series_at: Vec<f64>,
    /// When most was live.
    #[serde(default)]
    pub peak: Option<Peak>,
    /// When a limit will be reached.
    #[serde(default)]
    pub forecast: Option<Forecast>,
    /// Processes that it has made.
    pub children: Vec<Child>,
    /// What else the reader should know.
    pub notes: Vec<String>,
    /// What is not listed because a suppression matches it, and which suppressions match nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressions: Vec<Suppressed>,
    /// The trace that it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
    /// LeakSanitizer's suppressions that the target has built in; captures only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_suppressions: Option<String>,
}

impl Report {
    /// Its modules and frames.
    pub fn tables(&self) -> Tables<'_> {
        Tables {
            modules: &self.modules,
            frames: &self.frames,
        }
    }

    /// The frames of what lived at the peak.
    pub(crate) fn peak_frames(&self) -> impl Iterator<Item = FrameId> + '_ {
        let sites = self.peak.iter().flat_map(|peak| &peak.sites);
        sites.flat_map(|site| site.frames.iter().copied())
    }

    /// As a JSON report has it: shorter by what only captures keep, and with figures of growth
    /// apart from the word, which may not be proven.
    pub(crate) fn for_json(mut self) -> Report {
        self.target_suppressions = None;
        for frame in &mut self.frames {
            frame.symbol = None;
        }
        for site in &mut self.sites {
            site.allocator = Vec::new();
            site.trend = site.growth.as_ref().and_then(Growth::slope);
            site.growth = site.growth.take().filter(|growth| growth.pattern.is_some());
        }
        self
    }

    /// The first number that leads to nothing, as a report may have that leaktap did not write.
    pub(crate) fn missing(&self) -> Option<String> {
        let modules = self.frames.iter().filter_map(|frame| frame.module);
        let mut modules = modules.filter(|&module| self.tables().module(module).is_none());
        let frames = self.sites.iter().flat_map(|site| {
            let frames = site.all_frames();
            frames.chain(site.culprit)
        });
        let frames = frames.chain(self.peak_frames());
        let mut frames = frames.filter(|&frame| self.tables().frame(frame).is_none());
        match (modules.next(), frames.next()) {
            (Some(ModuleId(module)), _) => Some(format!("there is no module {module}")),
            (None, Some(FrameId(frame))) => Some(format!("there is no frame {frame}")),
            (None, None) => None,
        }
    }
}

/// How a process came under leaktap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It ran already.
    #[default]
    Attach,
    /// leaktap launched it.
    Run,
    /// Only its memory was looked at.
    Scan,
}

/// The process that was traced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Its process id.
    pub pid: i32,
    /// The traced process that made it, if one did.
    pub parent: Option<i32>,
    /// Its executable, by the name that it was started by.
    pub program: String,
    /// The file, where `program` is a link to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its threads when the trace began.
    pub threads: usize,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
    /// It ran on when leaktap left it.
    pub detached: bool,
}

impl Target {
    /// The path of its file.
    pub(crate) fn file(&self) -> &str {
        self.executable.as_deref().unwrap_or(&self.program)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// It called exit(2).
    Code(i32),
    /// A signal killed it.
    Signal(i32),
}

/// For how long all threads were stopped at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stopped {
    /// To attach.
    pub attach: f64,
    /// To detach.
    pub detach: f64,
    /// The longest of all such stops.
    pub longest: f64,
}

/// A function that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Its name.
    pub function: String,
    /// Its allocator; none of those that map memory.
    #[serde(default)]
    pub family: Option<String>,
    /// The module that defines it.
    pub module: String,
    /// Where it is.
    pub address: Hex,
    /// How it was watched.
    pub kind: ProbeKind,
    /// Why it is no better probe.
    pub reason: Option<String>,
}

/// How a function was watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// By a jump to the agent.
    Detour,
    /// By stops.
    Breakpoint,
    /// Not at all.
    None,
}

impl ProbeKind {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            ProbeKind::Detour => "detour",
            ProbeKind::Breakpoint => "breakpoint",
            ProbeKind::None => "none",
        }
    }
}

/// Sums of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The heap's.
    #[serde(flatten)]
    pub heap: Heap,
    /// Calls that were seen, but not what they did.
    pub lost_events: u64,
    /// Call sites whose stack breaks off.
    pub truncated_stacks: u64,
    /// Blocks that are not listed because a suppression matches.
    pub suppressed_blocks: u64,
    /// Their bytes.
    pub suppressed_bytes: u64,
    /// Blocks that a language's runtime keeps for good.
    pub runtime_blocks: Option<u64>,
    /// Their bytes.
    pub runtime_bytes: Option<u64>,
    /// Blocks from before the trace.
    pub before_blocks: Option<u64>,
    /// Their bytes.
    pub before_bytes: Option<u64>,
    /// Regions that the program mapped and has not unmapped.
    #[serde(default)]
    pub mapped_regions: u64,
    /// Their bytes.
    #[serde(default)]
    pub mapped_bytes: u64,
}

/// A suppression, and what it has kept out of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppressed {
    /// Its name; of LeakSanitizer's its pattern.
    pub name: String,
    /// The file that it is from; none of one that leaktap has built in.
    pub file: Option<String>,
    /// The line there.
    pub line: Option<u32>,
    /// How many stacks it matched; 0 of one that matched nothing.
    pub sites: u64,
    /// How many blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The trace before, of a difference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Its process.
    pub target: Target,
    /// When it began.
    pub started: String,
    /// How long it took.
    pub duration: f64,
    /// Blocks that it has left.
    pub live_blocks: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Call sites that have as much as then, and are not listed.
    pub same_sites: u64,
}

/// An allocator, and what happened in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// What it is called.
    pub name: String,
    /// Its heap's sums.
    #[serde(flatten)]
    pub heap: Heap,
}

/// Sums of one heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heap {
    /// Allocations that succeeded.
    pub allocations: u64,
    /// Frees, also of blocks that are not known.
    pub frees: u64,
    /// Frees of what is no block that is known: from before an attach, or wrong.
    pub unmatched_frees: u64,
    /// Bytes of all allocations.
    pub allocated_bytes: u64,
    /// Blocks that no free has matched.
    pub live_blocks: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// The most that `live_bytes` has been.
    pub peak_bytes: u64,
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
