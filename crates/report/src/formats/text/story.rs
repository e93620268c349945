//! How it came to a site: what the culprit called, and who called the culprit.

use std::fmt;

use crate::own::class;
use crate::own::origin::{Class, Origin};
use crate::{FrameId, Site, Tables};

/// Most lines of callers.
const MOST: usize = 16;

/// What is told of a stack.
#[derive(Debug)]
pub(super) struct Story {
    /// The frame to blame.
    pub(super) culprit: FrameId,
    /// What that called, and what all frames from there on are in.
    pub(super) calls: Option<(FrameId, Option<Folded>)>,
    /// Who called it, innermost first.
    pub(super) callers: Vec<Line>,
    /// How many frames more there are.
    pub(super) more: usize,
}

/// A line of a story.
#[derive(Debug)]
pub(super) enum Line {
    /// A frame, so many times in a row.
    Frame(FrameId, usize),
    /// Some frames that are not the user's own.
    Folded(Folded),
}

/// How many frames are in what.
#[derive(Debug, Default)]
pub(super) struct Folded(Vec<(String, usize)>);

impl Folded {
    fn add(&mut self, label: &str) {
        match self.0.iter_mut().find(|(known, _)| known == label) {
            Some((_, number)) => *number += 1,
            None => self.0.push((label.to_owned(), 1)),
        }
    }
}

impl fmt::Display for Folded {
    /// `4 in libstdc++, 1 in libc`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self
            .0
            .iter()
            .map(|(label, number)| format!("{number} in {label}"));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

/// The story of `site`. None if it has no frames.
pub(super) fn story(site: &Site, tables: Tables<'_>, classes: &[Class]) -> Option<Story> {
    let first = site.frames.first()?;
    let culprit = site.culprit.unwrap_or(*first);
    let at = site.frames.iter().position(|id| *id == culprit);
    let (inner, rest) = site.frames.split_at(at.unwrap_or(0));
    let (_, outer) = rest.split_first()?;
    let calls = inner.last().map(|&called| {
        let is_all = inner.len() == 1;
        (called, (!is_all).then(|| folded(inner, tables)))
    });
    let outer = match site.truncated {
        None => without_start(outer, tables, classes),
        Some(_) => outer,
    };
    let outer = without_entry(outer, class(classes, culprit), classes);
    let mut callers = lines(outer, tables, classes);
    let more = callers.split_off(callers.len().min(MOST));
    let more = more.iter().map(|line| match line {
        Line::Frame(_, times) => *times,
        Line::Folded(Folded(parts)) => parts.iter().map(|(_, number)| number).sum(),
    });
    Some(Story {
        culprit,
        calls,
        more: more.sum(),
        callers,
    })
}

fn folded(frames: &[FrameId], tables: Tables<'_>) -> Folded {
    let mut folded = Folded::default();
    for place in frames.iter().filter_map(|&id| tables.place(id)) {
        folded.add(&Origin::of(&place).label);
    }
    folded
}

/// Without `_start` of a stripped program: it calls the C library, which calls `main`.
fn without_start<'f>(outer: &'f [FrameId], tables: Tables<'_>, classes: &[Class]) -> &'f [FrameId] {
    let is_nameless = |&id: &FrameId| {
        let frame = tables.frame(id);
        frame.is_some_and(|frame| frame.function.is_none() && frame.file.is_none())
    };
    match outer {
        [rest @ .., caller, start]
            if is_nameless(start) && class(classes, *caller) == Class::System =>
        {
            outer.get(..=rest.len()).unwrap_or(outer)
        }
        _ => outer,
    }
}

/// Without what programs and threads begin with: runtimes, behind all other code.
fn without_entry<'f>(outer: &'f [FrameId], culprit: Class, classes: &[Class]) -> &'f [FrameId] {
    if culprit >= Class::Standard {
        return outer;
    }
    let is_entry = |id: &FrameId| class(classes, *id) >= Class::Standard;
    let last = outer.iter().rposition(|id| !is_entry(id));
    outer.split_at(last.map_or(0, |last| last + 1)).0
}

fn lines(frames: &[FrameId], tables: Tables<'_>, classes: &[Class]) -> Vec<Line> {
    let is_own = |id: &FrameId| class(classes, *id) == Class::Own;
    let same = |a: &FrameId, b: &FrameId| match is_own(a) {
        true => a == b,
        false => !is_own(b),
    };
    let runs = frames.chunk_by(same);
    let line = |run: &[FrameId]| match run {
        [id] => Some(Line::Frame(*id, 1)),
        [id, ..] if is_own(id) => Some(Line::Frame(*id, run.len())),
        [] => None,
        _ => Some(Line::Folded(folded(run, tables))),
    };
    runs.filter_map(line).collect()
}
