//! What formats that list stacks share: how a frame reads in them, and what it is in its file.

use crate::names::printable;
use crate::reading::{Reading, public};
use crate::{FrameId, Kind, Place, Report, Site, Source, Tables};

/// Stands for the frames of a site that has none.
pub(crate) const NO_STACK: &str = "[no stack]";

/// Stands for the callers that a stack which breaks off does not have.
pub(crate) const TRUNCATED: &str = "[truncated]";

/// The function in full; without one, file and line, or module and offset, or the address. Nothing
/// in it acts on a terminal, or ends a line.
pub(crate) fn title(place: &Place<'_>) -> String {
    let reading = Reading {
        folder: None,
        in_full: true,
        report: None,
    };
    let name = match &place.frame.function {
        Some(function) => public(function, place).to_owned(),
        None => reading.name(place),
    };
    let name = match name.is_empty() {
        true => reading.position(place),
        false => name,
    };
    printable(&name).into_owned()
}

/// The titles of all frames, by their numbers.
pub(crate) fn titles(tables: Tables<'_>) -> Vec<String> {
    tables.all().map(|place| title(&place)).collect()
}

/// The titles of a site's frames, outermost first: one at least.
pub(crate) fn stack<'a>(site: &'a Site, titles: &'a [String]) -> impl Iterator<Item = &'a str> {
    let empty = site.frames.is_empty().then_some(NO_STACK);
    let truncated = site.truncated.as_ref().map(|_| TRUNCATED);
    let title = |FrameId(id): &FrameId| titles.get(*id as usize).map(String::as_str);
    let frames = site.frames.iter().rev().filter_map(title);
    truncated.into_iter().chain(frames).chain(empty)
}

/// Whether it is of an allocator, and not mapped by the program itself.
pub(super) fn is_heap(site: &Site) -> bool {
    site.source != Source::Mapping
}

/// What memcheck says of such blocks. What is not graded may be lost.
pub(super) fn lost(kind: Kind) -> &'static str {
    match kind {
        Kind::Definite => "definitely lost",
        Kind::Indirect => "indirectly lost",
        Kind::Unmatched | Kind::Possible => "possibly lost",
        Kind::Reachable | Kind::Runtime => "still reachable",
    }
}

/// Whole milliseconds.
pub(super) fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

/// Where the call is in the file of its module, as its symbol table counts.
pub(crate) fn in_file(place: &Place<'_>) -> Option<u64> {
    let (frame, module) = (place.frame, place.module?);
    let at = frame.offset?.0.wrapping_add(module.svma.0);
    Some(call(at, frame.interrupted))
}

/// Where the call is in the process.
pub(crate) fn in_process(place: &Place<'_>) -> Option<u64> {
    let address = place.frame.address?.0;
    Some(call(address, place.frame.interrupted))
}

/// The call is before the address that it returns to.
fn call(at: u64, interrupted: bool) -> u64 {
    at.wrapping_sub(u64::from(!interrupted))
}

/// `PROGRAM (pid 42)`, or more of them.
pub(crate) fn processes(reports: &[Report]) -> String {
    let names = reports.iter().map(|report| {
        let target = &report.target;
        format!("{} (pid {})", printable(&target.program), target.pid)
    });
    names.collect::<Vec<_>>().join(", ")
}

/// The program and its arguments, in a line.
pub(crate) fn command_line(report: &Report) -> String {
    let target = &report.target;
    let arguments = target.args.iter().skip(1).map(String::as_str);
    let words = [target.program.as_str()].into_iter().chain(arguments);
    let words = words.map(|word| printable(word).into_owned());
    words.collect::<Vec<_>>().join(" ")
}
