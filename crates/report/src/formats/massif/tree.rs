//! The tree of a detailed snapshot: allocator functions at the top, callers below.

use std::collections::HashMap;
use std::io::{self, Write};

use super::uncommented;
use crate::formats::dhat::text;
use crate::{FrameId, Report, Site};

/// Callers by callee. The first node is the root.
pub(super) struct Tree<'a> {
    report: &'a Report,
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    frame: Option<FrameId>,
    bytes: u64,
    /// Of the callers, what is no frame: where a stack ends.
    children: HashMap<FrameId, usize>,
}

/// What is less than a hundredth is summed up, as massif does it.
const THRESHOLD: u64 = 100;

impl<'a> Tree<'a> {
    pub(super) fn new(report: &'a Report, sites: &[&'a Site]) -> Tree<'a> {
        let nodes = vec![Node::default()];
        let mut tree = Tree { report, nodes };
        for site in sites {
            tree.add(site);
        }
        tree
    }

    fn add(&mut self, site: &Site) {
        let mut at = 0;
        self.count(at, site.bytes);
        for &frame in &site.frames {
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else {
                return;
            };
            at = *node.children.entry(frame).or_insert(next);
            if at == next {
                let frame = Some(frame);
                self.nodes.push(Node {
                    frame,
                    ..Node::default()
                });
            }
            self.count(at, site.bytes);
        }
    }

    fn count(&mut self, at: usize, bytes: u64) {
        if let Some(node) = self.nodes.get_mut(at) {
            node.bytes = node.bytes.saturating_add(bytes);
        }
    }

    pub(super) fn write(&self, total: u64, out: &mut impl Write) -> io::Result<()> {
        // What is yet to be written, the next one last, each with its depth.
        let mut left = vec![(Line::Node(0), 0)];
        while let Some((line, depth)) = left.pop() {
            let node = match line {
                Line::Node(at) => self.nodes.get(at),
                Line::Small { bytes, places } => {
                    small(depth, bytes, places, out)?;
                    None
                }
            };
            if let Some(node) = node {
                let below = self.below(node, total);
                self.line(node, depth, below.len(), out)?;
                left.extend(below.into_iter().rev().map(|line| (line, depth + 1)));
            }
        }
        Ok(())
    }

    /// The lines below a node, the largest first.
    fn below(&self, node: &Node, total: u64) -> Vec<Line> {
        let size = |at: usize| self.nodes.get(at).map_or(0, |node| node.bytes);
        let children = node.children.values().map(|&at| (at, size(at)));
        let (mut large, small): (Vec<_>, Vec<_>) =
            children.partition(|(_, bytes)| *bytes >= total / THRESHOLD && *bytes > 0);
        large.sort_by_key(|&(at, bytes)| (std::cmp::Reverse(bytes), at));
        let mut lines: Vec<_> = large
            .into_iter()
            .map(|(at, bytes)| (Line::Node(at), bytes))
            .collect();
        if !small.is_empty() {
            let places = small.len();
            let sum = small.into_iter().map(|(_, bytes)| bytes);
            let bytes = sum.fold(0, u64::saturating_add);
            let before = lines.partition_point(|(_, size)| *size >= bytes);
            lines.insert(before, (Line::Small { bytes, places }, bytes));
        }
        lines.into_iter().map(|(line, _)| line).collect()
    }

    fn line(
        &self,
        node: &Node,
        depth: usize,
        children: usize,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let place = node.frame.and_then(|id| self.report.tables().place(id));
        let what = match place {
            Some(place) => uncommented(&text(&place)),
            None => "(heap allocation functions) malloc/new/new[], --alloc-fns, etc.".to_owned(),
        };
        let bytes = node.bytes;
        writeln!(out, "{:depth$}n{children}: {bytes} {what}", "")
    }
}

enum Line {
    Node(usize),
    Small { bytes: u64, places: usize },
}

fn small(depth: usize, bytes: u64, places: usize, out: &mut impl Write) -> io::Result<()> {
    let of = match places {
        1 => "1 place, below".to_owned(),
        places => format!("{places} places, all below"),
    };
    let threshold = "massif's threshold (1.00%)";
    writeln!(out, "{:depth$}n0: {bytes} in {of} {threshold}", "")
}
