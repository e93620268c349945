//! What `ms_print` opens: live bytes over time, and at the end their stacks.

mod tree;

use std::io::{self, BufWriter, Write};

use self::tree::Callers;
use super::frames::{command_line, is_heap, milliseconds, processes};
use super::text::and_suppressed;
use crate::{Format, FrameId, Peak, Report};

/// The time line, and a tree of what is left. Regions that the program has mapped itself are not in
/// it, as without `--pages-as-heap`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Massif<'a> {
    /// The processes that the report sums up, if there are several.
    pub of: &'a [Report],
}

impl Format for Massif<'_> {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        for report in reports {
            self.one(report, &mut out)?;
        }
        out.flush()
    }
}

impl Massif<'_> {
    fn one(&self, report: &Report, out: &mut impl Write) -> io::Result<()> {
        let of = match self.of {
            [] => std::slice::from_ref(report),
            several => several,
        };
        let processes = uncommented(&processes(of));
        writeln!(
            out,
            "desc: leaktap: bytes not freed, no extra heap, no stacks: {processes}{}",
            and_suppressed("; ", report)
        )?;
        let first = of.first().unwrap_or(report);
        writeln!(out, "cmd: {}", uncommented(&command_line(first)))?;
        writeln!(out, "time_unit: ms")?;
        let left = heap(report).map(|(_, bytes)| bytes);
        let left = left.fold(0, u64::saturating_add);
        let peak = report.peak.as_ref().filter(|peak| peak.live_bytes > left);
        let mut snapshots = Snapshots { number: 0, time: 0 };
        let mut next = peak;
        for moment in &report.timeline {
            if let Some(peak) = next.take_if(|peak| peak.at < moment.at) {
                snapshots.peak(report, peak, out)?;
            }
            snapshots.next(moment.at, moment.live_bytes, out)?;
            writeln!(out, "heap_tree=empty")?;
        }
        if let Some(peak) = next {
            snapshots.peak(report, peak, out)?;
        }
        snapshots.next(report.duration, left, out)?;
        let mut moments = report.timeline.iter();
        let is_peak = peak.is_none() && moments.all(|moment| moment.live_bytes <= left);
        let kind = if is_peak { "peak" } else { "detailed" };
        writeln!(out, "heap_tree={kind}")?;
        Callers::new(report, heap(report), left).write(out)
    }
}

/// The stacks of what is left in the heap, with their bytes.
fn heap(report: &Report) -> impl Iterator<Item = (&[FrameId], u64)> {
    let sites = report.sites.iter().filter(|site| is_heap(site));
    sites.map(|site| (&*site.frames, site.bytes))
}

/// What has been written of them, in order of time.
struct Snapshots {
    number: usize,
    /// Milliseconds.
    time: u64,
}

impl Snapshots {
    /// The head of one. What is not measured has to be there, and is 0: the description says so.
    fn next(&mut self, seconds: f64, bytes: u64, out: &mut impl Write) -> io::Result<()> {
        self.time = milliseconds(seconds).max(self.time);
        let (number, time) = (self.number, self.time);
        self.number += 1;
        writeln!(out, "#-----------\nsnapshot={number}\n#-----------")?;
        writeln!(out, "time={time}\nmem_heap_B={bytes}")?;
        writeln!(out, "mem_heap_extra_B=0\nmem_stacks_B=0")
    }

    fn peak(&mut self, report: &Report, peak: &Peak, out: &mut impl Write) -> io::Result<()> {
        self.next(peak.at, peak.live_bytes, out)?;
        writeln!(out, "heap_tree=peak")?;
        let sites = peak.sites.iter();
        let stacks = sites.map(|site| (&*site.frames, site.bytes));
        Callers::new(report, stacks, peak.live_bytes).write(out)
    }
}

/// Without what begins a comment.
fn uncommented(text: &str) -> String {
    text.replace('#', ".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::text::tests::{add, frame, report};
    use crate::{Moment, PeakSite};

    #[test]
    fn the_peak_has_its_stacks_and_what_is_not_known_of_it() {
        let mut all = report();
        add(&mut all, &[frame("f", "/src/a.c", 7)], &[(1.0, 1, 100)]);
        let site = PeakSite {
            bytes: 600,
            frames: all.sites[0].frames.clone(),
            ..PeakSite::default()
        };
        all.peak = Some(Peak {
            at: 1.5,
            live_bytes: 1000,
            sites: vec![site],
        });
        all.timeline = [(1.0, 50), (2.0, 80)]
            .map(|(at, live_bytes)| Moment {
                at,
                live_bytes,
                ..Moment::default()
            })
            .to_vec();
        all.duration = 3.0;
        let mut text = Vec::new();
        Massif::default().write(&[all], &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let has = |line: &&str| {
            ["time=", "mem_heap_B", "heap_tree", "n", " n"]
                .iter()
                .any(|start| line.starts_with(start))
        };
        let lines: Vec<_> = text.lines().filter(has).collect();
        let root = "(heap allocation functions) malloc/new/new[], --alloc-fns, etc.";
        let frame = "0x55d0c0dd: f (a.c:7)";
        let expected = [
            "time=1000",
            "mem_heap_B=50",
            "heap_tree=empty",
            "time=1500",
            "mem_heap_B=1000",
            "heap_tree=peak",
            &format!("n2: 1000 {root}"),
            &format!(" n0: 600 {frame}"),
            " n0: 400 [other stacks]",
            "time=2000",
            "mem_heap_B=80",
            "heap_tree=empty",
            "time=3000",
            "mem_heap_B=100",
            "heap_tree=detailed",
            &format!("n1: 100 {root}"),
            &format!(" n0: 100 {frame}"),
        ];
        assert_eq!(lines, expected);
    }
}
