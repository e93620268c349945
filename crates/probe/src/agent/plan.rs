//! Which functions can be patched: found out while the target runs.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use leaktap_agent::Shape;
use leaktap_api::Action;
use leaktap_image::{Image, Mapping, Module};
use leaktap_ledger::FamilyId;
use leaktap_memory::{Addr, ReadMemory, Svma};
use leaktap_tracee::{CallCode, Tid, find_sigreturn, find_syscall, find_syscall_return};

use super::branched::refuse_branched_into;
use super::fill::STUBS;
use super::groups::{Group, Limits, groups};
use super::shape::{TWIN, may_have_twin, way};
use super::{CODE_LEN, REGIONS};
use super::{twin, unwinding};
use crate::arch::{JUMP_LEN, Site, WAY_OUT};
use crate::extents::functions_at;
use crate::probepoint::{Kind, Probepoint};
use crate::refusal::Refusal;
use crate::returns;

/// What detours need of a process's code.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The functions that it was made for.
    pub(crate) points: Vec<Probepoint>,
    /// Of each function that may be led to the agent, by its address.
    sites: HashMap<Addr, Result<Site, Refusal>>,
    /// By what system calls are made.
    pub(crate) call_code: Option<CallCode>,
    /// Code of some function's end that drops the frame of a call through the agent and returns:
    /// unwind tables say the same of it.
    pub(crate) way_out: Option<Addr>,
    /// Where there is room for code regions, by [`Plan::place`].
    pub(crate) groups: Vec<Group>,
    /// Functions that throw, but past which no exception gets.
    ends: HashSet<Addr>,
    /// Families whose `free` may go on to another function that frees.
    two_frees: Vec<FamilyId>,
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
        let wanted = points
            .iter()
            .filter(|point| point.kind == Kind::Breakpoint && way(&point.known).is_some());
        let site = |point: &Probepoint| match point.known.action {
            Action::CHANGE_MODULES => site_of_return(image, memory, point.address),
            _ => site(image, memory, point.address),
        };
        let mut sites: HashMap<_, _> = wanted.map(|point| (point.address, site(point))).collect();
        refuse_branched_into(image, &mut sites);
        let ends = unwound(image, points);
        refuse_throwing(image, points, &ends, &mut sites);
        let way_out = |code: &[u8]| {
            let mut ends = code.windows(WAY_OUT.len());
            ends.position(|bytes| bytes == WAY_OUT)
        };
        let near: Vec<_> = sites.keys().copied().collect();
        Plan {
            points: points.to_vec(),
            call_code: call_code(image, memory, &near),
            way_out: find(image, memory, &near, way_out),
            sites,
            groups: Vec::new(),
            ends,
            two_frees: two_frees(points),
            apart: apart(image),
            stack: process.stack_limit(),
        }
    }

    /// Finds room for code regions between these mappings, near enough to all places that jump
    /// there. What there is no room for is refused from now on, and what goes one way with that.
    pub(crate) fn place(&mut self, mappings: &[Mapping]) {
        let near: Vec<Addr> = self.sites.values().flatten().map(Site::at).collect();
        let limits = Limits {
            len: CODE_LEN,
            regions: REGIONS,
            places: STUBS,
            stack: self.stack,
        };
        self.groups = groups(mappings, &near, limits);
        for site in self.sites.values_mut() {
            if let Ok(found) = site
                && let Err(refusal) = reached(found, &self.groups)
            {
                *site = Err(refusal);
            }
        }
        self.refuse_together();
        let is_used = |at: &Addr| self.sites.values().flatten().any(|site| site.at() == *at);
        self.groups.retain(|group| group.near.iter().any(is_used));
    }

    /// All functions that free what is of one heap are watched in one way, and with them those that
    /// allocate there: which of two nested ones counts is known only to whoever watches both.
    fn refuse_together(&mut self) {
        let refused = |point: &Probepoint| {
            let refusal = self.sites.get(&point.address)?.as_ref().err()?;
            Some((point.family, *refusal))
        };
        let frees = self
            .points
            .iter()
            .filter(|point| point.known.action.is_free());
        let refused: Vec<_> = frees.filter_map(refused).collect();
        for point in self
            .points
            .iter()
            .filter(|point| !point.known.action.is_mapping())
        {
            let mut refused = refused.iter();
            let with = refused.find(|(family, _)| *family == point.family);
            if let Some((_, refusal)) = with
                && let Some(site @ Ok(_)) = self.sites.get_mut(&point.address)
            {
                *site = Err(*refusal);
            }
        }
    }

    /// Why there cannot be an agent, for what the code says and the addresses that are free:
    /// nothing of any heap would be led to it.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let of_heap = self.points.iter().filter(|point| point.known.is_of_heap());
        let mut sites = of_heap.filter_map(|point| self.sites.get(&point.address));
        let first = sites.next().map_or(Some(Refusal::NoMemoryInReach), |site| {
            site.as_ref().err().copied()
        });
        match sites.all(Result::is_err) {
            true if first.is_some() => first,
            _ => self
                .call_code
                .is_none()
                .then_some(Refusal::InjectionForbidden),
        }
    }

    /// Why `point` gets no detour although there is an agent.
    pub(crate) fn refusal_of(&self, point: &Probepoint) -> Option<Refusal> {
        self.sites.get(&point.address)?.as_ref().err().copied()
    }

    /// How calls of `point` go through the agent.
    pub(crate) fn shape(&self, point: &Probepoint) -> Option<Shape> {
        let lean = match way(&point.known)? {
            Shape::AroundThrowing if self.ends.contains(&point.address) => Shape::Around,
            // Only with a frame is the other one known to be part of it.
            Shape::Before if self.two_frees.contains(&point.family) => Shape::Around,
            shape => shape,
        };
        let is_apart = |range: &Range<Addr>| range.contains(&point.address);
        Some(match self.apart.iter().any(is_apart) {
            true => lean,
            false => lean.full(),
        })
    }

    /// Whether the function at `at` is to be led to the code region of the group `index`.
    pub(crate) fn is_in_group(&self, index: usize, at: Addr) -> bool {
        let site = self.sites.get(&at).and_then(|site| site.as_ref().ok());
        let group = self.groups.get(index);
        site.zip(group)
            .is_some_and(|(site, group)| group.near.contains(&site.at()))
    }

    /// Where the function at `at` can be patched.
    pub(crate) fn site(&self, at: Addr) -> Option<&Result<Site, Refusal>> {
        self.sites.get(&at)
    }
}

/// Families that have a function of free's own name for itself, elsewhere: musl's free is a jump
/// there.
fn two_frees(points: &[Probepoint]) -> Vec<FamilyId> {
    let is_own = |name: &str| name != "free" && name.ends_with("_free");
    let own = points.iter().filter(|point| is_own(&point.known.name));
    own.map(|point| point.family).collect()
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

/// For a function that only returns, with padding behind it up to the next one.
fn site_of_return(image: &Image, memory: &impl ReadMemory, at: Addr) -> Result<Site, Refusal> {
    let code = returns::code(image, memory, at, JUMP_LEN)?;
    Site::of_return(&code, at)
}

/// Of the functions that throw, those past which no exception gets.
fn unwound(image: &Image, points: &[Probepoint]) -> HashSet<Addr> {
    let throwing = points.iter().filter(|point| point.known.action.throws());
    let ends = throwing.filter(|point| {
        let module = image.module_at(point.address);
        module.is_some_and(|module| unwinding::ends_at(module, point.address))
    });
    ends.map(|point| point.address).collect()
}

/// Refuses functions that throw, unless there is one to call in their place, or no exception gets
/// out of them: `ends`.
fn refuse_throwing(
    image: &Image,
    points: &[Probepoint],
    ends: &HashSet<Addr>,
    sites: &mut HashMap<Addr, Result<Site, Refusal>>,
) {
    let is_ok = |sites: &HashMap<_, Result<_, _>>, at| sites.get(at).is_some_and(Result::is_ok);
    let mallocs = points.iter().filter(|point| point.known.name == TWIN);
    let mallocs = mallocs.filter(|malloc| is_ok(sites, &malloc.address));
    let mallocs: Vec<Addr> = mallocs.map(|malloc| malloc.address).collect();
    let has_twin = |point: &Probepoint| {
        let module = image.module_at(point.address);
        let is_its = |(module, malloc): (&Module, &Addr)| {
            module.contains(*malloc) && twin::is_same(module, point.address, *malloc)
        };
        let mut pairs = module
            .into_iter()
            .flat_map(|module| mallocs.iter().map(move |m| (module, m)));
        may_have_twin(point.known.action) && pairs.any(is_its)
    };
    // What a user describes may let an exception pass, and take arguments from the stack, where the
    // agent's frame would be.
    let may_unwind = |point: &Probepoint| {
        point.known.action.throws() && !ends.contains(&point.address) || point.is_told
    };
    for point in points.iter().filter(|point| may_unwind(point)) {
        if is_ok(sites, &point.address) && !has_twin(point) {
            sites.insert(point.address, Err(Refusal::MayUnwind));
        }
    }
}

/// Whether a code region can be reached from `site`, and the other way round, wherever in it the
/// displaced instructions will be.
fn reached(site: &Site, groups: &[Group]) -> Result<(), Refusal> {
    let mut groups = groups.iter();
    let group = groups.find(|group| group.near.contains(&site.at()));
    let at = group.ok_or(Refusal::NoMemoryInReach)?.at;
    for place in [at, at.wrapping_offset(CODE_LEN as i64)] {
        site.moved(place).and(site.jump(place))?;
    }
    Ok(())
}

/// Code for system calls, best in the modules of `near`: by which threads get back without us, if
/// there is such.
pub(crate) fn call_code(
    image: &Image,
    memory: &impl ReadMemory,
    near: &[Addr],
) -> Option<CallCode> {
    let find = |search: fn(&[u8]) -> Option<usize>| find(image, memory, near, search);
    match find(find_syscall_return).zip(find(find_sigreturn)) {
        Some((syscall, sigreturn)) => Some(CallCode {
            syscall,
            sigreturn: Some(sigreturn),
        }),
        None => find(find_syscall).map(|syscall| CallCode {
            syscall,
            sigreturn: None,
        }),
    }
}

/// A place for which `search`, in the code of a module's file, finds what is in memory, too. The
/// modules of `near` are searched first: they stay. The smaller ones of them come before: a browser
/// with an allocator of its own has 200 MB of code, and libc has what is searched for.
fn find(
    image: &Image,
    memory: &impl ReadMemory,
    near: &[Addr],
    search: impl Fn(&[u8]) -> Option<usize>,
) -> Option<Addr> {
    /// As long as what is searched for, or longer.
    const LEN: usize = 9;
    let modules = image.modules().iter().filter(|m| !m.is_vdso());
    let mut modules: Vec<_> = modules.collect();
    modules.sort_by_cached_key(|module| {
        let is_near = near.iter().any(|&at| module.contains(at));
        (!is_near, module.file().code_size())
    });
    modules.into_iter().find_map(|module| {
        module.file().code_in_pieces(LEN).find_map(|(at, code)| {
            let offset = search(&code)?;
            let at = module.addr(at).wrapping_offset(offset as i64);
            let expected = code.get(offset..offset + LEN)?;
            let mut now = [0; LEN];
            (memory.read(at, &mut now).is_ok() && now == expected).then_some(at)
        })
    })
}
