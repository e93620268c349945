//! What has changed by the dynamic linker's list alone: the work is that of what has changed,
//! however much is loaded.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use leaktap_memory::{Addr, ReadMemory};

use crate::files::{FileCache, Opener};
use crate::link_map::{LINK_LEN, Link, LinkState};
use crate::maps::Mapping;
use crate::module::{self, Module, is_same_file, overlapping};
use crate::scan::{self, ByAddress};
use crate::thread::living_thread;
use crate::{Changes, Image};

/// Most mappings of one module.
const MOST_MAPPINGS: usize = 1 << 12;

/// Single facts of a process, which the kernel tells without those about all the rest.
pub trait Glance: ReadMemory {
    /// The mapping at `at`, or the next one above; `Some(None)` if there is none. Nothing if the
    /// kernel does not tell.
    fn mapping_from(&self, at: Addr) -> Option<Option<Mapping>>;

    /// Reads `len` bytes at each of `places`, one behind the other: up to the first that cannot be
    /// read.
    fn read_each(&self, places: &[Addr], len: usize) -> Vec<u8>;
}

impl Image {
    /// Looks again, as [`Image::refresh`] does, where the dynamic linker's list has changed since
    /// the last look. Nothing if that does not tell all, or the kernel does not: the image is as it
    /// was then.
    ///
    /// What the program has mapped by itself meanwhile is not seen.
    pub fn follow(&mut self, memory: &dyn Glance, files: &mut FileCache) -> Option<Changes> {
        let (links, change) = self.changed_links(memory)?;
        let mut areas = Vec::new();
        let gone = self.gone(&change.gone, &links, memory, &mut areas)?;
        let added = self.added(&change.come, memory, files, &mut areas)?;
        let is_gone: HashSet<usize> = gone.into_iter().collect();
        let all = std::mem::take(&mut self.modules).into_iter().enumerate();
        let (removed, kept): (Vec<_>, Vec<_>) = all.partition(|(index, _)| is_gone.contains(index));
        let removed: Vec<Module> = removed.into_iter().map(|(_, module)| module).collect();
        let kept = kept.into_iter().map(|(_, module)| module);
        let found = kept.chain(added.iter().cloned()).collect();
        (self.modules, self.has_program) = scan::order(found, &links, self.auxv);
        self.namespaces = scan::namespaces(&self.modules, &links, self.has_program);
        self.links = links;
        for (range, now) in areas {
            self.maps.replace(&range, now);
            let is_there = |at: Addr| range.contains(&at);
            self.skipped.retain(|skipped| !is_there(skipped.start));
        }
        Some(Changes { added, removed })
    }

    /// The list as it is now, and how it differs from that of the last look; nothing if it does not,
    /// or is being changed.
    fn changed_links(&self, memory: &dyn Glance) -> Option<(Vec<Link>, Change)> {
        let r_debug = self.r_debug(memory).filter(|_| self.at_rest)?;
        if r_debug.state != LinkState::Consistent {
            return None;
        }
        let known: Vec<Addr> = self.links.iter().map(|link| link.at).collect();
        let bytes = memory.read_each(&known, LINK_LEN);
        let read = bytes.chunks_exact(LINK_LEN).filter_map(<[u8]>::first_chunk);
        let read: HashMap<Addr, [u8; LINK_LEN]> = known.into_iter().zip(read.copied()).collect();
        let now = r_debug.links_read(memory, &read);
        let missing = |these: &[Link], those: &[Link]| -> Vec<Link> {
            let those: HashSet<&Link> = those.iter().collect();
            let absent = |link: &&Link| !those.contains(link);
            these.iter().filter(absent).copied().collect()
        };
        let change = Change {
            gone: missing(&self.links, &now),
            come: missing(&now, &self.links),
        };
        let is_same = change.gone.is_empty() && change.come.is_empty();
        (!is_same).then_some((now, change))
    }

    /// The modules of these entries, as indices, none of which is mapped any longer or listed
    /// elsewhere. What is there now is added to `areas`.
    fn gone(
        &self,
        entries: &[Link],
        listed: &[Link],
        memory: &dyn Glance,
        areas: &mut Vec<Area>,
    ) -> Option<Vec<usize>> {
        let by_address = ByAddress::new(&self.modules);
        let listed: HashSet<Addr> = listed.iter().map(|link| link.dynamic).collect();
        let mut gone = Vec::new();
        for entry in entries
            .iter()
            .filter(|entry| !listed.contains(&entry.dynamic))
        {
            let index = by_address.at(&self.modules, entry.dynamic)?;
            let range = self.modules.get(index)?.range();
            let before = overlapping(&self.maps.mappings, &range);
            let file = before.iter().find(|map| map.contains(entry.dynamic))?;
            let now = mappings_in(memory, &range)?;
            if now.iter().any(|map| is_same_file(map, file)) {
                return None;
            }
            areas.push((range, now));
            gone.push(index);
        }
        Some(gone)
    }

    /// The modules of these entries. What is mapped there is added to `areas`.
    fn added(
        &self,
        entries: &[Link],
        memory: &dyn Glance,
        files: &mut FileCache,
        areas: &mut Vec<Area>,
    ) -> Option<Vec<Module>> {
        let listed: HashSet<Addr> = self.links.iter().map(|link| link.dynamic).collect();
        let new = entries
            .iter()
            .filter(|entry| !listed.contains(&entry.dynamic));
        let mut added = Vec::new();
        for entry in new {
            let (module, area) = self.module_of(entry.dynamic, memory, files)?;
            if !added.iter().any(|other: &Module| other.same_as(&module)) {
                areas.push(area);
                added.push(module);
            }
        }
        Some(added)
    }

    /// The module whose dynamic section is at `dynamic`, and what is mapped there.
    fn module_of(
        &self,
        dynamic: Addr,
        memory: &dyn Glance,
        files: &mut FileCache,
    ) -> Option<(Module, Area)> {
        let part = memory.mapping_from(dynamic)??;
        let path = part.path().filter(|_| part.contains(dynamic))?;
        let thread = living_thread(self.pid).unwrap_or(self.pid);
        let program = scan::mapping_at(&self.maps.mappings, self.auxv.program_headers);
        let about = [part.clone()];
        let opener = Opener::new(thread, memory, &about, program);
        let file = files.open(&part, path, &opener).ok()?;
        let claimed = module::loaded(&file, module::bias(&file, &part)?)?;
        let now = mappings_in(memory, &claimed)?;
        // As a look at all mappings finds it: by its code, if it has any.
        let is_code = |map: &&Mapping| map.perms.exec && is_same_file(map, &part);
        let first = now.iter().find(is_code).unwrap_or(&part);
        let bias = module::bias(&file, first)?;
        let module = Module::of(first, Arc::clone(&file), bias, &now).ok()?;
        Some((module, (claimed, now)))
    }
}

/// What is mapped in a range.
type Area = (Range<Addr>, Vec<Mapping>);

/// How the list has changed.
struct Change {
    gone: Vec<Link>,
    come: Vec<Link>,
}

/// The mappings that have bytes in common with `range`, lowest first.
fn mappings_in(memory: &dyn Glance, range: &Range<Addr>) -> Option<Vec<Mapping>> {
    let mut found: Vec<Mapping> = Vec::new();
    let mut at = range.start;
    while found.len() < MOST_MAPPINGS {
        match memory.mapping_from(at)?.filter(|map| map.start < range.end) {
            Some(map) => {
                at = map.end;
                found.push(map);
            }
            None => return Some(found),
        }
    }
    None
}
