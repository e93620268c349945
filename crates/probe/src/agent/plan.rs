//! Which functions can be patched: found out while the target runs.

use std::collections::HashMap;
use std::ops::Range;

use leaktap_agent::Shape;
use leaktap_image::{Image, Mapping, Module};
use leaktap_memory::{Addr, ReadMemory, Svma};
use leaktap_tracee::{Tid, find_syscall};

use super::CODE_LEN;
use super::branched::{functions_at, refuse_branched_into, text};
use super::place::place;
use super::shape::{TWIN, may_have_twin, way};
use super::twin;
use crate::detour::Site;
use crate::probepoint::{Kind, Probepoint};
use crate::refusal::Refusal;

/// `add rsp, Call::LEN; ret`
const WAY_OUT: [u8; 5] = [
    0x48,
    0x83,
    0xc4,
    leaktap_agent::layout::Call::LEN as u8,
    0xc3,
];

/// What detours need of a process's code.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The functions that it was made for.
    pub(crate) points: Vec<Probepoint>,
    /// Of each function that may be led to the agent, by its address.
    sites: HashMap<Addr, Result<Site, Refusal>>,
    /// A `syscall` instruction.
    pub(crate) syscall: Option<Addr>,
    /// Code of some function's end that drops the frame of a call through the agent and returns:
    /// unwind tables say the same of it.
    pub(crate) way_out: Option<Addr>,
    /// Where there was room for a code region.
    pub(crate) room: Option<Addr>,
    /// Libraries whose callers know nothing of a function but the psABI.
    apart: Vec<Range<Addr>>,
    /// Most bytes of the stack, if that is limited.
    stack: Option<u64>,
}

impl Plan {
    /// Looks at the code of `points` in `memory`, that of `process`, which must show it as it is
    /// without breakpoints.
    pub(crate) fn new(
        process: Tid,
        image: &Image,
        memory: &impl ReadMemory,
        points: &[Probepoint],
    ) -> Plan {
        let malloc = points.iter().find(|point| point.known.name == TWIN);
        let malloc = malloc.and_then(|malloc| image.module_at(malloc.address));
        // Of functions that map memory, the allocator calls those of its own module, which are in
        // reach, too.
        let is_beside =
            |point: &Probepoint| malloc.is_some_and(|malloc| malloc.contains(point.address));
        let wanted = points.iter().filter(|point| {
            point.kind == Kind::Breakpoint
                && way(&point.known).is_some()
                && (!point.known.action.is_mapping() || is_beside(point))
        });
        let mut sites: HashMap<_, _> = wanted
            .map(|point| (point.address, site(image, memory, point.address)))
            .collect();
        refuse_branched_into(image, &mut sites);
        refuse_throwing(image, points, &mut sites);
        if let Some(refusal) = refusal_of_frees(points, &sites) {
            sites.values_mut().for_each(|site| *site = Err(refusal));
        }
        let way_out = |code: &[u8]| {
            let mut ends = code.windows(WAY_OUT.len());
            ends.position(|bytes| bytes == WAY_OUT)
        };
        let near: Vec<_> = sites.keys().copied().collect();
        let mut plan = Plan {
            points: points.to_vec(),
            syscall: find(image, memory, &near, find_syscall),
            way_out: find(image, memory, &near, way_out),
            sites,
            room: None,
            apart: apart(image),
            stack: process.stack_limit(),
        };
        plan.room = plan.room(image.mappings());
        plan
    }

    /// Where, with these mappings, a code region is near enough to all places that jump there.
    pub(crate) fn room(&self, mappings: &[Mapping]) -> Option<Addr> {
        let sites: Vec<Addr> = self.sites.values().flatten().map(Site::at).collect();
        place(mappings, &sites, CODE_LEN, self.stack)
    }

    /// Why there cannot be an agent, for what the code says and the addresses that are free.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let of_heap = self
            .points
            .iter()
            .filter(|point| !point.known.action.is_mapping());
        let sites = of_heap.filter_map(|point| self.sites.get(&point.address));
        let mut refusals = sites.map(|site| site.as_ref().err().copied());
        let first = refusals.next().flatten();
        if first.is_some() && refusals.all(|refusal| refusal.is_some()) {
            return first;
        }
        match (self.syscall, self.room) {
            (None, _) => Some(Refusal::InjectionForbidden),
            (_, None) => Some(Refusal::NoMemoryInReach),
            _ => None,
        }
    }

    /// Why `point` gets no detour although there is an agent.
    pub(crate) fn refusal_of(&self, point: &Probepoint) -> Option<Refusal> {
        let site = match self.sites.get(&point.address)? {
            Ok(site) => site,
            Err(refusal) => return Some(*refusal),
        };
        let room = self.room?;
        site.moved(room).and(site.jump(room)).err()
    }

    /// How calls of `point` go through the agent.
    pub(crate) fn shape(&self, point: &Probepoint) -> Option<Shape> {
        let lean = way(&point.known)?.shape;
        let is_apart = |range: &Range<Addr>| range.contains(&point.address);
        Some(match self.apart.iter().any(is_apart) {
            true => lean,
            false => lean.full(),
        })
    }

    /// Where the function at `at` can be patched.
    pub(crate) fn site(&self, at: Addr) -> Option<&Result<Site, Refusal>> {
        self.sites.get(&at)
    }
}

/// Release builds of the known allocators as shared libraries: no caller was compiled together with
/// them.
fn apart(image: &Image) -> Vec<Range<Addr>> {
    const KNOWN: [&str; 8] = [
        "libc.so.6",
        "libc.musl-x86_64.so.1",
        "ld-musl-x86_64.so.1",
        "libjemalloc.so.2",
        "libtcmalloc.so.4",
        "libtcmalloc_minimal.so.4",
        "libmimalloc.so.2",
        "libmimalloc.so.3",
    ];
    let own = image.program().map(Module::range);
    let is_known = |module: &&Module| {
        let file_name = || Some(module.path().file_name()?.to_str()?.to_owned());
        let name = module.file().soname().or_else(file_name);
        name.is_some_and(|name| KNOWN.contains(&&*name)) && Some(module.range()) != own
    };
    let known = image.modules().iter().filter(is_known);
    known.map(Module::range).collect()
}

/// Where the function at `at` ends: by its symbol, or else, as one written in assembly may have no
/// size, by call frame information.
fn end_of_function(module: &Module, at: Svma) -> Option<Svma> {
    let symbol = module.file().symbol_at(at);
    match symbol.filter(|symbol| symbol.size > 0) {
        Some(symbol) => Some(Svma(symbol.svma.0.saturating_add(symbol.size))),
        None => Some(functions_at(module, &[at]).pop()??.end),
    }
}

fn site(image: &Image, memory: &impl ReadMemory, at: Addr) -> Result<Site, Refusal> {
    /// No allocator function is longer.
    const LONGEST: u64 = 64 << 10;
    let module = image.module_at(at).ok_or(Refusal::TooShort)?;
    let end = end_of_function(module, module.svma(at)).ok_or(Refusal::TooShort)?;
    let len = module.addr(end).offset_from(at).unwrap_or(0).min(LONGEST);
    let mut code = vec![0; len as usize];
    memory.read(at, &mut code).map_err(|_| Refusal::TooShort)?;
    Site::find(&code, at, memory)
}

/// Refuses functions that throw, unless there is one to call in their place.
fn refuse_throwing(
    image: &Image,
    points: &[Probepoint],
    sites: &mut HashMap<Addr, Result<Site, Refusal>>,
) {
    let is_ok = |sites: &HashMap<_, Result<_, _>>, at| sites.get(at).is_some_and(Result::is_ok);
    let malloc = points.iter().find(|point| point.known.name == TWIN);
    let malloc = malloc.filter(|malloc| is_ok(sites, &malloc.address));
    let malloc = malloc.and_then(|malloc| Some((malloc, image.module_at(malloc.address)?)));
    let has_twin = |point: &Probepoint| {
        malloc.is_some_and(|(malloc, module)| {
            may_have_twin(point.known.action)
                && module.contains(point.address)
                && twin::is_same(module, point.address, malloc.address)
        })
    };
    for point in points.iter().filter(|point| point.known.action.throws()) {
        if is_ok(sites, &point.address) && !has_twin(point) {
            sites.insert(point.address, Err(Refusal::MayUnwind));
        }
    }
}

/// All functions that free are watched in one way: which of two nested ones counts is known only
/// to whoever watches both.
fn refusal_of_frees(
    points: &[Probepoint],
    sites: &HashMap<Addr, Result<Site, Refusal>>,
) -> Option<Refusal> {
    let frees = points.iter().filter(|point| point.known.action.is_free());
    let mut found = frees.filter_map(|point| sites.get(&point.address));
    found.find_map(|site| site.as_ref().err().copied())
}

/// A `syscall` instruction, best in the module of `near`.
pub(crate) fn syscall(image: &Image, memory: &impl ReadMemory, near: Option<Addr>) -> Option<Addr> {
    find(image, memory, near.as_slice(), find_syscall)
}

/// A place for which `search`, in the code of a module's file, finds what is in memory, too. The
/// modules of `near` are
/// searched first: they stay, and are smaller than many a program.
fn find(
    image: &Image,
    memory: &impl ReadMemory,
    near: &[Addr],
    search: impl Fn(&[u8]) -> Option<usize>,
) -> Option<Addr> {
    /// Longer than what is searched for.
    const LEN: usize = 8;
    let modules = image.modules().iter().filter(|m| !m.is_vdso());
    let mut modules: Vec<_> = modules.collect();
    modules.sort_by_key(|module| !near.iter().any(|&at| module.contains(at)));
    modules.into_iter().find_map(|module| {
        text(module).find_map(|(at, code)| {
            let offset = search(&code)?;
            let at = at.wrapping_offset(offset as i64);
            let expected = code.get(offset..offset + LEN)?;
            let mut now = [0; LEN];
            (memory.read(at, &mut now).is_ok() && now == expected).then_some(at)
        })
    })
}
