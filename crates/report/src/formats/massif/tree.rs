//! The tree of a detailed snapshot: allocator functions at the top, callers below.

use std::cmp::Reverse;
use std::io::{self, Write};

use super::uncommented;
use crate::formats::dhat::text;
use crate::formats::tree::{Node, Tree};
use crate::{FrameId, Report};

/// What is less than a hundredth is summed up, as massif does it.
const THRESHOLD: u64 = 100;

/// Stands for stacks of which only the sum is known.
const OTHERS: &str = "[other stacks]";

/// Stacks, each from its innermost frame on.
pub(super) struct Callers<'a> {
    report: &'a Report,
    tree: Tree<FrameId>,
    /// Bytes of all, and of these that of stacks which are not known.
    total: u64,
    others: u64,
}

impl<'a> Callers<'a> {
    /// Of stacks with their bytes, and those of all, if there are more of them.
    pub(super) fn new<'s>(
        report: &'a Report,
        stacks: impl Iterator<Item = (&'s [FrameId], u64)>,
        all: u64,
    ) -> Callers<'a> {
        let mut tree = Tree::new();
        for (frames, bytes) in stacks {
            tree.add(frames.iter().copied(), bytes);
        }
        let known = tree.node(0).map_or(0, |root| root.bytes);
        Callers {
            report,
            tree,
            total: all.max(known),
            others: all.saturating_sub(known),
        }
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        // What is yet to be written, the next one last, each with its depth.
        let mut left = vec![(Line::Node(0), 0)];
        while let Some((line, depth)) = left.pop() {
            let node = match line {
                Line::Node(at) => self.tree.node(at),
                Line::Small { bytes, places } => {
                    small(depth, bytes, places, out)?;
                    None
                }
                Line::Others => {
                    writeln!(out, "{:depth$}n0: {} {OTHERS}", "", self.others)?;
                    None
                }
            };
            if let Some(node) = node {
                let below = self.below(node);
                self.line(node, depth, below.len(), out)?;
                left.extend(below.into_iter().rev().map(|line| (line, depth + 1)));
            }
        }
        Ok(())
    }

    /// The lines below a node, the largest first.
    fn below(&self, node: &Node<FrameId>) -> Vec<Line> {
        let (mut large, small): (Vec<_>, Vec<_>) = self
            .tree
            .below(node)
            .partition(|(_, bytes)| *bytes >= self.total / THRESHOLD && *bytes > 0);
        large.sort_by_key(|&(at, bytes)| (Reverse(bytes), at));
        let mut lines: Vec<_> = large
            .into_iter()
            .map(|(at, bytes)| (Line::Node(at), bytes))
            .collect();
        if !small.is_empty() {
            let places = small.len();
            let sum = small.into_iter().map(|(_, bytes)| bytes);
            let bytes = sum.fold(0, u64::saturating_add);
            insert(Line::Small { bytes, places }, bytes, &mut lines);
        }
        if node.key.is_none() && self.others > 0 {
            insert(Line::Others, self.others, &mut lines);
        }
        lines.into_iter().map(|(line, _)| line).collect()
    }

    fn line(
        &self,
        node: &Node<FrameId>,
        depth: usize,
        children: usize,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let place = node.key.and_then(|id| self.report.tables().place(id));
        let what = match place {
            Some(place) => uncommented(&text(&place)),
            None => "(heap allocation functions) malloc/new/new[], --alloc-fns, etc.".to_owned(),
        };
        let bytes = match node.key {
            Some(_) => node.bytes,
            None => self.total,
        };
        writeln!(out, "{:depth$}n{children}: {bytes} {what}", "")
    }
}

enum Line {
    Node(u32),
    Small { bytes: u64, places: usize },
    Others,
}

/// Puts a line before those that have less.
fn insert(line: Line, bytes: u64, lines: &mut Vec<(Line, u64)>) {
    let before = lines.partition_point(|(_, size)| *size >= bytes);
    lines.insert(before, (line, bytes));
}

fn small(depth: usize, bytes: u64, places: usize, out: &mut impl Write) -> io::Result<()> {
    let of = match places {
        1 => "1 place, below".to_owned(),
        places => format!("{places} places, all below"),
    };
    let threshold = "massif's threshold (1.00%)";
    writeln!(out, "{:depth$}n0: {bytes} in {of} {threshold}", "")
}
