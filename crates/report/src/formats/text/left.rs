//! The last line: what is left.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::columns::wrapped;
use super::{Style, changes};
use crate::names::printable;
use crate::numbers::{count, exact_bytes};
use crate::{Family, Report, Site, Source, Totals};

/// What is left, and how much of it the filters have kept out of the list.
pub(super) fn last_line(
    report: &Report,
    shown: &[Site],
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let line = format!("leaktap: {}", what_is_left(report, shown));
    let line = wrapped(&line, 2, style.width);
    writeln!(out, "\n{}", style.strong(&line))
}

/// The same without leaktap's name.
pub(crate) fn what_is_left(report: &Report, shown: &[Site]) -> String {
    let left = match &report.compared {
        Some(before) => changes::sum(report, before),
        None => left_and_listed(report, shown),
    };
    let suppressed = amount_suppressed(report).map(|amount| format!("suppressed: {amount}"));
    let parts = [Some(left), suppressed, report.doubt()];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// How much a suppression has kept out of the list, if anything.
pub(crate) fn amount_suppressed(report: &Report) -> Option<String> {
    let Totals {
        suppressed_blocks,
        suppressed_bytes,
        ..
    } = report.totals;
    let blocks = count(suppressed_blocks, "block");
    (suppressed_blocks > 0).then(|| format!("{} in {blocks}", exact_bytes(suppressed_bytes)))
}

/// The same behind other words, and what separates it from these; nothing if that is nothing.
pub(crate) fn and_suppressed(separator: &str, report: &Report) -> String {
    let amount = amount_suppressed(report);
    amount.map_or_else(String::new, |amount| {
        format!("{separator}suppressed: {amount}")
    })
}

fn left_and_listed(report: &Report, shown: &[Site]) -> String {
    let are_told_apart = !report.families.is_empty();
    let (listed, left) = (listed(shown, are_told_apart), left(report));
    let sites = count(shown.len() as u64, "call site");
    let exceeds = |of: &str, left: &Amount| left.exceeds(listed.get(of).unwrap_or(&NOTHING));
    match shown.len() {
        0 if left.values().all(Amount::is_empty) => match report.doubt() {
            None => "no unfreed blocks".to_owned(),
            Some(_) => "no unfreed blocks were seen".to_owned(),
        },
        0 => format!("none of {} left is listed", text(&left)),
        _ if left.iter().any(|(of, left)| exceeds(of, left)) => {
            format!(
                "{} at {sites} listed, of {} left",
                text(&listed),
                text(&left)
            )
        }
        _ => format!("{} left, at {sites}", text(&listed)),
    }
}

/// Amounts by allocator; one, without a name, if no more than one was called. Mappings are with
/// that, or for themselves.
type Amounts<'a> = BTreeMap<&'a str, Amount>;

const NOTHING: Amount = Amount {
    blocks: 0,
    regions: 0,
    bytes: 0,
};

fn listed(sites: &[Site], are_told_apart: bool) -> Amounts<'_> {
    let mut amounts = Amounts::new();
    for site in sites {
        let family = site.family.as_deref().filter(|_| are_told_apart);
        let amount = amounts.entry(family.unwrap_or_default()).or_default();
        amount.add(site.source, site.blocks, site.bytes);
    }
    amounts
}

fn left(report: &Report) -> Amounts<'_> {
    let totals = &report.totals;
    let mut amounts = Amounts::new();
    let of_none = amounts.entry("").or_default();
    of_none.add(Source::Mapping, totals.mapped_regions, totals.mapped_bytes);
    if report.families.is_empty() {
        let heap = &totals.heap;
        of_none.add(Source::Heap, heap.live_blocks, heap.live_bytes);
    }
    for Family { name, heap } in &report.families {
        let amount = amounts.entry(name).or_default();
        amount.add(Source::Heap, heap.live_blocks, heap.live_bytes);
    }
    amounts
}

fn text(amounts: &Amounts<'_>) -> String {
    let some = amounts.iter().filter(|(_, amount)| !amount.is_empty());
    let texts = some.map(|(of, amount)| match of.is_empty() {
        true => amount.text(),
        false => format!("{}: {}", printable(of), amount.text()),
    });
    texts.collect::<Vec<_>>().join("; ")
}

/// A sum of blocks and regions.
#[derive(Default)]
struct Amount {
    blocks: u64,
    regions: u64,
    bytes: u64,
}

impl Amount {
    fn add(&mut self, source: Source, number: u64, bytes: u64) {
        let sum = match source {
            Source::Heap | Source::Before => &mut self.blocks,
            Source::Mapping => &mut self.regions,
        };
        *sum = sum.saturating_add(number);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn is_empty(&self) -> bool {
        self.blocks == 0 && self.regions == 0
    }

    fn exceeds(&self, other: &Amount) -> bool {
        self.blocks > other.blocks || self.regions > other.regions
    }

    fn text(&self) -> String {
        let blocks = count(self.blocks, "block");
        let regions = count(self.regions, "region");
        let what = match (self.blocks, self.regions) {
            (_, 0) => blocks,
            (0, _) => regions,
            _ => format!("{blocks} and {regions}"),
        };
        format!("{} in {what}", exact_bytes(self.bytes))
    }
}
