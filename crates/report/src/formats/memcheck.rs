//! The text of valgrind's memcheck, for what reads that: CTest, editors, log parsers.

use std::io::{self, BufWriter, Write};

use super::frames::{NO_STACK, in_process, lost, title};
use crate::names::{last_part, printable};
use crate::numbers::grouped;
use crate::{Amount, Format, FrameId, Kind, Place, Report, Site};

/// A record for each site, smallest first, and sums. Each line begins with `==PID==`.
///
/// What is `unmatched` is not graded: it is said to be possibly lost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memcheck {
    /// Nothing but records.
    pub quiet: bool,
}

impl Format for Memcheck {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        for report in reports {
            self.report(report, &mut out)?;
        }
        out.flush()
    }
}

impl Memcheck {
    fn report(&self, report: &Report, out: &mut impl Write) -> io::Result<()> {
        let mut log = Log {
            pid: report.target.pid,
            out,
        };
        if !self.quiet {
            head(report, &mut log)?;
        }
        // Each once: there may be thousands of stacks of it.
        let frames: Vec<_> = report.tables().all().map(|place| frame(&place)).collect();
        let all = report.sites.len();
        for (number, site) in (1..).zip(report.sites.iter().rev()) {
            record(site, &frames, (number, all), &mut log)?;
        }
        if let Some(doubt) = report.doubt() {
            log.line(&format!("Not all was seen: {doubt}"))?;
        }
        if !self.quiet {
            sums(report, &mut log)?;
        }
        Ok(())
    }
}

/// Lines of a process.
struct Log<'a, W> {
    pid: i32,
    out: &'a mut W,
}

impl<W: Write> Log<'_, W> {
    fn line(&mut self, text: &str) -> io::Result<()> {
        self.printable(&[&printable(text)])
    }

    /// A line of parts that are printable.
    fn printable(&mut self, parts: &[&str]) -> io::Result<()> {
        write!(self.out, "=={}== ", self.pid)?;
        for part in parts {
            self.out.write_all(part.as_bytes())?;
        }
        self.out.write_all(b"\n")
    }
}

fn head(report: &Report, log: &mut Log<'_, impl Write>) -> io::Result<()> {
    let heap = &report.totals.heap;
    log.line(&format!(
        "leaktap {}: what was not freed, in the form of memcheck's leak check",
        report.leaktap
    ))?;
    log.line("What is not graded by reachability is called possibly lost")?;
    log.line(&format!("Command: {}", report.target.args.join(" ")))?;
    log.line("")?;
    log.line("HEAP SUMMARY:")?;
    log.line(&format!(
        "    in use at exit: {}",
        amount(heap.live_bytes, heap.live_blocks)
    ))?;
    log.line(&format!(
        "  total heap usage: {} allocs, {} frees, {} bytes allocated",
        grouped(heap.allocations),
        grouped(heap.frees),
        grouped(heap.allocated_bytes)
    ))?;
    log.line("")
}

fn amount(bytes: u64, blocks: u64) -> String {
    format!("{} bytes in {} blocks", grouped(bytes), grouped(blocks))
}

fn record(
    site: &Site,
    frames: &[String],
    (number, all): (usize, usize),
    log: &mut Log<'_, impl Write>,
) -> io::Result<()> {
    let (size, lost) = (amount(site.bytes, site.blocks), lost(site.kind));
    log.line(&format!(
        "{size} are {lost} in loss record {number} of {all}"
    ))?;
    let mut word = "   at ";
    let frame = |&FrameId(id): &FrameId| frames.get(id as usize);
    for frame in site.frames.iter().filter_map(frame) {
        log.printable(&[word, frame])?;
        word = "   by ";
    }
    if site.frames.is_empty() {
        log.line(&format!("   at 0x0: {NO_STACK}"))?;
    }
    log.line("")
}

/// `0x401146: parse (orders.c:18)`, or `(in /usr/bin/x)`, printable.
fn frame(place: &Place<'_>) -> String {
    let at = in_process(place).unwrap_or_default();
    let name = match &place.frame.function {
        Some(_) => title(place),
        None => "???".to_owned(),
    };
    let line = place.frame.file.as_deref().zip(place.frame.line);
    let whole = match (line, place.module) {
        (Some((file, line)), _) => format!("0x{at:X}: {name} ({}:{line})", last_part(file)),
        (None, Some(module)) => format!("0x{at:X}: {name} (in {})", module.path),
        (None, None) => format!("0x{at:X}: {name}"),
    };
    printable(&whole).into_owned()
}

fn sums(report: &Report, log: &mut Log<'_, impl Write>) -> io::Result<()> {
    log.line("LEAK SUMMARY:")?;
    let sum = |kinds: &[Kind]| {
        let sites = report.sites.iter();
        let mut sum = Amount::default();
        for site in sites.filter(|site| kinds.contains(&site.kind)) {
            sum.add(site.blocks, site.bytes);
        }
        amount(sum.bytes, sum.blocks)
    };
    // Of kinds that nobody has looked for there is nothing to say.
    let is_graded = report.sites.iter().any(|site| site.kind != Kind::Unmatched);
    for (title, kinds) in [
        ("   definitely lost", &[Kind::Definite][..]),
        ("   indirectly lost", &[Kind::Indirect]),
        ("     possibly lost", &[Kind::Possible, Kind::Unmatched]),
        ("   still reachable", &[Kind::Reachable, Kind::Runtime]),
    ] {
        if is_graded || kinds.contains(&Kind::Unmatched) {
            log.line(&format!("{title}: {}", sum(kinds)))?;
        }
    }
    let totals = &report.totals;
    let suppressed = amount(totals.suppressed_bytes, totals.suppressed_blocks);
    log.line(&format!("        suppressed: {suppressed}"))?;
    for note in &report.notes {
        log.line(&format!("note: {note}"))?;
    }
    log.line("")?;
    let errors = report.sites.len();
    let rules = report.suppressions.iter().filter(|one| one.sites > 0);
    let (stacks, rules) = rules.fold((0, 0), |(stacks, n), one| (stacks + one.sites, n + 1));
    log.line(&format!(
        "ERROR SUMMARY: {errors} errors from {errors} contexts (suppressed: {stacks} from {rules})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::text::tests::{add, frame as named, report};

    #[test]
    fn lines_are_memchecks() {
        let mut all = report();
        let stack = [named("f", "/src/a.c", 7), named("main", "/src/a.c", 9)];
        add(&mut all, &stack, &[(1.0, 3, 192)]);
        add(&mut all, &[], &[(1.0, 1, 7)]);
        let mut text = Vec::new();
        Memcheck { quiet: true }
            .write(&[all.clone()], &mut text)
            .unwrap();
        let expected = "\
            ==42== 7 bytes in 1 blocks are possibly lost in loss record 1 of 2\n\
            ==42==    at 0x0: [no stack]\n\
            ==42== \n\
            ==42== 192 bytes in 3 blocks are possibly lost in loss record 2 of 2\n\
            ==42==    at 0x55D0C0DD: f (a.c:7)\n\
            ==42==    by 0x55D0C0DD: main (a.c:9)\n\
            ==42== \n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        let mut text = Vec::new();
        Memcheck::default().write(&[all], &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "==42==     in use at exit: 192 bytes in 3 blocks\n",
            "==42==      possibly lost: 199 bytes in 4 blocks\n",
            "==42== ERROR SUMMARY: 2 errors from 2 contexts (suppressed: 0 from 0)\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
