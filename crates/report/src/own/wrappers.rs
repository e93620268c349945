//! The user's own functions that only allocate for others: `zmalloc`, `xstrdup`.

use std::collections::{HashMap, HashSet};

use super::class;
use super::origin::Class;
use crate::names::short;
use crate::{FrameId, Report, Site, Tables};

/// What the name of such a function has in it.
const PARTS: &[&str] = &[
    "malloc", "calloc", "zalloc", "palloc", "realloc", "strdup", "strndup", "memdup",
];

/// Callers that such a function has at least: one that a single function calls is its own affair.
const CALLERS: usize = 2;

/// Blames the callers of wrappers, where they are the user's own, too. One is told by its name, and
/// by several functions that call it.
pub(super) fn blame_callers(report: &mut Report, classes: &[Class]) {
    let tables = report.tables();
    let wrappers = wrappers(&report.sites, tables, classes);
    let blamed = report.sites.iter().map(|site| {
        let own = own(site, classes);
        let mut callers =
            own.skip_while(|id| function(*id, tables).is_some_and(|f| wrappers.contains(f)));
        callers.next().or(site.culprit)
    });
    let blamed: Vec<_> = blamed.collect();
    for (site, culprit) in report.sites.iter_mut().zip(blamed) {
        site.culprit = culprit;
    }
}

/// The names of all wrappers.
fn wrappers<'r>(sites: &[Site], tables: Tables<'r>, classes: &[Class]) -> HashSet<&'r str> {
    let mut callers: HashMap<&str, HashSet<&str>> = HashMap::new();
    for site in sites {
        let own: Vec<_> = own(site, classes)
            .filter_map(|id| function(id, tables))
            .collect();
        let pairs = own.iter().zip(own.iter().skip(1));
        for (callee, caller) in pairs.take_while(|(callee, _)| is_like_malloc(callee)) {
            callers.entry(callee).or_default().insert(caller);
        }
    }
    let shared = callers
        .into_iter()
        .filter(|(_, callers)| callers.len() >= CALLERS);
    shared.map(|(name, _)| name).collect()
}

/// The user's own frames.
fn own<'s>(site: &'s Site, classes: &'s [Class]) -> impl Iterator<Item = FrameId> + 's {
    let frames = site.frames.iter().copied();
    frames.filter(|id| class(classes, *id) == Class::Own)
}

fn function(id: FrameId, tables: Tables<'_>) -> Option<&str> {
    tables.frame(id)?.function.as_deref()
}

/// Whether it is named as what allocates for others.
pub(crate) fn is_like_malloc(name: &str) -> bool {
    let name = short(name).to_ascii_lowercase();
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
    name.ends_with("alloc") || PARTS.iter().any(|part| name.contains(part))
}
