//! What is not listed because a suppression matches it.

use std::io::{self, Write};

use super::Style;
use super::columns::wrapped;
use crate::names::printable;
use crate::numbers::{count, exact_bytes, grouped};
use crate::{Report, Suppressed};

/// Most lines of those that are told unless more is asked for.
const USUAL: usize = 10;

/// A line for each suppression that matched something, and each of a file that matched nothing.
pub(super) fn suppressed(report: &Report, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let all = &report.suppressions;
    if all.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", style.strong("Suppressed"))?;
    let most = if style.verbose { all.len() } else { USUAL };
    for one in all.iter().take(most) {
        writeln!(out, "{}", wrapped(&line(one), 4, style.width))?;
    }
    match all.len().saturating_sub(most) {
        0 => Ok(()),
        more => writeln!(out, "  … {} more (-v)", grouped(more as u64)),
    }
}

fn line(one: &Suppressed) -> String {
    let [what, name, place] = pieces(one);
    format!("  {what}: {name} ({place})")
}

/// What it has kept out of the list, its name, and where it is from.
pub(crate) fn pieces(one: &Suppressed) -> [String; 3] {
    let what = match one.sites {
        0 => "nothing".to_owned(),
        sites => format!(
            "{} in {} of {}",
            exact_bytes(one.bytes),
            count(one.blocks, "block"),
            count(sites, "stack")
        ),
    };
    let place = match (&one.file, one.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        _ => "built in".to_owned(),
    };
    let printable = |text: &str| printable(text).into_owned();
    [what, printable(&one.name), printable(&place)]
}
