use leaktap_memory::{Addr, ReadMemory};

use crate::auxv::Auxv;
use crate::files::{FileCache, Opener};
use crate::link_map::{Link, LinkState, RDebug};
use crate::listing::Listing;
use crate::maps::{Mapping, Maps};
use crate::module::Module;
use crate::scan::{self, ByAddress, Scan, Skipped};
use crate::{ElfFile, Error};

/// The modules of a process at one moment.
///
/// They are taken from the mappings, which cannot lie, and ordered by the link map, which can: a
/// list that is damaged, or not there yet, costs the order only.
#[derive(Debug)]
pub struct Image {
    pub(crate) pid: i32,
    pub(crate) auxv: Auxv,
    pub(crate) maps: Maps,
    pub(crate) modules: Vec<Module>,
    pub(crate) by_address: ByAddress,
    /// The dynamic linker's lists.
    pub(crate) listing: Listing,
    pub(crate) namespaces: Vec<Vec<usize>>,
    pub(crate) has_program: bool,
    /// The dynamic linker was not changing its list.
    pub(crate) at_rest: bool,
    /// When it was changing it, it was adding to it.
    pub(crate) is_adding: bool,
    /// Where its interface is, if that was filled.
    r_debug_at: Option<Addr>,
    pub(crate) skipped: Vec<Skipped>,
}

/// What a refresh has found.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Loaded since; also a file that is loaded elsewhere now.
    pub added: Vec<Module>,
    /// Unloaded since.
    pub removed: Vec<Module>,
    /// Where those are that stayed; nothing if they are no longer searched in the same order, or
    /// not before all that was added.
    pub moves: Option<Moves>,
}

/// Where modules are in [`Image::modules`] now, by where they were.
#[derive(Clone, Debug)]
pub struct Moves(pub(crate) Vec<Option<usize>>);

impl Moves {
    /// Where the one is that was number `before`; nothing of one that is gone.
    pub fn index(&self, before: usize) -> Option<usize> {
        self.0.get(before).copied().flatten()
    }
}

impl Changes {
    /// True if nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl Image {
    /// The modules of process `pid`, whose memory is `memory`. Works at any moment: stopped at
    /// its exec, where only the program, the dynamic linker and the vdso are there, or later.
    ///
    /// # Errors
    /// [`Error::NoProcess`], [`Error::NoMemory`], [`Error::Denied`] or [`Error::Proc`] for what is
    /// under /proc. A module that cannot be read is not an error: see [`Image::skipped`].
    pub fn load(pid: i32, memory: &dyn ReadMemory, files: &mut FileCache) -> Result<Image, Error> {
        Image::scan(pid, Maps::read(pid)?, memory, files, &[])
    }

    /// Looks again, after dlopen(3) or dlclose(3). After execve(2) load a new image instead.
    ///
    /// Nothing, and little work, if the same files are mapped at the same places as the last time,
    /// when the dynamic linker was at rest: then its list is the same, too.
    ///
    /// # Errors
    /// As [`Image::load`]; the image is as it was then.
    pub fn refresh(
        &mut self,
        memory: &dyn ReadMemory,
        files: &mut FileCache,
    ) -> Result<Option<Changes>, Error> {
        self.is_adding = false;
        let maps = match self.maps.read_again(self.pid)? {
            None if self.at_rest => return Ok(None),
            None => Maps::read(self.pid)?,
            Some(maps) => maps,
        };
        if self.at_rest && of_files(&maps).eq(of_files(&self.maps)) {
            self.maps = maps;
            return Ok(None);
        }
        let now = Image::scan(self.pid, maps, memory, files, &self.modules)?;
        let changes = Changes {
            added: missing(&now.modules, &self.modules),
            removed: missing(&self.modules, &now.modules),
            moves: None,
        };
        *self = now;
        Ok(Some(changes))
    }

    fn scan(
        pid: i32,
        maps: Maps,
        memory: &dyn ReadMemory,
        files: &mut FileCache,
        before: &[Module],
    ) -> Result<Image, Error> {
        let mappings = &maps.mappings;
        if mappings.is_empty() {
            return Err(Error::NoMemory { pid });
        }
        let auxv = Auxv::read(pid)?;
        let program = mappings
            .iter()
            .find(|map| map.contains(auxv.program_headers));
        let opener = Opener::new(pid, memory, mappings, program);
        let mut found = Scan::code(opener, files, before);
        let r_debug = scan::r_debug(&found.modules, auxv, memory);
        let at_rest = r_debug
            .as_ref()
            .is_some_and(|r_debug| r_debug.state == LinkState::Consistent);
        let r_debug_at = r_debug.filter(|_| at_rest).map(|r_debug| r_debug.at);
        let links = r_debug
            .map(|r_debug| r_debug.links(memory))
            .unwrap_or_default();
        found.listed(&links);
        let Scan {
            modules, skipped, ..
        } = found;
        let by_address = ByAddress::new(&modules);
        let at = |link: &Link| by_address.at(&modules, link.dynamic);
        let listing = Listing {
            modules: links.iter().map(at).collect(),
            links,
        };
        let mut image = Image {
            pid,
            auxv,
            maps,
            modules: Vec::new(),
            by_address: ByAddress::default(),
            listing,
            namespaces: Vec::new(),
            has_program: false,
            at_rest,
            is_adding: false,
            r_debug_at,
            skipped,
        };
        image.put_in_order(modules);
        Ok(image)
    }

    /// Its modules are `found`, which its listing has the numbers of, in the order in which they
    /// are searched. Returns which number each has now.
    pub(crate) fn put_in_order(&mut self, found: Vec<Module>) -> Vec<usize> {
        let (order, has_program) = scan::order(&found, &self.listing.modules, self.auxv);
        let mut places = vec![0; found.len()];
        for (place, index) in order.iter().enumerate() {
            places[*index] = place;
        }
        let is_same = order
            .iter()
            .enumerate()
            .all(|(place, index)| place == *index);
        self.modules = match is_same {
            true => found,
            false => {
                let mut left: Vec<_> = found.into_iter().map(Some).collect();
                let taken = order.iter().filter_map(|index| left[*index].take());
                taken.collect()
            }
        };
        for module in self.listing.modules.iter_mut().flatten() {
            *module = places[*module];
        }
        self.has_program = has_program;
        self.by_address = ByAddress::new(&self.modules);
        self.namespaces = scan::namespaces(&self.listing, has_program);
        places
    }

    /// False if the process has executed another program since: then load a new image. True of one
    /// that we may no longer read: it has given up rights, or protected itself.
    pub fn is_current(&self) -> bool {
        match Auxv::read(self.pid) {
            Ok(now) => now == self.auxv,
            Err(error) => matches!(error, Error::Denied { .. }),
        }
    }

    /// The program first, then in link-map order (preloaded libraries before others), then what
    /// the dynamic linker does not list, by address.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// What each namespace has loaded, as indices of [`Image::modules`] in the order of its list.
    /// The program's own is the first; dlmopen(3) makes others. The dynamic linker is in all.
    pub fn namespaces(&self) -> &[Vec<usize>] {
        &self.namespaces
    }

    /// What is mapped executable and is no module.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// All mappings, as of the last look.
    pub fn mappings(&self) -> &[Mapping] {
        &self.maps.mappings
    }

    /// The module that `at` belongs to.
    pub fn module_at(&self, at: Addr) -> Option<&Module> {
        self.modules.get(self.index_at(at)?)
    }

    /// Which of [`Image::modules`] it is.
    pub fn index_at(&self, at: Addr) -> Option<usize> {
        self.by_address.at(&self.modules, at)
    }

    /// Which of [`Image::modules`] `module` is.
    pub fn index_of(&self, module: &Module) -> Option<usize> {
        let is_it = |other: &Module| other.key() == module.key();
        self.by_address
            .find(&self.modules, module.range().start, is_it)
    }

    /// The module that has an executable mapping at `at`.
    pub(crate) fn code_at(&self, at: Addr) -> Option<&Module> {
        let has_code = |module: &Module| module.has_code_at(at);
        let index = self.by_address.find(&self.modules, at, has_code)?;
        self.modules.get(index)
    }

    /// The main program, unless it could not be opened.
    pub fn program(&self) -> Option<&Module> {
        self.modules.first().filter(|_| self.has_program)
    }

    /// Where the main program begins (AT_ENTRY); zero if the kernel does not say.
    pub fn entry(&self) -> Addr {
        self.auxv.entry
    }

    /// True if no dynamic linker is involved: neither asked for by the program, nor the program.
    pub fn is_static(&self) -> bool {
        self.program().is_some_and(|program| {
            program.file().interpreter().is_none() && break_function(program.file()).is_none()
        })
    }

    /// The dynamic linker's debugger interface as it is now. Nothing before the linker has set it
    /// up. A static program can have one too, for its own dlopen(3).
    pub fn r_debug(&self, memory: &dyn ReadMemory) -> Option<RDebug> {
        let known = self.r_debug_at.and_then(|at| RDebug::read(at, memory));
        known.or_else(|| scan::r_debug(&self.modules, self.auxv, memory))
    }

    /// What the dynamic linker is doing; nothing before it has set that interface up. What it adds
    /// until it is next at rest is at the end of its lists, for [`Image::follow`].
    pub fn linker_state(&mut self, memory: &dyn ReadMemory) -> Option<LinkState> {
        let state = self.r_debug(memory)?.state;
        if state != LinkState::Consistent {
            self.is_adding = state == LinkState::Add;
        }
        Some(state)
    }

    /// The function that the dynamic linker calls before and after it changes its list: `r_brk`,
    /// or, before it has said so, the function that will be (`_dl_debug_state` in glibc and musl).
    pub fn linker_brk(&self, memory: &dyn ReadMemory) -> Option<Addr> {
        let said = self.r_debug(memory).map(|r_debug| r_debug.r_brk);
        said.filter(|at| !at.is_null()).or_else(|| {
            let linker = scan::linker(&self.modules, self.auxv)?;
            Some(linker.addr(break_function(linker.file())?))
        })
    }
}

fn break_function(linker: &ElfFile) -> Option<leaktap_memory::Svma> {
    let functions = linker.functions("_dl_debug_state");
    functions
        .into_iter()
        .find(|function| function.dynamic)
        .map(|function| function.svma)
}

/// Those that may be a module's: of a file, and not shared with others.
fn of_files(maps: &Maps) -> impl Iterator<Item = &Mapping> {
    let is_file = |map: &&Mapping| map.inode != 0 && !map.perms.shared;
    maps.mappings.iter().filter(is_file)
}

/// Those of `these` that are not among `those`.
fn missing(these: &[Module], those: &[Module]) -> Vec<Module> {
    let of_bias = |module: &Module| module.bias();
    let mut biases: Vec<(u64, &Module)> = those.iter().map(|m| (of_bias(m), m)).collect();
    biases.sort_unstable_by_key(|(bias, _)| *bias);
    let absent = |module: &&Module| {
        let first = biases.partition_point(|(bias, _)| *bias < module.bias());
        let mut others = biases.iter().skip(first);
        let mut others = others
            .by_ref()
            .take_while(|(bias, _)| *bias == module.bias());
        !others.any(|(_, other)| other.same_as(module))
    };
    these.iter().filter(absent).cloned().collect()
}
