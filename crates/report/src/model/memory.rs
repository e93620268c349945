//! What the memory of a process was like: when it was looked at, where it went, its children.

use serde::{Deserialize, Serialize};

use super::FrameId;

/// One look at memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When, from the beginning of the trace.
    pub at: f64,
    /// How.
    pub rung: Rung,
    /// For how long the process was stopped.
    pub stopped: f64,
}

/// How exact a look at memory was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rung {
    /// One moment, by write-protection.
    A,
    /// One moment, by a forked child.
    B,
    /// What several looks agree upon.
    C,
}

/// Whether grades were right: what was lost cannot be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Blocks that were judged to be lost.
    pub graded: u64,
    /// How many of them were freed later.
    pub freed_later: u64,
}

/// Where the resident memory went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub rss: u64,
    /// What no part explains.
    pub unexplained: u64,
    /// The rest.
    pub parts: Vec<Part>,
}

/// A part of the resident memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it is.
    pub what: What,
    /// How much.
    pub bytes: u64,
    /// More of it.
    pub detail: String,
}

/// What resident memory can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Blocks that were allocated under trace.
    Live,
    /// Blocks from before it.
    Before,
    /// Free in the allocator, and could be given back.
    Free,
    /// Free in the allocator, and held by a block behind it.
    Pinned,
    /// Kept by the allocator for a thread.
    Cached,
    /// The allocator's own.
    Metadata,
    /// The program's own mappings.
    Mapping,
    /// Stacks of threads.
    Stack,
    /// Files.
    File,
    /// Shared with other processes.
    Shared,
    /// Swapped out.
    Swap,
}

/// How much memory there was at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// When, from the beginning of the trace.
    pub at: f64,
    /// Bytes of blocks that were allocated under trace.
    pub live_bytes: u64,
    /// How many.
    pub live_blocks: u64,
    /// Resident memory.
    pub rss: u64,
    /// How much of it leaktap takes there.
    #[serde(default)]
    pub agent: u64,
    /// Its share of what is shared, and all else.
    pub pss: Option<u64>,
    /// Address space for data.
    pub vm_data: u64,
    /// Address space.
    pub vm_size: u64,
}

/// Most bytes of live blocks, of the moments at which these were summed up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// When, from the beginning of the trace.
    pub at: f64,
    /// Bytes of the heap that lived then.
    pub live_bytes: u64,
    /// Whose they were: the largest hundred, largest first.
    pub sites: Vec<PeakSite>,
}

/// What a stack had at the peak.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeakSite {
    /// The function that was called.
    pub function: String,
    /// Bytes that lived.
    pub bytes: u64,
    /// The stack, from the innermost frame outside of the allocator.
    pub frames: Vec<FrameId>,
}

/// When a limit is reached if memory grows on as it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// What the limit is called: `memory.max`, `RLIMIT_DATA`.
    pub limit: String,
    /// Bytes that it allows.
    pub bytes: u64,
    /// How many of these are used.
    pub used: u64,
    /// By how much the process grows.
    pub bytes_per_second: f64,
    /// How likely it is to look so by chance.
    pub p: f64,
    /// How long it takes from the end of the trace.
    pub seconds: f64,
}

/// What there was of blocks at a moment of the trace: `[at, live, unmatched]` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, u64, u64)", into = "(f64, u64, u64)")]
pub struct Look {
    /// When, from the beginning of the trace.
    pub at: f64,
    /// Live blocks of all allocators.
    pub live_blocks: u64,
    /// Frees so far that found no live block: from before the trace.
    pub unmatched_frees: u64,
}

impl From<(f64, u64, u64)> for Look {
    fn from((at, live_blocks, unmatched_frees): (f64, u64, u64)) -> Look {
        Look {
            at,
            live_blocks,
            unmatched_frees,
        }
    }
}

impl From<Look> for (f64, u64, u64) {
    fn from(of: Look) -> (f64, u64, u64) {
        (of.at, of.live_blocks, of.unmatched_frees)
    }
}

/// A process that the traced one has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Its process id.
    pub pid: i32,
    /// Its executable.
    pub program: String,
    /// It has a report of its own.
    pub traced: bool,
}
