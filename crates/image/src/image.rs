use leaktap_memory::{Addr, ReadMemory};

use crate::auxv::Auxv;
use crate::files::{FileCache, Opener};
use crate::link_map::{Link, LinkState, RDebug};
use crate::maps::{Mapping, Maps};
use crate::module::Module;
use crate::scan::{self, Scan, Skipped};
use crate::thread::living_thread;
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
    /// The dynamic linker's lists.
    pub(crate) links: Vec<Link>,
    pub(crate) namespaces: Vec<Vec<usize>>,
    pub(crate) has_program: bool,
    /// The dynamic linker was not changing its list.
    pub(crate) at_rest: bool,
    pub(crate) skipped: Vec<Skipped>,
}

/// What a refresh has found.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Loaded since; also a file that is loaded elsewhere now.
    pub added: Vec<Module>,
    /// Unloaded since.
    pub removed: Vec<Module>,
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
    /// when the dynamic
    /// linker was at rest: then its list is the same, too.
    ///
    /// # Errors
    /// As [`Image::load`]; the image is as it was then.
    pub fn refresh(
        &mut self,
        memory: &dyn ReadMemory,
        files: &mut FileCache,
    ) -> Result<Option<Changes>, Error> {
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
        let thread = living_thread(pid).unwrap_or(pid);
        let opener = Opener::new(thread, memory, mappings, program);
        let mut found = Scan::code(opener, files, before);
        let r_debug = scan::r_debug(&found.modules, auxv, memory);
        let at_rest = r_debug
            .as_ref()
            .is_some_and(|r_debug| r_debug.state == LinkState::Consistent);
        let links = r_debug
            .map(|r_debug| r_debug.links(memory))
            .unwrap_or_default();
        found.listed(&links);
        let skipped = found.skipped;
        let (modules, has_program) = scan::order(found.modules, &links, auxv);
        let namespaces = scan::namespaces(&modules, &links, has_program);
        Ok(Image {
            pid,
            auxv,
            maps,
            modules,
            links,
            namespaces,
            has_program,
            at_rest,
            skipped,
        })
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
        self.modules.iter().find(|module| module.contains(at))
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
        scan::r_debug(&self.modules, self.auxv, memory)
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
