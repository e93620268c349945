//! The JSON report, schema 1, as types. Times are in seconds, sizes in bytes, addresses are
//! hexadecimal strings.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The schema that this crate writes and reads.
pub const SCHEMA: u32 = 1;

/// All that leaktap says of one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// leaktap's version.
    pub leaktap: String,
    /// The process.
    pub target: Target,
    /// `attach` or `run`.
    pub mode: String,
    /// What was asked for: `auto` or `breakpoint`.
    pub engine: String,
    /// When the trace began, RFC 3339, UTC.
    pub started: String,
    /// How long it took.
    pub duration: f64,
    /// For how long all threads were stopped.
    pub stopped: Stopped,
    /// The functions that were looked for and found.
    pub probes: Vec<Probe>,
    /// What happened in all; with several `families`, in that with the most allocations.
    pub totals: Totals,
    /// What happened in each allocator that was called, if that is more than one. There is no sum:
    /// a pool's objects lie in blocks of another one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<Family>,
    /// What is left, largest first.
    pub sites: Vec<Site>,
    /// What else the reader should know.
    pub notes: Vec<String>,
}

/// The process that was traced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Its process id.
    pub pid: i32,
    /// Its executable.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its threads when the trace began.
    pub threads: usize,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
    /// It ran on when leaktap left it.
    pub detached: bool,
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
    pub address: String,
    /// `detour`, `breakpoint` or `none`.
    pub kind: String,
    /// Why it is no better probe.
    pub reason: Option<String>,
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
    /// Regions that the program mapped and has not unmapped.
    #[serde(default)]
    pub mapped_regions: u64,
    /// Their bytes.
    #[serde(default)]
    pub mapped_bytes: u64,
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

/// Blocks, or regions, of one stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// What they are judged to be.
    pub kind: Kind,
    /// Where they are from.
    pub source: Source,
    /// The allocator whose blocks they are; none for regions.
    #[serde(default)]
    pub family: Option<String>,
    /// The function that was called.
    pub function: String,
    /// How many.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Age of the youngest at the end of the trace.
    pub youngest: f64,
    /// Age of the oldest.
    pub oldest: f64,
    /// The stack, from the innermost frame outside of the allocator. Stacks share frames: there are
    /// few beside the
    /// stacks that they are in.
    pub frames: Vec<Arc<Frame>>,
    /// Why the stack breaks off, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<String>,
    /// How old they are; captures only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ages: Vec<Age>,
}

/// Blocks of the same age.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Age {
    /// Their age at the end of the trace.
    pub age: f64,
    /// How many.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Leak kinds: memcheck's four, and what is not graded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Not freed while leaktap watched; no more is known.
    Unmatched,
    /// Nothing points to it.
    Definite,
    /// Only lost blocks point to it.
    Indirect,
    /// Something points into its middle.
    Possible,
    /// Something points to it.
    Reachable,
}

impl Kind {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Unmatched => "unmatched",
            Kind::Definite => "definite",
            Kind::Indirect => "indirect",
            Kind::Possible => "possible",
            Kind::Reachable => "reachable",
        }
    }
}

/// Where memory is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// An allocator function.
    Heap,
    /// mmap(2) and its kin, called by the program itself.
    Mapping,
}

/// A frame of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// The return address. Empty, and null in JSON, where a group has more than one.
    #[serde(serialize_with = "null_if_empty", deserialize_with = "empty_if_null")]
    pub address: String,
    /// The module that it is in.
    pub module: Option<String>,
    /// That module's build id.
    pub build_id: Option<String>,
    /// Its offset there.
    pub offset: Option<String>,
    /// The function.
    pub function: Option<String>,
    /// Its source file.
    pub file: Option<String>,
    /// Its line.
    pub line: Option<u32>,
    /// Inlined into the function of the next frame.
    pub inlined: bool,
    /// Found by frame pointer, for want of call frame information.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_frame_pointer: bool,
}

fn null_if_empty<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    Some(text)
        .filter(|text| !text.is_empty())
        .serialize(serializer)
}

fn empty_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
