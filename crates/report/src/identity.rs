//! What stays of a call site when the program is built anew.

use crate::names::{last_part, short, without_parameters};
use crate::{Report, Site, Source};

/// Frames by which a site is known.
const FRAMES: usize = 5;

/// What a site is known by in other traces, and in other builds of the program: from where it is,
/// and the functions of its innermost frames that are the user's own, five at most; without any,
/// those of its innermost frames.
///
/// No line, no address, no allocator function, no frame of a library: a line moves, and compilers
/// inline.
pub fn fingerprint(site: &Site, report: &Report) -> String {
    let places = || report.tables().places(&site.frames);
    let own = places().filter(|place| place.frame.own == Some(true));
    let mut names: Vec<_> = own.map(|place| name(&place)).collect();
    if names.is_empty() {
        names = places().map(|place| name(&place)).collect();
    }
    // Of a function that calls itself the depth may vary.
    names.dedup();
    names.truncate(FRAMES);
    let source = match site.source {
        Source::Heap | Source::Before => "heap",
        Source::Mapping => "mapping",
    };
    format!("{source}:{}", names.join("<"))
}

/// `module!function`, or the module alone.
fn name(place: &crate::Place<'_>) -> String {
    let module = place.module.map_or("", |module| last_part(&module.path));
    let function = place
        .frame
        .function
        .as_deref()
        .map(short)
        .unwrap_or_default();
    format!("{module}!{}", without_parameters(&function))
}
