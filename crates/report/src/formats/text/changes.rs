//! What has changed since another trace.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::Style;
use super::columns::wrapped;
use super::summary::process;
use crate::numbers::{bytes, count, exact_bytes, grouped};
use crate::{Change, Changed, Compared, Mode, Report, Site, Source};

/// The first lines of a difference: both traces, and what each has left.
pub(crate) fn heading(
    report: &Report,
    before: &Compared,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let was = Report {
        target: before.target.clone(),
        mode: report.mode,
        duration: before.duration,
        ..Report::default()
    };
    let heap = &report.totals.heap;
    for (name, of, (size, blocks)) in [
        ("before", &was, (before.live_bytes, before.live_blocks)),
        ("after", report, (heap.live_bytes, heap.live_blocks)),
    ] {
        let left = format!("{} in {}", exact_bytes(size), count(blocks, "block"));
        let line = format!("{name:<7} {}: {left} not freed", process(of));
        writeln!(out, "{}", wrapped(&line, 8, style.width))?;
    }
    Ok(())
}

/// What has become of a site: `+12.0 KiB in +3 blocks, grown: 4.0 KiB in 1 block before`.
///
/// Rates are told of processes that were attached to: what runs to its end takes as long as it
/// takes.
pub(super) fn amount(site: &Site, change: &Change, mode: Mode) -> (String, String) {
    let what = match site.source {
        Source::Mapping => "region",
        Source::Heap | Source::Before => "block",
    };
    let blocks = count(change.blocks.unsigned_abs(), what);
    let size = format!(
        "{}{} in {}{blocks}",
        sign(change.bytes),
        exact_bytes(change.bytes.unsigned_abs()),
        sign(change.blocks)
    );
    let before = site.before.unwrap_or_default();
    let amount = |size, blocks| format!("{} in {}", bytes(size), count(blocks, what));
    let was = match change.kind {
        Changed::New => String::new(),
        Changed::Gone => ", none left".to_owned(),
        Changed::Grown | Changed::Shrunk => format!(
            ", {} before, {} now",
            amount(before.bytes, before.blocks),
            amount(site.bytes, site.blocks)
        ),
    };
    let rates = match mode {
        Mode::Attach => rates(change),
        Mode::Run | Mode::Scan => String::new(),
    };
    (size, format!("{}{was}{rates}", change.kind.name()))
}

/// Bytes a second of both traces.
fn rates(change: &Change) -> String {
    let text = |rate: f64| format!("{}/s", bytes(rate as u64)); // as text
    match (change.rate_before, change.rate_after) {
        (Some(before), Some(after)) if change.kind != Changed::Gone => {
            format!("; {} before, {} now", text(before), text(after))
        }
        _ => String::new(),
    }
}

fn sign(number: i64) -> &'static str {
    match number {
        0.. => "+",
        _ => "-",
    }
}

/// The last line: how many sites have changed, and how.
pub(super) fn sum(report: &Report, before: &Compared) -> String {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut more, mut blocks) = (0i128, 0i128);
    for change in report.sites.iter().filter_map(|site| site.change) {
        *kinds.entry(change.kind.name()).or_default() += 1;
        more += i128::from(change.bytes);
        blocks += i128::from(change.blocks);
    }
    let kinds = [Changed::New, Changed::Grown, Changed::Shrunk, Changed::Gone].map(|kind| {
        let number = kinds.get(kind.name()).copied().unwrap_or_default();
        (number > 0).then(|| format!("{} {}", grouped(number), kind.name()))
    });
    let kinds: Vec<_> = kinds.into_iter().flatten().collect();
    let same = count(before.same_sites, "call site");
    if kinds.is_empty() {
        return format!("no change; {same} as before");
    }
    let sign = if more < 0 { "-" } else { "+" };
    let size = bytes(u64::try_from(more.unsigned_abs()).unwrap_or(u64::MAX));
    format!(
        "{sign}{size} in {}{}: {}; {same} as before",
        if blocks < 0 { "-" } else { "+" },
        count(
            u64::try_from(blocks.unsigned_abs()).unwrap_or(u64::MAX),
            "block"
        ),
        kinds.join(", ")
    )
}
