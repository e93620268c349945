//! Finds the modules of a process: from its mappings, in the order of its link map.

use std::path::PathBuf;
use std::sync::Arc;

use leaktap_memory::{Addr, ReadMemory};

use crate::auxv::Auxv;
use crate::files::{FileCache, Opener};
use crate::link_map::{Link, RDebug};
use crate::listing::Listing;
use crate::maps::{Kind, Mapping};
use crate::module::{self, Module};
use crate::{Error, vdso};

/// Something mapped executable, or listed by the dynamic linker, that is not a module.
#[derive(Debug)]
pub struct Skipped {
    /// As the kernel prints it.
    pub path: PathBuf,
    /// Where it is mapped.
    pub start: Addr,
    /// Why it is none.
    pub why: Error,
}

/// What a scan gathers.
pub(crate) struct Scan<'a> {
    opener: Opener<'a>,
    files: &'a mut FileCache,
    pub(crate) modules: Vec<Module>,
    pub(crate) skipped: Vec<Skipped>,
}

impl<'a> Scan<'a> {
    /// All that is mapped executable, by address. `before` are modules found earlier: the vdso is
    /// not read again.
    pub(crate) fn code(opener: Opener<'a>, files: &'a mut FileCache, before: &[Module]) -> Self {
        let maps = opener.maps;
        let mut scan = Scan {
            opener,
            files,
            modules: Vec::new(),
            skipped: Vec::new(),
        };
        for mapping in maps {
            match mapping.kind {
                Kind::File { .. } if mapping.perms.exec => scan.add(mapping, None),
                Kind::Vdso => scan.add_vdso(mapping, before),
                _ => {}
            }
        }
        scan
    }

    /// Libraries without code, and those whose code is no longer mapped from the file.
    pub(crate) fn listed(&mut self, links: &[Link]) {
        let maps = self.opener.maps;
        let by_address = ByAddress::new(&self.modules);
        let found = self.modules.len();
        for link in links {
            let known = |module: &Module| module.contains(link.dynamic);
            let is_known = by_address.at(&self.modules, link.dynamic).is_some()
                || self.modules.iter().skip(found).any(known);
            if let Some(mapping) = mapping_at(maps, link.dynamic)
                && mapping.path().is_some()
                && !is_known
            {
                self.add(mapping, Some(link.dynamic));
            }
        }
    }

    /// `dynamic` is where the dynamic linker says that its dynamic section is.
    fn add(&mut self, mapping: &Mapping, dynamic: Option<Addr>) {
        let Some(path) = mapping.path() else {
            return;
        };
        if let Err(why) = self.try_add(mapping, path, dynamic)
            && !self.skipped.iter().any(|skipped| skipped.path == path)
        {
            self.skipped.push(Skipped {
                path: path.to_path_buf(),
                start: mapping.start,
                why,
            });
        }
    }

    fn try_add(
        &mut self,
        mapping: &Mapping,
        path: &std::path::Path,
        dynamic: Option<Addr>,
    ) -> Result<(), Error> {
        let file = self.files.open(mapping, path, &self.opener)?;
        let said = dynamic.and_then(|dynamic| module::bias_by(&file, mapping, dynamic));
        let bias = said.or_else(|| module::bias(&file, mapping));
        let bias = bias.ok_or_else(|| Error::NoSegment {
            path: path.to_path_buf(),
            offset: mapping.offset,
        })?;
        let module = Module::of(mapping, Arc::clone(&file), bias, self.opener.maps)?;
        // A file is never loaded over itself: another part of a module that is known.
        let known = self
            .modules
            .iter()
            .any(|other| Arc::ptr_eq(other.file(), &file) && overlap(other, &module));
        if !known {
            self.modules.push(module);
        }
        Ok(())
    }

    fn add_vdso(&mut self, mapping: &Mapping, before: &[Module]) {
        let known = before
            .iter()
            .find(|module| module.is_vdso() && module.contains(mapping.start));
        let found = match known {
            Some(module) => Ok(module.clone()),
            None => vdso::module(mapping, self.opener.memory, self.opener.maps),
        };
        match found {
            Ok(module) => self.modules.push(module),
            Err(why) => self.skipped.push(Skipped {
                path: PathBuf::from("[vdso]"),
                start: mapping.start,
                why,
            }),
        }
    }
}

/// Which of `maps`, lowest first, is at `at`.
pub(crate) fn mapping_at(maps: &[Mapping], at: Addr) -> Option<&Mapping> {
    let after = maps.partition_point(|map| map.start <= at);
    let before = maps.get(after.checked_sub(1)?)?;
    Some(before).filter(|map| map.contains(at))
}

/// Modules by address: where each begins, where the last one up to it ends, and its index.
#[derive(Debug, Default)]
pub(crate) struct ByAddress(Vec<(Addr, Addr, usize)>);

impl ByAddress {
    pub(crate) fn new(modules: &[Module]) -> ByAddress {
        let ranges = modules.iter().map(Module::range);
        let mut all: Vec<_> = ranges.zip(0..).map(|(r, i)| (r.start, r.end, i)).collect();
        all.sort(); // the linker mostly maps them one below the other
        let mut last = Addr::default();
        for (_, end, _) in &mut all {
            last = last.max(*end);
            *end = last;
        }
        ByAddress(all)
    }

    /// The index of the module at `at`; `modules` begins with those that this was made of.
    pub(crate) fn at(&self, modules: &[Module], at: Addr) -> Option<usize> {
        self.find(modules, at, |module| module.contains(at))
    }

    /// The index of the module about `at` that is `wanted`.
    pub(crate) fn find(
        &self,
        modules: &[Module],
        at: Addr,
        wanted: impl Fn(&Module) -> bool,
    ) -> Option<usize> {
        let after = self.0.partition_point(|(start, ..)| *start <= at);
        let before = self.0.get(..after).unwrap_or_default();
        // The last one that begins before, unless another lies within one of its holes.
        let reach = before.iter().rev().take_while(|(_, end, _)| at < *end);
        let mut indices = reach.map(|(.., index)| *index);
        indices.find(|index| modules.get(*index).is_some_and(&wanted))
    }
}

fn overlap(one: &Module, other: &Module) -> bool {
    let (one, other) = (one.range(), other.range());
    one.start < other.end && other.start < one.end
}

/// Indices of `found`: the main program first, then as the dynamic linker lists them, the rest as
/// they come. `listed` are the modules of the linker's entries. Also says whether the first is the
/// main program.
pub(crate) fn order(found: &[Module], listed: &[Option<usize>], auxv: Auxv) -> (Vec<usize>, bool) {
    let is_entry = |module: &Module| module.contains(auxv.entry);
    // A dynamic linker that was run as a program (`ld.so PROGRAM`) lists the program first.
    // In a static program the list begins with an entry that says nothing.
    let first = listed.first().copied().flatten();
    let program = first.or_else(|| found.iter().position(is_entry));
    let behind = listed.iter().skip(1).flatten().copied();
    let mut is_left = vec![true; found.len()];
    let mut take = |index: &usize| is_left.get_mut(*index).is_some_and(std::mem::take);
    let all = program.into_iter().chain(behind).chain(0..found.len());
    let order = all.filter(|index| take(index)).collect();
    (order, program.is_some())
}

/// What each namespace has loaded, in the order of its list, as indices of modules: what the linker
/// lists first there is the program, if there is one.
pub(crate) fn namespaces(listing: &Listing, has_program: bool) -> Vec<Vec<usize>> {
    let mut found: Vec<Vec<usize>> = vec![Vec::new()];
    found[0].extend(has_program.then_some(0));
    let mut seen: Vec<Vec<bool>> = vec![vec![has_program]];
    for (link, module) in listing.links.iter().zip(&listing.modules) {
        if found.len() <= link.namespace {
            found.resize(link.namespace + 1, Vec::new());
            seen.resize(link.namespace + 1, Vec::new());
        }
        let Some(module) = *module else {
            continue;
        };
        let seen = &mut seen[link.namespace];
        if seen.len() <= module {
            seen.resize(module + 1, false);
        }
        if !std::mem::replace(&mut seen[module], true) {
            found[link.namespace].push(module);
        }
    }
    found
}

/// The main program's or the dynamic linker's `r_debug`, once it is filled.
pub(crate) fn r_debug(modules: &[Module], auxv: Auxv, memory: &dyn ReadMemory) -> Option<RDebug> {
    RDebug::by_program(auxv.program_headers, auxv.program_header_count, memory)
        .or_else(|| {
            let program = modules.iter().find(|module| module.contains(auxv.entry))?;
            let dynamic = program.addr(program.file().dynamic_section()?);
            RDebug::read(crate::link_map::debug_entry(dynamic, memory)?, memory)
        })
        .or_else(|| RDebug::read(by_symbol(modules, auxv, memory)?, memory))
}

/// glibc exports `_r_debug`, musl `_dl_debug_addr`, a pointer to it. A static program may have the
/// former, for its own dlopen(3).
fn by_symbol(modules: &[Module], auxv: Auxv, memory: &dyn ReadMemory) -> Option<Addr> {
    let linker = linker(modules, auxv)?;
    let object = |name| linker.file().objects(name).into_iter().next();
    if let Some(symbol) = object("_r_debug") {
        return Some(linker.addr(symbol.svma));
    }
    let pointer = linker.addr(object("_dl_debug_addr")?.svma);
    memory.read_u64(pointer).ok().map(Addr::new)
}

/// The dynamic linker: what AT_BASE says, or the program itself if that is one.
pub(crate) fn linker(modules: &[Module], auxv: Auxv) -> Option<&Module> {
    let at = match auxv.interpreter.is_null() {
        false => auxv.interpreter,
        true => auxv.entry,
    };
    modules.iter().find(|module| module.contains(at))
}
