//! What has changed by the dynamic linker's list alone: the work is that of what has changed,
//! however much is loaded.

use std::ops::Range;
use std::sync::Arc;

use leaktap_memory::{Addr, ReadMemory};

use crate::files::{FileCache, Opener};
use crate::link_map::{Link, LinkState};
use crate::listing::{Difference, Listing};
use crate::maps::Mapping;
use crate::module::{self, Module, is_same_file, overlapping};
use crate::scan;
use crate::{Changes, Image, Moves};

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
        let has_only_added = std::mem::take(&mut self.is_adding);
        let difference = self.changed_links(memory, has_only_added)?;
        let mut areas = Vec::new();
        let gone = self.gone(&difference, memory, &mut areas)?;
        let (added, is_new) = self.added(&difference, memory, files, &mut areas)?;
        let is_appended = difference.is_appended && is_new;
        let (removed, moves) = self.take_over(difference, &gone, &added);
        for (range, now) in areas {
            self.maps.replace(&range, now);
            let is_there = |at: Addr| range.contains(&at);
            self.skipped.retain(|skipped| !is_there(skipped.start));
        }
        Some(Changes {
            added,
            removed,
            moves: is_appended.then_some(moves),
        })
    }

    /// How the lists differ from those of the last look; nothing if they do not, or are being
    /// changed.
    fn changed_links(&self, memory: &dyn Glance, has_only_added: bool) -> Option<Difference> {
        let r_debug = self.r_debug(memory).filter(|_| self.at_rest)?;
        if r_debug.state != LinkState::Consistent {
            return None;
        }
        let difference = self.listing.compare(r_debug, memory, has_only_added);
        (!difference.is_empty()).then_some(difference)
    }

    /// Those at the indices `gone` are no longer there, `added` are. Returns the former, and where
    /// all others are now.
    fn take_over(
        &mut self,
        difference: Difference,
        gone: &[usize],
        added: &[Module],
    ) -> (Vec<Module>, Moves) {
        let mut found = std::mem::take(&mut self.modules);
        let mut places = Vec::with_capacity(found.len());
        let mut stay = 0;
        for index in 0..found.len() {
            let stays = !gone.contains(&index);
            places.push(stays.then_some(stay));
            stay += usize::from(stays);
        }
        let mut are_gone = places.iter().map(Option::is_none);
        let removed = found.extract_if(.., |_| are_gone.next().unwrap_or(false));
        let removed: Vec<Module> = removed.collect();
        let first_added = found.len();
        found.extend(added.iter().cloned());
        let before = &self.listing;
        let known = |entry: usize| places[before.modules.get(entry).copied().flatten()?];
        let place = |link: &Link, entry: Option<usize>| {
            let is_its = |module: &Module| module.contains(link.dynamic);
            let new = || added.iter().position(is_its).map(|new| first_added + new);
            // In another namespace.
            let is_same = |other: &Link| other.dynamic == link.dynamic;
            let entry = entry.or_else(|| before.links.iter().position(is_same));
            entry.and_then(known).or_else(new)
        };
        let all = difference.now.iter().zip(difference.before);
        let modules = all.map(|(link, before)| place(link, before)).collect();
        self.listing = Listing {
            links: difference.now,
            modules,
        };
        let now = self.put_in_order(found);
        let moves = places.into_iter().map(|place| Some(now[place?]));
        (removed, Moves(moves.collect()))
    }

    /// The modules of the entries that are gone, as indices, none of which is mapped any longer or
    /// listed elsewhere. What is there now is added to `areas`.
    fn gone(
        &self,
        difference: &Difference,
        memory: &dyn Glance,
        areas: &mut Vec<Area>,
    ) -> Option<Vec<usize>> {
        let mut gone = Vec::new();
        for entry in &difference.gone {
            let dynamic = self.listing.links.get(*entry)?.dynamic;
            if lists(&difference.now, dynamic) {
                continue;
            }
            let index = self.by_address.at(&self.modules, dynamic)?;
            let range = self.modules.get(index)?.range();
            let before = overlapping(&self.maps.mappings, &range);
            let file = before.iter().find(|map| map.contains(dynamic))?;
            let now = mappings_in(memory, &range)?;
            if now.iter().any(|map| is_same_file(map, file)) {
                return None;
            }
            areas.push((range, now));
            gone.push(index);
        }
        Some(gone)
    }

    /// The modules of the entries that have come, and whether all of these are of new ones. What is
    /// mapped there is added to `areas`.
    fn added(
        &self,
        difference: &Difference,
        memory: &dyn Glance,
        files: &mut FileCache,
        areas: &mut Vec<Area>,
    ) -> Option<(Vec<Module>, bool)> {
        let mut added = Vec::new();
        let mut are_new = true;
        for entry in difference.come() {
            if lists(&self.listing.links, entry.dynamic) {
                are_new = false;
                continue;
            }
            let (module, area) = self.module_of(entry.dynamic, memory, files)?;
            match added.iter().any(|other: &Module| other.same_as(&module)) {
                true => are_new = false,
                false => {
                    areas.push(area);
                    added.push(module);
                }
            }
        }
        Some((added, are_new))
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
        let program = scan::mapping_at(&self.maps.mappings, self.auxv.program_headers);
        let about = [part.clone()];
        let opener = Opener::new(self.pid, memory, &about, program);
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

/// Whether one of `links` is the entry of what has its dynamic section at `dynamic`.
fn lists(links: &[Link], dynamic: Addr) -> bool {
    links.iter().any(|link| link.dynamic == dynamic)
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
