//! Allocators that a module has for itself: linked in and not exported, or called directly.

use std::collections::HashMap;

use leaktap_api::Functions;
use leaktap_image::{Changes, Code, ElfFile, Image, Module};
use leaktap_memory::{Addr, ReadMemory, Svma};

use super::by_module::ByModule;
use super::forwards::{self, Depth};
use super::names::{self, Group, MALLOCS, PREFIXES};

/// What was found out of modules.
#[derive(Debug)]
pub(super) struct Copies {
    functions: Functions,
    known: ByModule<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// With each prefix for which there is an allocator: the group that it belongs to, if any.
    prefixed: Vec<(&'static str, Option<Group>)>,
    hidden: bool,
    called_directly: Option<bool>,
    forwards: HashMap<Svma, bool>,
}

impl Copies {
    pub(super) fn new(functions: Functions) -> Copies {
        Copies {
            functions,
            known: ByModule::default(),
        }
    }

    /// Forgets modules that are gone.
    pub(super) fn update(&mut self, image: &Image) {
        let find = |module: &Module| Known::of(image, module, &self.functions);
        self.known.update(image, find);
    }

    /// As [`Copies::update`], where nothing has changed but `changes`.
    pub(super) fn follow(&mut self, image: &Image, changes: &Changes) {
        let find = |module: &Module| Known::of(image, module, &self.functions);
        self.known.follow(changes, find);
    }

    fn of<'i>(&mut self, image: &'i Image, module: usize) -> Option<(&mut Known, &'i Module)> {
        let module = image.modules().get(module)?;
        Some((self.known.get_mut(module)?, module))
    }

    /// The group of functions with `prefix`: that of the standard names, if these are the same
    /// functions.
    pub(super) fn group(&mut self, image: &Image, module: usize, prefix: &str) -> Option<Group> {
        let (known, _) = self.of(image, module)?;
        let mut prefixed = known.prefixed.iter();
        prefixed.find(|(of, _)| *of == prefix)?.1
    }

    /// Whether function `name` of `module`, if it has one, is of `group`.
    pub(super) fn belongs(
        &mut self,
        image: &Image,
        module: usize,
        name: &str,
        group: Group,
    ) -> bool {
        match names::group(name) {
            Group::Prefixed(prefix) => self.group(image, module, prefix) == Some(group),
            _ => matches!(group, Group::Standard | Group::Hidden),
        }
    }

    /// The groups of which `module` has an allocator for itself. Its exported functions count if
    /// nobody else is bound to them (`is_used`) and it calls them directly, as libraries do that
    /// were linked with -Bsymbolic.
    pub(super) fn groups(&mut self, image: &Image, module: usize, is_used: bool) -> Vec<Group> {
        let functions = self.functions.clone();
        let Some((known, module)) = self.of(image, module) else {
            return Vec::new();
        };
        let prefixed = known.prefixed.iter().filter_map(|(_, group)| *group);
        let mut groups: Vec<Group> = prefixed.filter(|group| *group != Group::Standard).collect();
        groups.extend(known.hidden.then_some(Group::Hidden));
        let direct = &mut known.called_directly;
        if !is_used && *direct.get_or_insert_with(|| is_called_directly(module, &functions)) {
            groups.push(Group::Standard);
        }
        groups
    }

    /// Whether the function at `at` only calls another allocator function by its name.
    pub(super) fn forwards(&mut self, image: &Image, module: usize, at: Addr) -> bool {
        let functions = self.functions.clone();
        let Some((known, module)) = self.of(image, module) else {
            return false;
        };
        let at = module.svma(at);
        let found = known.forwards.entry(at);
        let file = module.file();
        *found.or_insert_with(|| forwards::calls_by_name(file, at, Depth::Helpers, &functions))
    }
}

impl Known {
    fn of(image: &Image, module: &Module, functions: &Functions) -> Known {
        let file = module.file();
        let mut known = Known::default();
        if module.is_vdso() || is_c_library(image, module) {
            known.called_directly = Some(false);
        } else {
            known.prefixed = prefixed(file, functions);
            let is_static = image.is_static() && image.program().is_some_and(|p| p.same_as(module));
            known.hidden = !is_static && is_hidden(file, functions);
        }
        known
    }
}

/// The C library and the dynamic linker call their own functions in ways of their own.
fn is_c_library(image: &Image, module: &Module) -> bool {
    let file = module.file();
    let is_program = image
        .program()
        .is_some_and(|program| program.same_as(module));
    let interpreter = image
        .program()
        .and_then(|program| program.file().interpreter());
    let has = |name| file.functions(name).iter().any(|function| function.dynamic);
    !is_program && (Some(module.path()) == interpreter || has("__libc_start_main"))
        || has("_dl_debug_state")
}

fn prefixed(file: &ElfFile, functions: &Functions) -> Vec<(&'static str, Option<Group>)> {
    let at = |name: &str| {
        let functions = file.functions(name);
        functions.first().map(|function| function.svma)
    };
    let standard = at("malloc");
    let with = |prefix: &'static str| {
        let mut mallocs = MALLOCS.into_iter();
        let malloc = mallocs.find_map(|name| at(&format!("{prefix}{name}")))?;
        let group = if Some(malloc) == standard {
            Some(Group::Standard)
        } else {
            // A function of the program's own that has such a name.
            let forwards = forwards::calls_by_name(file, malloc, Depth::Itself, functions);
            (!forwards).then_some(Group::Prefixed(prefix))
        };
        Some((prefix, group))
    };
    PREFIXES.into_iter().filter_map(with).collect()
}

/// An allocator of its own under the standard names, which no other module sees.
fn is_hidden(file: &ElfFile, known: &Functions) -> bool {
    ["malloc", "_Znwm"].into_iter().any(|name| {
        let functions = file.functions(name);
        let is_hidden = !functions.is_empty() && functions.iter().all(|found| !found.dynamic);
        let own = |at: Svma| !forwards::calls_by_name(file, at, Depth::Helpers, known);
        is_hidden && functions.iter().any(|found| own(found.svma))
    })
}

/// Whether the module's code calls its own exported allocator without asking the linker which.
fn is_called_directly(module: &Module, known: &Functions) -> bool {
    let file = module.file();
    let functions =
        ["malloc", "calloc", "realloc", "_Znwm"].map(|name| file.definition(name, None));
    let mut functions = functions.into_iter().flatten();
    functions.any(|function| {
        let at = function.svma;
        !forwards::calls_by_name(file, at, Depth::Helpers, known)
            && forwards::has_direct_call(file, at)
    })
}

/// The definitions of `name` in `module` that are of `group`.
pub(super) fn definitions(
    image: &Image,
    module: usize,
    name: &str,
    group: Group,
    memory: &dyn ReadMemory,
) -> Vec<Code> {
    if group == Group::Standard && names::group(name) == Group::Standard {
        let found = image.resolve_in(module, name, memory);
        return found.into_iter().map(|found| found.code).collect();
    }
    let Some(module) = image.modules().get(module) else {
        return Vec::new();
    };
    let functions = module.file().functions(name).into_iter();
    let wanted = functions
        .filter(|function| !function.ifunc)
        .filter(|function| group != Group::Hidden || !function.dynamic);
    wanted
        .map(|function| Code::At(module.addr(function.svma)))
        .collect()
}
