//! What `ms_print` opens: live bytes over time, and at the end their stacks.

mod tree;

use std::io::{self, BufWriter, Write};

use self::tree::Callers;
use super::frames::{command_line, is_heap, milliseconds, processes};
use crate::{Format, Report};

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
            "desc: leaktap: bytes not freed, no extra heap, no stacks: {processes}"
        )?;
        let first = of.first().unwrap_or(report);
        writeln!(out, "cmd: {}", uncommented(&command_line(first)))?;
        writeln!(out, "time_unit: ms")?;
        let sites: Vec<_> = report.sites.iter().filter(|site| is_heap(site)).collect();
        let left = sites.iter().map(|site| site.bytes);
        let left = left.fold(0, u64::saturating_add);
        let end = milliseconds(report.duration);
        let mut time = 0;
        let mut number = 0;
        for moment in &report.timeline {
            time = milliseconds(moment.at).clamp(time, end.max(time));
            snapshot(out, number, time, moment.live_bytes)?;
            writeln!(out, "heap_tree=empty")?;
            number += 1;
        }
        snapshot(out, number, end.max(time), left)?;
        let is_peak = report
            .timeline
            .iter()
            .all(|moment| moment.live_bytes <= left);
        let kind = if is_peak { "peak" } else { "detailed" };
        writeln!(out, "heap_tree={kind}")?;
        Callers::new(report, &sites).write(left, out)
    }
}

/// Without what begins a comment.
fn uncommented(text: &str) -> String {
    text.replace('#', ".")
}

/// The numbers of a snapshot. What is not measured has to be there, and is 0: the description says
/// so.
fn snapshot(out: &mut impl Write, number: usize, time: u64, bytes: u64) -> io::Result<()> {
    writeln!(out, "#-----------\nsnapshot={number}\n#-----------")?;
    writeln!(out, "time={time}\nmem_heap_B={bytes}")?;
    writeln!(out, "mem_heap_extra_B=0\nmem_stacks_B=0")
}
