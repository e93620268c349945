//! Leaks as a CI shows them: a message at a line of a file.

use std::path::Path;

use super::frames::title;
use crate::identity::fingerprints;
use crate::names::{printable, short, up_to_main};
use crate::numbers::{bytes, count};
use crate::selection::is_growing;
use crate::{FrameId, Kind, Place, Report, Site, Source};

/// Which sites are leaks, and from where paths are told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leaks<'a> {
    /// These kinds are.
    pub kinds: &'a [Kind],
    /// A folder whose files are known by the rest of their paths.
    pub root: Option<&'a Path>,
}

/// A leak.
pub(super) struct Finding<'a> {
    pub(super) site: &'a Site,
    /// The culprit.
    pub(super) function: String,
    /// Its file, from [`Leaks::root`] on if it is below.
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    /// The module, for want of a file.
    pub(super) module: Option<&'a str>,
    /// How much, of what kind, and who called.
    pub(super) message: String,
    pub(super) is_growing: bool,
    /// Stays what it is while lines move, and when the program is built again; no other of the
    /// report has it.
    pub(super) fingerprint: String,
}

impl Leaks<'_> {
    pub(super) fn of<'r>(&self, report: &'r Report) -> Vec<Finding<'r>> {
        let is_leak = |site: &&Site| self.kinds.contains(&site.kind);
        let leaks: Vec<_> = report.sites.iter().filter(is_leak).collect();
        let prints = fingerprints(&leaks, report);
        let findings = leaks.into_iter().zip(prints);
        findings
            .map(|(site, print)| self.finding(report, site, hash(&print)))
            .collect()
    }

    fn finding<'r>(&self, report: &'r Report, site: &'r Site, fingerprint: String) -> Finding<'r> {
        let tables = report.tables();
        let culprit = site.culprit.or(site.frames.first().copied());
        let place = culprit.and_then(|id| tables.place(id));
        let frame = place.map(|place| place.frame);
        let function = place.map_or_else(|| "[no stack]".to_owned(), |place| brief(&place));
        let file = frame.and_then(|frame| frame.file.as_deref());
        let file = file.filter(|path| !path.is_empty());
        let module = place.and_then(|place| Some(place.module?.path.as_str()));
        Finding {
            site,
            message: message(report, site, culprit, &function),
            function,
            file: file.map(|file| self.path(file)),
            line: frame.and_then(|frame| frame.line),
            module: module.filter(|path| !path.is_empty()),
            is_growing: is_growing(site),
            fingerprint,
        }
    }

    pub(super) fn path(&self, file: &str) -> String {
        let root = self.root.and_then(|root| root.to_str());
        let below = root.and_then(|root| {
            let root = root.strip_suffix('/').unwrap_or(root);
            file.strip_prefix(root)?.strip_prefix('/')
        });
        printable(below.unwrap_or(file)).into_owned()
    }
}

/// The function without arguments of templates.
fn brief(place: &Place<'_>) -> String {
    match &place.frame.function {
        Some(_) => short(&title(place)),
        None => title(place),
    }
}

fn message(report: &Report, site: &Site, culprit: Option<FrameId>, function: &str) -> String {
    let what = match site.source {
        Source::Mapping => "region",
        Source::Heap | Source::Before => "block",
    };
    let size = format!("{} in {}", bytes(site.bytes), count(site.blocks, what));
    let growing = if is_growing(site) { ", growing" } else { "" };
    let allocator = printable(&site.function);
    let kind = site.kind.name();
    let stack = report.tables().stack(&site.frames);
    let at = site.frames.iter().position(|id| Some(*id) == culprit);
    let callers = up_to_main(&stack).iter().skip(at.map_or(0, |at| at + 1));
    let callers: Vec<_> = callers.take(3).map(brief).collect();
    let from = match callers.is_empty() {
        true => String::new(),
        false => format!(", called by {}", callers.join(", ")),
    };
    format!("{size} not freed ({kind}{growing}; {allocator}), allocated in {function}{from}")
}

/// FNV-1a, 64 bits, in hexadecimal digits: the same everywhere, and for ever.
pub(super) fn hash(text: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{hash:016x}")
}
