//! A flame graph: one SVG file, to be opened in a browser.

use std::io::{self, BufWriter, Write};

use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{Options, from_lines};

use super::folded::{foldable_titles, numbers};
use super::frames::{processes, stack};
use super::text::and_suppressed;
use super::tree::Tree;
use crate::names::printable;
use crate::{Format, Report, Site};

/// Stacks by bytes, callers below.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flamegraph<'a> {
    /// The processes that the report sums up, if there are several.
    pub of: &'a [Report],
}

/// What sums in the graph do not exceed.
const MOST: u64 = 1 << 53;

/// A frame of less than this part of the whole is too narrow to be seen.
const NARROWEST: u64 = 12_000;

/// Stands for stacks that are too narrow altogether.
const OTHERS: &str = "[too narrow]";

/// The only line of a report that has none.
const NOTHING: &str = "[nothing listed] 1";

impl Format for Flamegraph<'_> {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        for report in reports {
            let of = match self.of {
                [] => std::slice::from_ref(report),
                several => several,
            };
            let mut options = Options::default();
            options.colors = Palette::Basic(BasicPalette::Mem);
            options.count_name = "bytes".to_owned();
            options.title = match report.compared {
                Some(_) => format!("More (red) and less (blue) not freed: {}", processes(of)),
                None => format!("Not freed: {}", processes(of)),
            };
            options.subtitle = Some(format!(
                "leaktap, {}{}",
                printable(&report.started),
                and_suppressed("; ", report)
            ));
            let mut lines = match report.compared {
                Some(_) => differences(report),
                None => lines(report),
            };
            // A graph has to have a width.
            if lines.is_empty() {
                lines = vec![NOTHING.to_owned()];
            }
            let lines = lines.iter().map(String::as_str);
            from_lines(&mut options, lines, &mut out).map_err(io::Error::other)?;
        }
        out.flush()
    }
}

/// Folded stacks of a difference, each with what there was, and what there is.
fn differences(report: &Report) -> Vec<String> {
    let titles = foldable_titles(report);
    let most = MOST / (report.sites.len() as u64).max(1);
    let line = |site: &Site| {
        let frames: Vec<_> = stack(site, &titles).collect();
        format!("{} {}", frames.join(";"), numbers(site, most))
    };
    // What is gone has no width: a graph of nothing else would have none.
    let is_something = report.sites.iter().any(|site| site.bytes > 0);
    let lines = report.sites.iter().filter(|_| is_something);
    lines.map(line).collect()
}

/// Folded stacks, of which what is too narrow is summed up at its caller.
fn lines(report: &Report) -> Vec<String> {
    let titles = foldable_titles(report);
    let mut tree = Tree::new();
    let mut left = MOST;
    for site in &report.sites {
        let bytes = site.bytes.min(left);
        left -= bytes;
        tree.add(stack(site, &titles), bytes);
    }
    let least = (MOST - left) / NARROWEST;
    let mut lines = Vec::new();
    // What is yet to be told, each with its callers.
    let mut nodes = vec![(0, String::new())];
    while let Some((at, callers)) = nodes.pop() {
        let Some(node) = tree.node(at) else { continue };
        let path = match (node.key, callers.is_empty()) {
            (Some(name), false) => format!("{callers};{name}"),
            (name, _) => name.unwrap_or_default().to_owned(),
        };
        let mut own = node.bytes;
        for (below, bytes) in tree.below(node).filter(|(_, bytes)| *bytes > least) {
            own -= bytes;
            nodes.push((below, path.clone()));
        }
        let path = if path.is_empty() { OTHERS } else { &path };
        if own > 0 {
            lines.push(format!("{path} {own}"));
        }
    }
    lines
}
