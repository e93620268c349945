//! Which functions can be patched: found out while the target runs.

use std::collections::HashMap;
use std::ops::Range;

use leaktap_agent::Shape;
use leaktap_image::{Image, Module};
use leaktap_memory::{Addr, ReadMemory, Svma};
use leaktap_tracee::find_syscall;

use super::inject::has_twin;
use super::shape::{only_throws, way};
use crate::detour::{Site, are_branched_into};
use crate::functions::Action;
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
    /// Of each function of the heap, by its address.
    sites: HashMap<Addr, Result<Site, Refusal>>,
    /// A `syscall` instruction.
    pub(crate) syscall: Option<Addr>,
    /// Code of some function's end that drops the frame of a call through the agent and returns:
    /// unwind tables say the same of it.
    pub(crate) way_out: Option<Addr>,
}

impl Plan {
    /// Looks at the code of `points` in `memory`, which must show it as it is without breakpoints.
    pub(crate) fn new(image: &Image, memory: &impl ReadMemory, points: &[Probepoint]) -> Plan {
        let wanted = points.iter().filter(|point| {
            let known = point.function.function();
            point.kind == Kind::Breakpoint && known.is_some_and(|known| way(known).is_some())
        });
        let mut sites: HashMap<_, _> = wanted
            .map(|point| (point.address, site(image, memory, point.address)))
            .collect();
        refuse_branched_into(image, &mut sites);
        if let Some(refusal) = refusal_of_frees(points, &sites) {
            sites.values_mut().for_each(|site| *site = Err(refusal));
        }
        Plan {
            sites,
            syscall: find(image, memory, |code, _| find_syscall(code)),
            way_out: find(image, memory, |code, from| {
                let ends = code.windows(WAY_OUT.len()).enumerate();
                let mut ends = ends.skip(from).filter(|(_, bytes)| *bytes == WAY_OUT);
                ends.next().map(|(offset, _)| offset)
            }),
        }
    }

    /// Whether the function at `point` will be led to an agent, as far as can be told before that; if not, why.
    pub(crate) fn foresees(&self, point: &Probepoint, image: &Image) -> Result<(), Refusal> {
        let known = point.function.function().ok_or(Refusal::TooShort)?;
        let site = self.sites.get(&point.address).ok_or(Refusal::TooShort)?;
        site.as_ref().map_err(|refusal| *refusal)?;
        let module = image.module_at(point.address);
        let may_throw = way(known).is_some_and(|way| way.shape == Shape::AroundThrowing)
            && !module.is_some_and(has_twin);
        match only_throws(known) || may_throw {
            true => Err(Refusal::MayUnwind),
            false => Ok(()),
        }
    }

    /// Why a function that stayed a breakpoint did so. Nothing for one that is not of the heap.
    pub(crate) fn refusal(&self, point: &Probepoint) -> Option<Refusal> {
        let known = point.function.function()?;
        let throws = only_throws(known) || way(known)?.shape == Shape::AroundThrowing;
        match self.sites.get(&point.address)? {
            Err(refusal) => Some(*refusal),
            Ok(_) if throws => Some(Refusal::MayUnwind),
            Ok(_) => Some(Refusal::NoMemoryInReach),
        }
    }

    /// Where jumps will be.
    pub(crate) fn places(&self) -> Vec<Addr> {
        let found = self.sites.values().flatten();
        found.map(Site::at).collect()
    }

    /// Where the function at `at` can be patched.
    pub(crate) fn site(&self, at: Addr) -> Option<&Result<Site, Refusal>> {
        self.sites.get(&at)
    }
}

fn site(image: &Image, memory: &impl ReadMemory, at: Addr) -> Result<Site, Refusal> {
    /// No allocator function is longer.
    const LONGEST: u64 = 64 << 10;
    let module = image.module_at(at).ok_or(Refusal::TooShort)?;
    let symbol = module.file().symbol_at(module.svma(at));
    let symbol = symbol.ok_or(Refusal::TooShort)?;
    let end = module.addr(Svma(symbol.svma.0.saturating_add(symbol.size)));
    let len = end.offset_from(at).unwrap_or(0).min(LONGEST);
    let mut code = vec![0; len as usize];
    memory.read(at, &mut code).map_err(|_| Refusal::TooShort)?;
    Site::find(&code, at, memory)
}

/// Looks for branches from anywhere in a function's module: its cold parts are elsewhere.
fn refuse_branched_into(image: &Image, sites: &mut HashMap<Addr, Result<Site, Refusal>>) {
    for module in image.modules() {
        let here: Vec<(Addr, Range<Addr>)> = sites
            .iter()
            .filter(|(at, _)| module.contains(**at))
            .filter_map(|(at, site)| Some((*at, site.as_ref().ok()?.inner())))
            .collect();
        if here.is_empty() {
            continue;
        }
        let inner: Vec<_> = here.iter().map(|(_, inner)| inner.clone()).collect();
        for (at, code) in text(module) {
            let found = are_branched_into(&code, at, &inner);
            for ((function, _), _) in here.iter().zip(found).filter(|(_, found)| *found) {
                sites.insert(*function, Err(Refusal::JumpIntoRegion));
            }
        }
    }
}

/// The executable segments of a module's file.
fn text(module: &Module) -> impl Iterator<Item = (Addr, Vec<u8>)> + '_ {
    let segments = module.file().segments().iter().filter(|s| s.exec);
    segments.filter_map(|segment| {
        let start = Svma(segment.svma);
        let len = usize::try_from(segment.file_size).ok()?;
        Some((module.addr(start), module.file().bytes_at(start, len)?))
    })
}

/// All functions that free are watched in one way: which of two nested ones counts is known only
/// to whoever watches both.
fn refusal_of_frees(
    points: &[Probepoint],
    sites: &HashMap<Addr, Result<Site, Refusal>>,
) -> Option<Refusal> {
    let frees = points.iter().filter(|point| {
        let known = point.function.function();
        known.is_some_and(|known| known.action == Action::Free)
    });
    let mut found = frees.filter_map(|point| sites.get(&point.address));
    found.find_map(|site| site.as_ref().err().copied())
}

/// The first place for which `search` finds the same in memory as in a module's file. It is given
/// code and the offset to begin at.
fn find(
    image: &Image,
    memory: &impl ReadMemory,
    search: impl Fn(&[u8], usize) -> Option<usize>,
) -> Option<Addr> {
    /// Longer than what is searched for.
    const LEN: usize = 8;
    image
        .modules()
        .iter()
        .filter(|m| !m.is_vdso())
        .find_map(|module| {
            text(module).find_map(|(at, code)| {
                let offset = search(&code, 0)?;
                let at = at.wrapping_offset(offset as i64);
                let expected = code.get(offset..offset + LEN)?;
                let mut now = [0; LEN];
                (memory.read(at, &mut now).is_ok() && now == expected).then_some(at)
            })
        })
}
