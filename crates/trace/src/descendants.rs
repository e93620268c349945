//! Children that a process has already when leaktap attaches to it.

use std::collections::HashSet;

use leaktap_tracee::{Tid, processes};

/// The processes that those in `of` have made, and those that these have made, each with its
/// parent, in the order of their ids. Not what has lost its parent since.
pub(crate) fn descendants(of: impl Iterator<Item = Tid>) -> Vec<(Tid, Tid)> {
    let pairs = processes().into_iter();
    let pairs = pairs.filter_map(|child| Some((child.parent()?, child)));
    let mut rest: Vec<_> = pairs.collect();
    rest.sort_unstable_by_key(|(_, child)| *child);
    let mut known: HashSet<Tid> = of.collect();
    let mut found = Vec::new();
    loop {
        let before = found.len();
        rest.retain(|(parent, child)| {
            let is_new = known.contains(parent) && known.insert(*child);
            if is_new {
                found.push((*parent, *child));
            }
            !is_new
        });
        if found.len() == before {
            return found;
        }
    }
}
