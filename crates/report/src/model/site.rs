//! What is left, by call site.

use serde::{Deserialize, Serialize};

use super::FrameId;

/// Blocks, or regions, of one stack.
///
/// There may be tens of thousands: what leaktap cannot tell yet of any is left out, not null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// How many were allocated there in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated_blocks: Option<u64>,
    /// Their bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated_bytes: Option<u64>,
    /// Age of the youngest at the end of the trace.
    pub youngest: f64,
    /// Age of the oldest.
    pub oldest: f64,
    /// How it grows.
    pub growth: Option<Growth>,
    /// How much of it is in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// What the blocks look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// The first frame of the user's own code.
    pub culprit: Option<FrameId>,
    /// The stack, from the innermost frame outside of the allocator.
    pub frames: Vec<FrameId>,
    /// All stacks of it, if there are more than one that read the same: of unrolled or cloned code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alike: Vec<Alike>,
    /// When it was first seen to have blocks, in seconds from the beginning; captures only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<f64>,
    /// Bytes that it had at each of [`Report::series_at`](crate::Report::series_at), where that is
    /// known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Option<u64>>,
    /// How many blocks it had at each of [`Report::looks`](crate::Report::looks), if any; captures
    /// only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<u64>,
    /// How many stacks it sums up, if these have more in common than is listed: the frames are
    /// those of the largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stacks: Option<u64>,
    /// How many of these grow by themselves; only while there are ages of which to say that.
    #[serde(skip)]
    pub growing_stacks: u64,
    /// The sites that it sums up, as they were, if they are wanted; in no file.
    #[serde(skip)]
    pub members: Vec<Site>,
    /// How its bytes have changed over the time line, if that is known; JSON reports only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trend: Option<Slope>,
    /// What there was of it in the report that this one is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Amount>,
    /// What has become of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// The frames of the allocator, before these; captures only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocator: Vec<FrameId>,
    /// Why the stack breaks off, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<String>,
    /// How old they are; captures only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ages: Vec<Age>,
}

impl Site {
    /// The stack from its innermost frame on.
    pub(crate) fn whole_stack(&self) -> impl Iterator<Item = FrameId> + '_ {
        self.allocator.iter().chain(&self.frames).copied()
    }

    /// The frames of all of its stacks.
    pub(crate) fn all_frames(&self) -> impl Iterator<Item = FrameId> + '_ {
        let alike = self.alike.iter().flat_map(|one| &one.frames);
        self.whole_stack().chain(alike.copied())
    }
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// How many blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    /// Adds so much.
    pub(crate) fn add(&mut self, blocks: u64, bytes: u64) {
        self.blocks = self.blocks.saturating_add(blocks);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// How a site differs from what it was in another report.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// In a word.
    pub kind: Changed,
    /// So many blocks more, or fewer.
    pub blocks: i64,
    /// So many bytes.
    pub bytes: i64,
    /// Bytes left for each second of the trace before.
    pub rate_before: Option<f64>,
    /// And of this one.
    pub rate_after: Option<f64>,
}

/// What has become of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Changed {
    /// There was none.
    New,
    /// There were fewer blocks, or fewer bytes.
    Grown,
    /// There were more blocks, or more bytes, and no less of either.
    Shrunk,
    /// There is none.
    Gone,
}

impl Changed {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Changed::New => "new",
            Changed::Grown => "grown",
            Changed::Shrunk => "shrunk",
            Changed::Gone => "gone",
        }
    }
}

/// One of the stacks that read the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alike {
    /// The stack.
    pub frames: Vec<FrameId>,
    /// How many blocks of the site are of it.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Blocks of the same age: `[age, blocks, bytes]` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, u64, u64)", into = "(f64, u64, u64)")]
pub struct Age {
    /// Their age at the end of the trace.
    pub age: f64,
    /// How many.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl From<(f64, u64, u64)> for Age {
    fn from((age, blocks, bytes): (f64, u64, u64)) -> Age {
        Age { age, blocks, bytes }
    }
}

impl From<Age> for (f64, u64, u64) {
    fn from(of: Age) -> (f64, u64, u64) {
        (of.age, of.blocks, of.bytes)
    }
}

/// Leak kinds: memcheck's four, what is not graded, and what is none.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Not freed while leaktap watched; no more is known.
    #[default]
    Unmatched,
    /// Nothing points to it.
    Definite,
    /// Only lost blocks point to it.
    Indirect,
    /// Something points into its middle.
    Possible,
    /// Something points to it.
    Reachable,
    /// A language's runtime keeps it for good: no leak.
    Runtime,
}

impl Kind {
    /// Whether the program could still free such blocks: they are no leak, whatever else is one at
    /// the same place.
    pub(crate) fn is_in_use(self) -> bool {
        matches!(self, Kind::Reachable | Kind::Runtime)
    }

    /// Whether somebody has looked what leads to such blocks.
    pub(crate) fn is_graded(self) -> bool {
        !matches!(self, Kind::Unmatched | Kind::Runtime)
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Unmatched => "unmatched",
            Kind::Definite => "definite",
            Kind::Indirect => "indirect",
            Kind::Possible => "possible",
            Kind::Reachable => "reachable",
            Kind::Runtime => "runtime",
        }
    }
}

/// Where memory is from.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// An allocator function.
    #[default]
    Heap,
    /// mmap(2) and its kin, called by the program itself.
    Mapping,
    /// An allocator function, before the trace.
    Before,
}

/// How its bytes have changed over the time line, whatever that proves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// By so much, as Theil and Sen estimate it.
    pub bytes_per_second: f64,
    /// How likely what has no trend is to look like one by chance, as Mann and Kendall test it.
    pub p: f64,
}

/// How a site grows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// By so much, if that is known.
    pub bytes_per_second: Option<f64>,
    /// How likely what has no trend is to look like one by chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// In a word, if that is proven; a JSON report has no growth without.
    pub pattern: Option<Course>,
    /// In some words; only while there are ages of which to say them.
    #[serde(skip)]
    pub text: Option<String>,
}

impl Growth {
    /// Its figures, if they are known.
    pub(crate) fn slope(&self) -> Option<Slope> {
        Some(Slope {
            bytes_per_second: self.bytes_per_second?,
            p: self.p?,
        })
    }

    /// The word for what is proven. `None` if nothing is.
    pub(crate) fn word(&self) -> Option<&'static str> {
        self.pattern.map(Course::name)
    }
}

/// What becomes of a site's blocks in the course of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Course {
    /// More and more.
    #[serde(rename = "growing")]
    Growing,
    /// It grew to a limit.
    #[serde(rename = "full")]
    Full,
    /// Blocks come and go.
    #[serde(rename = "turns over")]
    TurnsOver,
    /// Made at the beginning.
    #[serde(rename = "start-up")]
    StartUp,
    /// It grew for a while.
    #[serde(rename = "stopped")]
    Stopped,
}

impl Course {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Course::Growing => "growing",
            Course::Full => "full",
            Course::TurnsOver => "turns over",
            Course::StartUp => "start-up",
            Course::Stopped => "stopped",
        }
    }
}

/// What the blocks of a site look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Size of each.
    pub size: u64,
    /// What their first words point to.
    pub holds: Option<String>,
    /// The number of the site whose blocks they look like.
    pub like_site: Option<u32>,
}
