//! What stays of a call site when the program is built anew.

use crate::names::{last_part, short, without_parameters};
use crate::{Place, Report, Site, Source};

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
    let mut names = innermost(places().filter(|place| place.frame.own == Some(true)));
    if names.is_empty() {
        names = innermost(places());
    }
    let source = match site.source {
        Source::Heap | Source::Before => "heap",
        Source::Mapping => "mapping",
    };
    format!("{source}:{}", names.join("<"))
}

/// The names of the first of them. A function that calls itself has one: how deep it went may vary.
fn innermost<'a>(places: impl Iterator<Item = Place<'a>>) -> Vec<String> {
    let mut names = Vec::new();
    for place in places {
        let name = name(&place);
        if names.last() == Some(&name) {
            continue;
        }
        if names.len() == FRAMES {
            break;
        }
        names.push(name);
    }
    names
}

/// `module!function`, or the module alone.
fn name(place: &Place<'_>) -> String {
    let module = place.module.map_or("", |module| last_part(&module.path));
    let function = place
        .frame
        .function
        .as_deref()
        .map(short)
        .unwrap_or_default();
    format!("{module}!{}", without_parameters(&function))
}
