//! Finds the modules of a process: from its mappings, in the order of its link map.

use std::path::PathBuf;
use std::sync::Arc;

use leaktap_memory::{Addr, ReadMemory};

use crate::auxv::Auxv;
use crate::files::{FileCache, Opener};
use crate::link_map::{Link, RDebug};
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
                Kind::File { .. } if mapping.perms.exec => scan.add(mapping),
                Kind::Vdso => scan.add_vdso(mapping, before),
                _ => {}
            }
        }
        scan
    }

    /// Libraries without code, and those whose code is no longer mapped from the file.
    pub(crate) fn listed(&mut self, links: &[Link]) {
        let maps = self.opener.maps;
        for link in links {
            let known = |module: &Module| module.contains(link.dynamic);
            let mapped = maps.iter().find(|map| map.contains(link.dynamic));
            if let Some(mapping) = mapped
                && mapping.path().is_some()
                && !self.modules.iter().any(known)
            {
                self.add(mapping);
            }
        }
    }

    fn add(&mut self, mapping: &Mapping) {
        let Some(path) = mapping.path() else {
            return;
        };
        if let Err(why) = self.try_add(mapping, path)
            && !self.skipped.iter().any(|skipped| skipped.path == path)
        {
            self.skipped.push(Skipped {
                path: path.to_path_buf(),
                start: mapping.start,
                why,
            });
        }
    }

    fn try_add(&mut self, mapping: &Mapping, path: &std::path::Path) -> Result<(), Error> {
        let file = self.files.open(mapping, path, &self.opener)?;
        let bias = module::bias(&file, mapping).ok_or_else(|| Error::NoSegment {
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

fn overlap(one: &Module, other: &Module) -> bool {
    let (one, other) = (one.range(), other.range());
    one.start < other.end && other.start < one.end
}

/// The main program first, then as the dynamic linker lists them, the rest by address. Also says
/// whether the first is the main program.
pub(crate) fn order(found: Vec<Module>, links: &[Link], auxv: Auxv) -> (Vec<Module>, bool) {
    let mut left: Vec<Option<Module>> = found.into_iter().map(Some).collect();
    let mut take = |wanted: &dyn Fn(&Module) -> bool| {
        let slot = left
            .iter_mut()
            .find(|slot| slot.as_ref().is_some_and(wanted));
        slot.and_then(Option::take)
    };
    // A dynamic linker that was run as a program (`ld.so PROGRAM`) lists the program first.
    // In a static program the list begins with an entry that says nothing.
    let listed = links.first();
    let program = listed
        .and_then(|link| take(&|module| module.contains(link.dynamic)))
        .or_else(|| take(&|module| module.contains(auxv.entry)));
    let is_program = program.is_some();
    let mut modules: Vec<Module> = program.into_iter().collect();
    for link in links.iter().skip(1) {
        modules.extend(take(&|module| module.contains(link.dynamic)));
    }
    modules.extend(left.into_iter().flatten());
    (modules, is_program)
}

/// What each namespace has loaded, in the order of its list, as indices of `modules`: what the
/// linker lists first there is the program, if there is one.
pub(crate) fn namespaces(modules: &[Module], links: &[Link], has_program: bool) -> Vec<Vec<usize>> {
    let mut found: Vec<Vec<usize>> = vec![Vec::new()];
    found[0].extend(has_program.then_some(0));
    for link in links {
        if found.len() <= link.namespace {
            found.resize(link.namespace + 1, Vec::new());
        }
        let mut all = modules.iter();
        if let Some(module) = all.position(|module| module.contains(link.dynamic))
            && !found[link.namespace].contains(&module)
        {
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
