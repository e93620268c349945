//! What valgrind's `--xml=yes` writes: protocol 4, as Jenkins' plugin, Qt Creator and others read
//! it.
//!
//! Its kinds of leaks are memcheck's four: what is `unmatched` is there as possibly lost, and its
//! text says what it is.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use super::frames::{in_file, in_process, lost, milliseconds};
use super::xml::escaped;
use crate::{Format, FrameId, Kind, Place, Report, Site, Source};

/// An `error` for each site.
#[derive(Clone, Copy, Debug, Default)]
pub struct ValgrindXml<'a> {
    /// The processes that the report sums up, if there are several.
    pub of: &'a [Report],
}

impl Format for ValgrindXml<'_> {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        for report in reports {
            let of = match self.of {
                [] => std::slice::from_ref(report),
                several => several,
            };
            head(of.first().unwrap_or(report), report, &mut out)?;
            // Each once: there may be thousands of stacks of it.
            let frames: Vec<_> = report.tables().all().map(|place| frame(&place)).collect();
            for (number, site) in (1..).zip(&report.sites) {
                error(report, site, number, &frames, &mut out)?;
            }
            foot(report, of, &mut out)?;
        }
        out.flush()
    }
}

fn head(of: &Report, report: &Report, out: &mut impl Write) -> io::Result<()> {
    let target = &of.target;
    writeln!(out, "<?xml version=\"1.0\"?>\n<valgrindoutput>")?;
    writeln!(out, "<protocolversion>4</protocolversion>")?;
    writeln!(out, "<protocoltool>memcheck</protocoltool>")?;
    let version = escaped(&report.leaktap);
    let doubt = report
        .doubt()
        .map(|doubt| format!("<line>Not all was seen: {}</line>", escaped(&doubt)));
    writeln!(
        out,
        "<preamble><line>leaktap {version}</line>{}</preamble>\n<pid>{}</pid>",
        doubt.unwrap_or_default(),
        target.pid
    )?;
    if let Some(parent) = target.parent {
        writeln!(out, "<ppid>{parent}</ppid>")?;
    }
    writeln!(out, "<tool>memcheck</tool>\n<args>")?;
    writeln!(out, "<vargv><exe>leaktap</exe></vargv>")?;
    writeln!(out, "<argv><exe>{}</exe>", escaped(&target.program))?;
    for argument in target.args.iter().skip(1) {
        writeln!(out, "<arg>{}</arg>", escaped(argument))?;
    }
    writeln!(out, "</argv>\n</args>")?;
    status("RUNNING", 0.0, out)?;
    status("FINISHED", report.duration, out)
}

fn status(state: &str, seconds: f64, out: &mut impl Write) -> io::Result<()> {
    let all = milliseconds(seconds);
    let (milliseconds, seconds) = (all % 1000, all / 1000);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let seconds = seconds % 60;
    let time = format!("{days:02}:{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}");
    writeln!(
        out,
        "<status><state>{state}</state><time>{time}</time></status>"
    )
}

/// memcheck's name of a kind.
fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Definite => "Leak_DefinitelyLost",
        Kind::Indirect => "Leak_IndirectlyLost",
        Kind::Possible | Kind::Unmatched => "Leak_PossiblyLost",
        Kind::Reachable | Kind::Runtime => "Leak_StillReachable",
    }
}

/// What `kind` does not say.
fn remark(kind: Kind) -> &'static str {
    match kind {
        Kind::Unmatched => " (unmatched: not freed)",
        Kind::Runtime => " (kept by a runtime)",
        Kind::Definite | Kind::Indirect | Kind::Possible | Kind::Reachable => "",
    }
}

fn error(
    report: &Report,
    site: &Site,
    number: usize,
    frames: &[String],
    out: &mut impl Write,
) -> io::Result<()> {
    let (kind, all) = (kind(site.kind), report.sites.len());
    let words = format!("{}{}", lost(site.kind), remark(site.kind));
    let (blocks, bytes) = (site.blocks, site.bytes);
    let what = match site.source {
        Source::Mapping => "regions",
        Source::Heap | Source::Before => "blocks",
    };
    // Of the thread that allocated nothing is known: memcheck's leaks, too, are of thread 1.
    writeln!(out, "<error>\n<unique>{number:#x}</unique>\n<tid>1</tid>")?;
    writeln!(out, "<kind>{kind}</kind>\n<xwhat>")?;
    writeln!(
        out,
        "<text>{bytes} bytes in {blocks} {what} are {words} in loss record {number} of {all}</text>"
    )?;
    writeln!(
        out,
        "<leakedbytes>{bytes}</leakedbytes>\n<leakedblocks>{blocks}</leakedblocks>\n</xwhat>"
    )?;
    writeln!(out, "<stack>")?;
    let frame = |FrameId(id): &FrameId| frames.get(*id as usize);
    for frame in site.frames.iter().filter_map(frame) {
        out.write_all(frame.as_bytes())?;
    }
    // A stack has a frame at least.
    if site.frames.is_empty() {
        writeln!(out, "<frame><ip>0x0</ip></frame>")?;
    }
    writeln!(out, "</stack>\n</error>")
}

/// A frame of a stack, and the end of its line.
fn frame(place: &Place<'_>) -> String {
    let address = in_process(place).or_else(|| in_file(place));
    let mut text = format!("<frame><ip>{:#x}</ip>", address.unwrap_or_default());
    let mut add = |element: &str, value: &str| {
        text.push_str(&format!("<{element}>{}</{element}>", escaped(value)));
    };
    if let Some(module) = place.module {
        add("obj", &module.path);
    }
    if let Some(function) = &place.frame.function {
        add("fn", function);
    }
    if let Some(path) = &place.frame.file {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        if !folder.is_empty() {
            add("dir", folder);
        }
        add("file", file);
        if let Some(line) = place.frame.line {
            add("line", &line.to_string());
        }
    }
    text.push_str("</frame>\n");
    text
}

/// The number of each error, and of the stacks that each suppression has kept from being one.
fn foot(report: &Report, of: &[Report], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "<errorcounts>")?;
    for number in 1..=report.sites.len() {
        writeln!(
            out,
            "<pair><count>1</count><unique>{number:#x}</unique></pair>"
        )?;
    }
    writeln!(out, "</errorcounts>\n<suppcounts>")?;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for one in of.iter().flat_map(|report| &report.suppressions) {
        let count = counts.entry(&one.name).or_default();
        *count = count.saturating_add(one.sites);
    }
    for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        let name = escaped(name);
        writeln!(
            out,
            "<pair><count>{count}</count><name>{name}</name></pair>"
        )?;
    }
    writeln!(out, "</suppcounts>")?;
    writeln!(out, "</valgrindoutput>")
}
