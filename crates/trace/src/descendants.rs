//! Who is whose child, as /proc says.

use std::collections::HashSet;

use leaktap_tracee::Tid;
use procfs::process::{Process as ProcInfo, all_processes};

/// The processes that those in `of` have made, and those that these have made, each with its
/// parent, in the order of their ids. Not what has lost its parent since.
pub(crate) fn descendants(of: impl Iterator<Item = Tid>) -> Vec<(Tid, Tid)> {
    let pairs = all_processes().into_iter().flatten().flatten();
    let pairs = pairs.filter_map(|process| {
        let parent = process.stat().ok()?.ppid; // it may have ended
        Some((Tid::new(parent), Tid::new(process.pid)))
    });
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

/// The parent of a process, as long as both live.
pub(crate) fn parent(of: Tid) -> Option<Tid> {
    let stat = ProcInfo::new(of.get()).and_then(|process| process.stat());
    Some(Tid::new(stat.ok()?.ppid))
}
