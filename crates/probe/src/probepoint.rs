//! Which functions of a process are probed, where they are, and how.

use std::collections::HashSet;
use std::path::PathBuf;

use leaktap_api::{Action, Function, FunctionId, Functions};
use leaktap_image::{Code, Image};
use leaktap_ledger::FamilyId;
use leaktap_memory::{Addr, ReadMemory};

use crate::families::{Family, User};
use crate::refusal::Refusal;

/// A function of the target and how it is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probepoint {
    /// The function's number.
    pub function: FunctionId,
    /// What is known of it.
    pub known: Function,
    /// Which heap its blocks are of; means nothing where it has none.
    pub family: FamilyId,
    /// A user says what it does, not its name.
    pub is_told: bool,
    /// The module that defines it, as the target sees its path.
    pub module: PathBuf,
    /// Its first instruction; of a function without a probe, what was found of it.
    pub address: Addr,
    /// How it is watched.
    pub kind: Kind,
    /// Why a breakpoint is no detour, where that was tried.
    pub refusal: Option<Refusal>,
}

impl Probepoint {
    /// True of a breakpoint that an agent would do without.
    pub(crate) fn may_have_detour(&self) -> bool {
        self.kind == Kind::Breakpoint
    }
}

/// How a function is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By an int3 at its first byte.
    Breakpoint,
    /// By a jump to the agent.
    Detour,
    /// Not at all.
    None(Reason),
}

/// Why a function has no probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An IFUNC that nothing in the process has bound yet: the code that will run is unknown.
    IfuncUnresolved,
    /// Another tool's breakpoint is there, such as a uprobe of perf or bpftrace, and takes each
    /// int3 of ours for its own.
    ForeignBreakpoint,
    /// Its first byte could not be written.
    Unwritable,
    /// It would have an int3, for its [refusal](Probepoint::refusal), and none is wanted.
    WouldTrap,
}

impl Reason {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Reason::IfuncUnresolved => "IfuncUnresolved",
            Reason::ForeignBreakpoint => "ForeignBreakpoint",
            Reason::Unwritable => "Unwritable",
            Reason::WouldTrap => "WouldTrap",
        }
    }
}

/// Finds the functions to be probed: those of `families`, the mmap(2) family, and what the dynamic
/// linker tells of changes by; for each name the first definition in link-map order. Names that
/// share an address give one probepoint, named by the first.
pub(crate) fn find(
    image: &Image,
    families: &[Family],
    memory: &dyn ReadMemory,
    functions: &Functions,
) -> Vec<Probepoint> {
    let numbered = families.iter().filter_map(|family| {
        let is_told = family.user == User::Told;
        Some(((family.id?, is_told), family))
    });
    let of_heap = numbered.flat_map(|(id, family)| family.functions.iter().map(move |m| (id, m)));
    let of_heap = of_heap.map(|(id, member)| (id, member.function, member.module, member.code));
    let others = functions
        .standard()
        .filter(|(_, known)| !known.is_of_heap());
    let others = others.filter_map(|(function, known)| {
        let (module, code) = match known.action {
            Action::CHANGE_MODULES => linker(image, memory)?,
            _ => {
                let found = image.resolve(&known.name, memory)?;
                (found.module, found.code)
            }
        };
        let of_none = (FamilyId::FIRST, false);
        Some((of_none, function, module, code))
    });
    let mut seen = HashSet::new();
    let mut points = Vec::new();
    for ((family, is_told), function, module, code) in of_heap.chain(others) {
        let Some(known) = functions.get(function) else {
            continue;
        };
        let (address, kind) = match code {
            Code::At(at) => (at, Kind::Breakpoint),
            Code::Unresolved { resolver } => (resolver, Kind::None(Reason::IfuncUnresolved)),
        };
        if let Some(module) = image.modules().get(module)
            && seen.insert(address)
        {
            points.push(Probepoint {
                function,
                known: known.clone(),
                family,
                is_told,
                module: module.path().to_owned(),
                address,
                kind,
                refusal: None,
            });
        }
    }
    points
}

/// What the dynamic linker calls before and after it changes its list of modules, and which module
/// that is in.
fn linker(image: &Image, memory: &dyn ReadMemory) -> Option<(usize, Code)> {
    let at = image.linker_brk(memory)?;
    Some((image.index_at(at)?, Code::At(at)))
}
