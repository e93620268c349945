//! Source lines below a culprit.

use std::io::{self, Write};

use super::Style;
use super::columns::cut;
use crate::Frame;
use crate::excerpts::Excerpts;

/// So many lines above and below its own.
const AROUND: u32 = 1;

/// The line of `frame`, marked, between its neighbours, if they are known.
pub(super) fn excerpt(
    frame: &Frame,
    excerpts: &Excerpts,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let place = frame.file.as_deref().zip(frame.line);
    let Some((lines, at)) = place.and_then(|(file, at)| Some((excerpts.of(file, at)?, at))) else {
        return Ok(());
    };
    let near = at.saturating_sub(AROUND)..=at.saturating_add(AROUND);
    let near: Vec<_> = lines.range(near).collect();
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let full = near.iter().filter(|(_, line)| !line.is_empty());
    let indent = full.map(|(_, line)| indent(line)).min().unwrap_or_default();
    let wide = near.last().map_or(1, |(last, _)| last.to_string().len());
    for (&number, line) in near {
        let mark = if number == at { '>' } else { ' ' };
        let line = line.get(indent..).unwrap_or_default();
        let text = format!("       {mark} {number:wide$} | {line}");
        let text = cut(text.trim_end(), style.width.unwrap_or(usize::MAX));
        match number == at {
            true => writeln!(out, "{text}")?,
            false => writeln!(out, "{}", style.dim(&text))?,
        }
    }
    Ok(())
}
