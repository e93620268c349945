//! What valgrind's `dh_view.html` opens, and the Firefox Profiler: DHAT's JSON, version 2.
//!
//! Without life times (`bklt`): of blocks that were freed, and of a peak, nothing is said.

use std::collections::HashMap;
use std::io::{self, Write};

use serde::Serialize;

use super::frames::{NO_STACK, TRUNCATED, command_line, in_file, in_process, title};
use super::json;
use super::text::and_suppressed;
use crate::names::{last_part, printable};
use crate::{Format, FrameId, Place, Report, Site};

/// Live blocks by stack, as if these were all that was allocated: the verb says `Not freed`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dhat;

/// Names of the fields are DHAT's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    dhat_file_version: u32,
    mode: String,
    verb: &'static str,
    bklt: bool,
    bkacc: bool,
    tu: &'static str,
    #[serde(rename = "Mtu")]
    mtu: &'static str,
    cmd: String,
    pid: i32,
    te: u64,
    pps: Vec<Point>,
    ftbl: Vec<String>,
}

/// A "program point": a stack, and what is of it.
#[derive(Serialize)]
struct Point {
    tb: u64,
    tbk: u64,
    fs: Vec<usize>,
}

impl Format for Dhat {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        for report in reports {
            json::write(&file(report), out)?;
        }
        Ok(())
    }
}

fn file(report: &Report) -> File {
    let mut frames = Frames::new(report);
    let mut points: Vec<Point> = Vec::new();
    let mut known = HashMap::new();
    for site in &report.sites {
        let fs = frames.of(site);
        // A viewer takes no stack twice.
        let at = *known.entry(fs.clone()).or_insert(points.len());
        match points.get_mut(at) {
            Some(point) => {
                point.tb = point.tb.saturating_add(site.bytes);
                point.tbk = point.tbk.saturating_add(site.blocks);
            }
            None => points.push(Point {
                tb: site.bytes,
                tbk: site.blocks,
                fs,
            }),
        }
    }
    File {
        dhat_file_version: 2,
        mode: "leaktap".to_owned() + &and_suppressed("; ", report),
        verb: "Not freed",
        bklt: false,
        bkacc: false,
        tu: "µs",
        mtu: "s",
        cmd: command_line(report),
        pid: report.target.pid,
        te: (report.duration * 1e6) as u64,
        pps: points,
        ftbl: frames.table,
    }
}

/// The table of frames: texts, each once.
struct Frames<'a> {
    report: &'a Report,
    table: Vec<String>,
    numbers: HashMap<String, usize>,
    /// By the number of the frame in the report.
    known: Vec<Option<usize>>,
}

impl<'a> Frames<'a> {
    fn new(report: &'a Report) -> Frames<'a> {
        let mut frames = Frames {
            report,
            table: Vec::new(),
            numbers: HashMap::new(),
            known: vec![None; report.frames.len()],
        };
        frames.number("[root]".to_owned());
        frames
    }

    /// The stack of a site, innermost first: the allocator's function, and its callers.
    fn of(&mut self, site: &Site) -> Vec<usize> {
        let mut stack = vec![self.number(format!("[{}]", printable(&site.function)))];
        stack.extend(site.frames.iter().filter_map(|&id| self.frame(id)));
        if site.frames.is_empty() {
            stack.push(self.number(NO_STACK.to_owned()));
        }
        if site.truncated.is_some() {
            stack.push(self.number(TRUNCATED.to_owned()));
        }
        stack
    }

    fn frame(&mut self, FrameId(id): FrameId) -> Option<usize> {
        if let Some(known) = self.known.get(id as usize).copied().flatten() {
            return Some(known);
        }
        let place = self.report.tables().place(FrameId(id))?;
        let number = self.number(text(&place));
        *self.known.get_mut(id as usize)? = Some(number);
        Some(number)
    }

    fn number(&mut self, text: String) -> usize {
        let next = self.table.len();
        let number = *self.numbers.entry(text.clone()).or_insert(next);
        if number == next {
            self.table.push(text);
        }
        number
    }
}

/// `0x12ab: function (file.c:12)`, as valgrind writes frames.
pub(super) fn text(place: &Place<'_>) -> String {
    let address = in_process(place).or_else(|| in_file(place));
    let address = address.map(|address| format!("{address:#x}: "));
    let frame = place.frame;
    let position = match (&frame.file, frame.line, place.module) {
        (Some(file), Some(line), _) => format!(" ({}:{line})", printable(last_part(file))),
        (Some(file), None, _) => format!(" ({})", printable(last_part(file))),
        (None, _, Some(module)) => format!(" (in {})", printable(&module.path)),
        (None, _, None) => String::new(),
    };
    let name = match frame.function {
        Some(_) => title(place),
        None => "???".to_owned(),
    };
    format!("{}{name}{position}", address.unwrap_or_default())
}
