//! What the page is given of a process: a list of numbers for each column, which takes less space
//! and time than an object a row. Texts and frames are numbers, too, of those in [`super::tables`].

use serde::Serialize;

use crate::Amount;

/// Numbers of texts; 0 is the empty one.
pub(super) type Text = u32;

/// One process, or the sum of several.
#[derive(Debug, Default, Serialize)]
pub(super) struct Process {
    /// What it is called where one is chosen.
    pub(super) name: String,
    /// What it is.
    pub(super) title: String,
    /// The last line of a report in text.
    pub(super) verdict: String,
    /// Names and values.
    pub(super) about: Vec<(String, String)>,
    pub(super) notes: Vec<String>,
    /// Function, how it is watched, module, why not better.
    pub(super) probes: Vec<[String; 4]>,
    /// What a suppression has kept out of the list, its name, where it is from.
    pub(super) suppressed: Vec<[String; 3]>,
    /// Seconds.
    pub(super) duration: f64,
    /// Of a difference.
    pub(super) compared: Option<Compared>,
    pub(super) moments: Moments,
    pub(super) series: Series,
    pub(super) peak: Option<Peak>,
    pub(super) nodes: Nodes,
    pub(super) sites: Sites,
    pub(super) stacks: Stacks,
    /// In so many parts of the same length the time is divided, for `ages`.
    pub(super) parts: u32,
    /// Of each stack in turn, for each part in which blocks of it were allocated: part, blocks,
    /// bytes.
    pub(super) ages: Vec<u64>,
}

/// What a difference has of the trace before.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    /// How long it took, in seconds; none if rates are not to be told.
    pub(super) duration: Option<f64>,
}

/// What there was before: empty but in a difference.
#[derive(Debug, Default, Serialize)]
pub(super) struct Before {
    pub(super) blocks: Vec<u64>,
    pub(super) bytes: Vec<u64>,
}

impl Before {
    pub(super) fn push(&mut self, amount: Amount) {
        self.blocks.push(amount.blocks);
        self.bytes.push(amount.bytes);
    }
}

/// The time line.
#[derive(Debug, Default, Serialize)]
pub(super) struct Moments {
    pub(super) at: Vec<f64>,
    pub(super) live: Vec<u64>,
    /// Without leaktap's own.
    pub(super) rss: Vec<u64>,
}

/// The bytes that sites had in the course of the trace, of those of which that is known.
#[derive(Debug, Default, Serialize)]
pub(super) struct Series {
    pub(super) at: Vec<f64>,
    /// Their numbers.
    pub(super) site: Vec<u32>,
    /// Of each in turn, at each of the moments; none where that was not noted.
    pub(super) bytes: Vec<Option<u64>>,
}

/// When most was live, and whose it was.
#[derive(Debug, Serialize)]
pub(super) struct Peak {
    pub(super) at: f64,
    pub(super) bytes: u64,
    pub(super) sites: PeakSites,
}

/// The largest stacks then.
#[derive(Debug, Default, Serialize)]
pub(super) struct PeakSites {
    pub(super) function: Vec<Text>,
    pub(super) bytes: Vec<u64>,
    /// Innermost first.
    pub(super) frames: Vec<Vec<u32>>,
}

/// All stacks as a tree: node 0 is what all have in common, nothing.
#[derive(Debug, Default, Serialize)]
pub(super) struct Nodes {
    /// By how much less than a node's number that of its caller is.
    pub(super) up: Vec<u32>,
    pub(super) frame: Vec<u32>,
}

/// What is listed.
#[derive(Debug, Default, Serialize)]
pub(super) struct Sites {
    pub(super) kind: Vec<Text>,
    /// 1 for regions, 0 for blocks.
    pub(super) region: Vec<u8>,
    /// The function that was called, and of which allocator.
    pub(super) function: Vec<Text>,
    /// How it grows, in a word.
    pub(super) growth: Vec<Text>,
    /// The same in some words.
    pub(super) growing: Vec<Text>,
    /// The culprit's frame and 1; 0 where there is no frame.
    pub(super) frame: Vec<u32>,
    pub(super) blocks: Vec<u64>,
    pub(super) bytes: Vec<u64>,
    /// What has become of it, in a word; empty but in a difference, as is what there was.
    pub(super) change: Vec<Text>,
    pub(super) before: Before,
    pub(super) youngest: Vec<f64>,
    pub(super) oldest: Vec<f64>,
    /// How many of the stacks are its own: they are in the same order.
    pub(super) stacks: Vec<u32>,
}

/// The stacks of all sites.
#[derive(Debug, Default, Serialize)]
pub(super) struct Stacks {
    /// The innermost frame's.
    pub(super) node: Vec<u32>,
    pub(super) blocks: Vec<u64>,
    pub(super) bytes: Vec<u64>,
    pub(super) before: Before,
    /// Bytes that were allocated in all; empty if that is known of none.
    pub(super) allocated: Vec<Option<u64>>,
    /// How many of the ages are its own.
    pub(super) ages: Vec<u32>,
}
