//! What `heaptrack_print` and heaptrack's window open: version 3 of its text, as `--interpret`
//! writes it.
//!
//! It has a line for each block, so blocks without frees stand for what is left. Their sizes are
//! the average of their site. Regions that the program has mapped itself are not in it.

mod tables;

use std::io::{self, BufWriter, Write};

use self::tables::Tables;
use super::frames::{command_line, is_heap, milliseconds};
use super::text::amount_suppressed;
use crate::{Format, Report, Site};

/// What is left, allocated at the end, and the resident memory over time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heaptrack;

/// Most blocks: a line each is more than a viewer can use long before that.
const MOST: u64 = 10_000_000;

/// Bytes of a page, as far as sizes of resident memory are told in pages.
const PAGE: u64 = 4096;

impl Format for Heaptrack {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        for report in reports {
            one(report, &mut out)?;
        }
        out.flush()
    }
}

fn one(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let sites = || report.sites.iter().filter(|site| is_heap(site));
    let blocks = sites().map(|site| site.blocks);
    if blocks.fold(0, u64::saturating_add) > MOST {
        let why = "heaptrack's format has a line for each block, which are more than 10,000,000: \
                   use -F pprof, or --min-size";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    // The version of heaptrack that brought this version of its files.
    writeln!(out, "v 10300 3\nX {}", command_line(report))?;
    writeln!(out, "I {PAGE:x} 0")?;
    let mut tables = Tables::new(report);
    let mut infos = Infos::default();
    for site in sites() {
        let trace = tables.trace(site, out)?;
        infos.add(site, trace, out)?;
    }
    let mut time = 0;
    for moment in &report.timeline {
        time = milliseconds(moment.at).max(time);
        writeln!(out, "c {time:x}\nR {:x}", moment.rss / PAGE)?;
    }
    writeln!(out, "c {:x}", milliseconds(report.duration).max(time))?;
    for (number, count) in infos.0.into_iter().enumerate() {
        let line = format!("+ {number:x}\n");
        for _ in 0..count {
            out.write_all(line.as_bytes())?;
        }
    }
    match amount_suppressed(report) {
        Some(amount) => writeln!(out, "# suppressed: {amount}"),
        None => Ok(()),
    }
}

/// How many blocks there are of each size and trace.
#[derive(Default)]
struct Infos(Vec<u64>);

impl Infos {
    /// Blocks of two sizes at most, which make up the sum.
    fn add(&mut self, site: &Site, trace: u64, out: &mut impl Write) -> io::Result<()> {
        let (Some(size), Some(larger)) = (
            site.bytes.checked_div(site.blocks),
            site.bytes.checked_rem(site.blocks),
        ) else {
            return Ok(());
        };
        let parts = [
            (size, site.blocks - larger),
            (size.saturating_add(1), larger),
        ];
        for (size, count) in parts.into_iter().filter(|(_, count)| *count > 0) {
            writeln!(out, "a {size:x} {trace:x}")?;
            self.0.push(count);
        }
        Ok(())
    }
}
