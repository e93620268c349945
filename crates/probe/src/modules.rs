//! The modules of a process, with the unwind rows of each.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};

use crate::families::{Families, Family, Pool};
use crate::glance::Kernel;
use crate::rows_of::rows_of;
use leaktap_image::{ElfFile, FileCache, Image, LinkState, Module};
use leaktap_ledger::FamilyId;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{Memory, stand_by};
use leaktap_unwind::{Built, Table};

/// Files that processes map: each is opened once, and its unwind rows are made once.
#[derive(Debug, Default)]
pub struct Files {
    /// Those that are open.
    pub opened: FileCache,
    rows: HashMap<*const ElfFile, Rows>,
    maker: Maker,
}

impl Files {
    /// Closes those that `is_used` is false of, and forgets their rows.
    pub fn retain(&mut self, is_used: impl Fn(&Arc<ElfFile>) -> bool) {
        self.rows.retain(|_, rows| is_used(&rows.file));
        self.opened.retain(is_used);
    }

    /// Inserts the rows of `modules`. Returns those rows, which may not have been made yet.
    fn insert(&mut self, modules: &[Module], rules: &mut Table) -> Vec<Rows> {
        let insert = |module: &Module| {
            let made = self.rows.entry(Arc::as_ptr(module.file()));
            let rows = made.or_insert_with(|| Rows::of(module.file())).clone();
            let base = module.file().base().at_bias(module.bias());
            // Where it has code, and nowhere else: a file may claim the range of another one.
            for range in module.executable() {
                let load = rows.clone();
                rules.insert(range.clone(), base, Box::new(move || load.get()));
            }
            rows
        };
        modules.iter().map(insert).collect()
    }
}

/// The rows of a file, made by whoever needs them first.
#[derive(Clone, Debug)]
struct Rows {
    file: Arc<ElfFile>,
    built: Arc<OnceLock<Arc<Built>>>,
}

impl Rows {
    fn of(file: &Arc<ElfFile>) -> Rows {
        Rows {
            file: Arc::clone(file),
            built: Arc::default(),
        }
    }

    /// The rows. If another thread is making them, when it is done.
    fn get(&self) -> Arc<Built> {
        let built = self.built.get_or_init(|| Arc::new(rows_of(&self.file)));
        Arc::clone(built)
    }
}

/// Another thread, which makes rows while this one does something else. None if there can be no
/// thread more: they are made when they are needed then.
///
/// It starts before the trace, and there is no other.
#[derive(Debug)]
struct Maker(Option<Sender<Vec<Rows>>>);

impl Default for Maker {
    fn default() -> Maker {
        let (ask, asked) = channel::<Vec<Rows>>();
        let make = move || {
            asked
                .into_iter()
                .flatten()
                .for_each(|rows| drop(rows.get()))
        };
        Maker(stand_by(make).is_ok().then_some(ask))
    }
}

impl Maker {
    /// Makes `all`, one file after the other.
    fn make_ahead(&self, all: Vec<Rows>) {
        let is_made = all.iter().all(|rows| rows.built.get().is_some());
        if let (false, Some(ask)) = (is_made, &self.0) {
            drop(ask.send(all)); // without the thread, as without a maker
        }
    }
}

/// The modules of a process.
#[derive(Debug)]
pub struct Modules {
    image: Image,
    rules: Table,
    c_library: Vec<Range<Addr>>,
    system: Vec<Range<Addr>>,
    /// See [`Modules::allocators`].
    allocators: Vec<(FamilyId, Range<Addr>)>,
    families: Families,
    /// See [`Modules::has_operators`].
    has_operators: bool,
    /// See [`Modules::may_map`].
    may_map: bool,
    gone: Vec<Module>,
    /// See [`Modules::look_at_all`].
    looks_at_all: bool,
    /// The families are those of the last look, which has just been made.
    has_families: bool,
}

/// What a look at the modules has found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Those that are new.
    pub(crate) added: Vec<Module>,
    /// Where modules were that are gone.
    pub(crate) gone: Vec<Range<Addr>>,
    /// The allocators are the same, and modules are searched in the order in which they were.
    pub(crate) are_same: bool,
}

/// What is looked at when modules are brought up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    /// All that is mapped.
    All,
    /// What the dynamic linker lists, of which each change has been told.
    Listed,
}

impl Modules {
    /// The modules of `image`, with rows from `files`.
    pub fn new(
        image: Image,
        pools: Vec<Pool>,
        memory: &dyn ReadMemory,
        files: &mut Files,
    ) -> Modules {
        let mut rules = Table::new();
        let all = files.insert(image.modules(), &mut rules);
        if is_linked(&image, memory) {
            // A program at work needs its processors itself, and does not wait for us yet.
            all.iter().for_each(|rows| drop(rows.get()));
        } else {
            files.maker.make_ahead(all);
        }
        let mut families = Families::new(pools);
        families.update(&image, memory);
        let c_library = c_library(&image, memory);
        let system = system(&image, &families, &c_library);
        let allocators = allocators(&image, &families);
        let has_operators = image.modules().iter().any(defines_operators);
        let may_map = image.modules().iter().any(|module| maps(module, &system));
        Modules {
            has_operators,
            may_map,
            image,
            rules,
            c_library,
            system,
            allocators,
            families,
            gone: Vec::new(),
            looks_at_all: false,
            has_families: false,
        }
    }

    /// The program has mapped code itself: the next look is at all mappings.
    pub(crate) fn look_at_all(&mut self) {
        self.looks_at_all = true;
    }

    /// The modules that are loaded.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Whether the dynamic linker has its list at rest.
    pub(crate) fn are_at_rest(&mut self, memory: &dyn ReadMemory) -> bool {
        self.image.linker_state(memory) == Some(LinkState::Consistent)
    }

    /// The allocators that are loaded: that of the main program's malloc first.
    pub fn families(&self) -> &Families {
        &self.families
    }

    /// Looks for them again, unless a look at the modules has just done so: more functions may be
    /// bound now.
    pub fn look_for_families(&mut self, memory: &dyn ReadMemory) {
        if !std::mem::take(&mut self.has_families) {
            self.families.update(&self.image, memory);
        }
    }

    /// The modules that are loaded, and those that were.
    pub fn all(&self) -> impl Iterator<Item = &Module> {
        self.image.modules().iter().chain(&self.gone)
    }

    /// The module at `at`: one that is loaded, else one that was.
    pub fn module_at(&self, at: Addr) -> Option<&Module> {
        let gone = || self.gone.iter().rev().find(|module| module.contains(at));
        self.image.module_at(at).or_else(gone)
    }

    /// The files in which the outermost frames of nearly all stacks are: the program's, and the C
    /// library's.
    pub fn outermost(&self) -> impl Iterator<Item = &Arc<ElfFile>> {
        let starts = |module: &&Module| starts_programs(module);
        let library = self.image.modules().iter().find(starts);
        self.image
            .program()
            .into_iter()
            .chain(library)
            .map(Module::file)
    }

    /// Whether `file` is that of a module that is loaded, or was.
    pub fn has(&self, file: &Arc<ElfFile>) -> bool {
        let mut modules = self.all();
        modules.any(|module| Arc::ptr_eq(module.file(), file))
    }

    /// Whether some module has, or had, C++'s `operator delete`: blocks may be freed by the wrong
    /// function.
    pub fn has_operators(&self) -> bool {
        self.has_operators
    }

    /// Whether some module has, or had, a function that maps memory, or refers to one; the C
    /// library and the allocator apart.
    pub fn may_map(&self) -> bool {
        self.may_map
    }

    /// Rules to unwind by.
    pub fn rules(&mut self) -> &mut Table {
        &mut self.rules
    }

    /// True of code of the C library, the dynamic linker and the allocator, unless they are part
    /// of the program's own file.
    pub fn is_system(&self, at: Addr) -> bool {
        self.system.iter().any(|range| range.contains(&at))
    }

    /// Where that is.
    pub fn system(&self) -> &[Range<Addr>] {
        &self.system
    }

    /// Whether what is mapped for the code at `ret` is for the C library, or for an allocator: it
    /// and its caller, which goes on where `caller` says, are code that an allocator runs. What the
    /// program calls for itself, too, is called by others.
    pub(crate) fn map_for_allocator(
        &mut self,
        ret: Addr,
        caller: impl FnOnce(&mut Modules) -> Option<Addr>,
    ) -> bool {
        let is_its = |modules: &mut Modules, ret: Addr| {
            let call = ret.wrapping_offset(-1); // not what follows
            modules.families.lead_to(&modules.image, call)
        };
        self.is_system(ret)
            || is_its(self, ret) && caller(self).is_some_and(|caller| is_its(self, caller))
    }

    /// The modules that are never unloaded, as far as is known: those, and the program's own.
    pub fn staying(&self) -> Vec<Range<Addr>> {
        let own = self.image.program().map(Module::range);
        self.system.iter().cloned().chain(own).collect()
    }

    /// True if one module has both.
    pub fn is_same(&self, one: Addr, other: Addr) -> bool {
        self.image
            .module_at(one)
            .is_some_and(|module| module.contains(other))
    }

    /// True of glibc's malloc.o: what it calls is no allocation or free of the program's. When a
    /// thread ends, it frees the blocks of the thread's cache again.
    pub fn is_allocator(&self, at: Addr) -> bool {
        let mut all = self.allocators.iter();
        all.any(|(_, code)| code.contains(&at))
    }

    /// Where glibc's malloc.o is, for each family that has one: see [`Modules::is_allocator`].
    pub fn allocators(&self) -> &[(FamilyId, Range<Addr>)] {
        &self.allocators
    }

    /// True of code from which a call of a function of `family` may be the allocator's own doing:
    /// the C library's, the dynamic linker's, its own module's. One of another allocator's is not.
    pub(crate) fn is_inside(&self, family: FamilyId, at: Addr) -> bool {
        let is_its = |range: &Range<Addr>| range.contains(&at);
        self.c_library.iter().any(is_its)
            || self
                .of_families()
                .any(|(range, of)| of == family && is_its(&range))
    }

    /// Where each family's module is.
    fn of_families(&self) -> impl Iterator<Item = (Range<Addr>, FamilyId)> + '_ {
        let modules = self.image.modules();
        let all = self.families.all().iter();
        all.filter_map(|family| Some((modules.get(family.module)?.range(), family.id?)))
    }

    /// The modules from which calls of each family may be the allocator's own, by `is_inside`;
    /// those of the probed `functions` among them.
    pub fn inside(
        &self,
        functions: impl Iterator<Item = (Addr, FamilyId)>,
    ) -> Vec<(Range<Addr>, u32)> {
        let all = self.c_library.iter().map(|range| (range.clone(), !0));
        let mut inside: Vec<_> = all.collect();
        let of_function = |(at, family)| Some((self.image.module_at(at)?.range(), family));
        for (range, family) in functions.filter_map(of_function).chain(self.of_families()) {
            let bit = 1 << family.number();
            match inside.iter_mut().find(|(known, _)| *known == range) {
                Some((_, families)) => *families |= bit,
                None => inside.push((range, bit)),
            }
        }
        inside
    }

    /// Where the C library notes the end of the heap segment, if it does.
    pub fn break_at(&self) -> Option<Addr> {
        self.image.modules().iter().find_map(|module| {
            let symbol = module.file().objects("__curbrk").into_iter().next()?;
            Some(module.addr(symbol.svma))
        })
    }

    /// The end of the heap segment as the C library notes it, or 0 if it does not.
    pub fn current_break(&self, memory: &dyn ReadMemory) -> u64 {
        let noted = self.break_at().map(|at| memory.read_u64(at));
        noted.and_then(Result::ok).unwrap_or(0)
    }

    /// Whether the C library need not be the one that is known: all others stay where they are, and
    /// what is searched first goes on to be.
    fn may_have_other_c_library(&self, added: &[Module], gone: &[Range<Addr>]) -> bool {
        let linker = self
            .image
            .program()
            .and_then(|exe| exe.file().interpreter());
        let is_its = |module: &Module| starts_programs(module) || Some(module.path()) == linker;
        self.c_library.is_empty()
            || added.iter().any(is_its)
            || gone.iter().any(|range| self.c_library.contains(range))
    }

    /// Reads the list of modules again; returns what has changed, or nothing if all is as it was.
    /// The rows of new ones are made from now on.
    pub(crate) fn refresh(
        &mut self,
        memory: &Memory,
        files: &mut Files,
        look: Look,
    ) -> Option<Found> {
        self.has_families = false;
        let is_told = look == Look::Listed && !std::mem::take(&mut self.looks_at_all);
        let followed = is_told.then(|| self.image.follow(&Kernel(memory), &mut files.opened));
        let changes = match followed.flatten() {
            Some(changes) => changes,
            // An error means that the process is being killed: its end comes next.
            None => self.image.refresh(memory, &mut files.opened).ok()??,
        };
        let gone: Vec<_> = changes.removed.iter().map(Module::range).collect();
        for range in changes.removed.iter().flat_map(Module::executable) {
            self.rules.remove(range.clone());
        }
        self.has_operators |= changes.added.iter().any(defines_operators);
        let added = files.insert(&changes.added, &mut self.rules);
        files.maker.make_ahead(added);
        let mut are_same = self.families.follow(&self.image, &changes, memory);
        self.has_families = true;
        if self.may_have_other_c_library(&changes.added, &gone) {
            self.c_library = c_library(&self.image, memory);
            are_same = false;
        }
        if !are_same {
            self.system = system(&self.image, &self.families, &self.c_library);
            self.allocators = allocators(&self.image, &self.families);
        }
        let mut added = changes.added.iter();
        self.may_map |= added.any(|module| maps(module, &self.system));
        self.remember(changes.removed);
        Some(Found {
            added: changes.added,
            gone,
            are_same,
        })
    }

    /// Modules that are gone. One that comes and goes is remembered once.
    fn remember(&mut self, removed: Vec<Module>) {
        let is_among = |module: &Module| removed.iter().any(|new| new.same_as(module));
        self.gone.retain(|module| !is_among(module));
        self.gone.extend(removed);
    }
}

fn starts_programs(module: &Module) -> bool {
    !module.file().functions("__libc_start_main").is_empty()
}

fn maps(module: &Module, system: &[Range<Addr>]) -> bool {
    const NAMES: [&str; 5] = ["mmap", "mmap64", "mremap", "brk", "sbrk"];
    let file = module.file();
    let has = |name| !file.references(name).is_empty() || !file.functions(name).is_empty();
    !system.contains(&module.range()) && NAMES.into_iter().any(has)
}

fn defines_operators(module: &Module) -> bool {
    !module.file().functions("_ZdlPv").is_empty()
}

/// True if the dynamic linker has mapped what the program needs, or there is none.
pub(crate) fn is_linked(image: &Image, memory: &dyn ReadMemory) -> bool {
    let debug = image.r_debug(memory);
    image.is_static() || debug.is_some_and(|debug| debug.state == LinkState::Consistent)
}

/// Modules of the C library and the dynamic linker; the program's own is none of them.
fn c_library(image: &Image, memory: &dyn ReadMemory) -> Vec<Range<Addr>> {
    let linker = image.program().and_then(|exe| exe.file().interpreter());
    let is_linker = |module: &&Module| Some(module.path()) == linker;
    let is_libc = |module: &&Module| starts_programs(module);
    let mmap = image.resolve("mmap", memory);
    let found = [
        mmap.and_then(|mmap| image.modules().get(mmap.module)),
        image.modules().iter().find(is_linker),
    ];
    // One a namespace, dlmopen(3).
    let others = image.modules().iter().filter(is_libc);
    without_program(image, found.into_iter().flatten().chain(others))
}

/// Those, and the module of the program's allocator.
fn system(image: &Image, families: &Families, c_library: &[Range<Addr>]) -> Vec<Range<Addr>> {
    let first = families.all().first();
    let first = first.and_then(|family| image.modules().get(family.module));
    let mut all = without_program(image, first.into_iter());
    all.retain(|range| !c_library.contains(range));
    all.extend(c_library.iter().cloned());
    all
}

fn without_program<'i>(
    image: &Image,
    modules: impl Iterator<Item = &'i Module>,
) -> Vec<Range<Addr>> {
    let own = image.program().map(Module::range);
    let mut ranges = Vec::new();
    for range in modules.map(Module::range) {
        if Some(&range) != own.as_ref() && !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    ranges
}

/// For each family that has it, glibc's malloc.o.
fn allocators(image: &Image, families: &Families) -> Vec<(FamilyId, Range<Addr>)> {
    let code = |family: &Family| {
        let module = image.modules().get(family.module)?;
        Some((family.id?, malloc_object(module)?))
    };
    families.all().iter().filter_map(code).collect()
}

/// From the first to the last of the functions that malloc.o defines, in the order of its source.
/// None in another allocator: musl has some of these names, in several objects.
fn malloc_object(module: &Module) -> Option<Range<Addr>> {
    const DEFINES: [&str; 6] = [
        "__libc_malloc",
        "__libc_free",
        "__libc_realloc",
        "__libc_memalign",
        "__libc_calloc",
        "posix_memalign",
    ];
    let define = |name: &str| {
        let functions = module.file().functions(name).into_iter();
        functions.map(|function| module.addr(function.svma)).next()
    };
    let here: Option<Vec<Addr>> = DEFINES.into_iter().map(define).collect();
    let here = here?;
    Some(*here.iter().min()?..*here.iter().max()?)
}
