//! Which functions of a process are probed, where they are, and how.

use std::collections::HashSet;
use std::path::PathBuf;

use leaktap_api::{Action, Function, FunctionId, Functions};
use leaktap_image::{Code, Image};
use leaktap_memory::{Addr, ReadMemory};

use crate::refusal::Refusal;

/// A function of the target and how it is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probepoint {
    /// The function's number.
    pub function: FunctionId,
    /// What is known of it.
    pub known: Function,
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
        self.kind == Kind::Breakpoint && !self.known.action.is_mapping()
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
}

impl Reason {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Reason::IfuncUnresolved => "IfuncUnresolved",
            Reason::ForeignBreakpoint => "ForeignBreakpoint",
            Reason::Unwritable => "Unwritable",
        }
    }
}

/// Finds the functions that calls in the process are bound to: for each name the first definition
/// in link-map order. Names that share an address give one probepoint, named by the first.
pub fn find(image: &Image, memory: &dyn ReadMemory, functions: &Functions) -> Vec<Probepoint> {
    let allocator = image.resolve("malloc", memory).map(|found| found.module);
    let mut seen = HashSet::new();
    let mut points = Vec::new();
    for (function, known) in functions.standard() {
        let Some(found) = image.resolve(&known.name, memory) else {
            continue;
        };
        // libstdc++'s operator new calls malloc, which is probed; an allocator that defines both
        // gets there without malloc.
        if is_beside_malloc(&known.name, known.action) && Some(found.module) != allocator {
            continue;
        }
        let (address, kind) = match found.code {
            Code::At(at) => (at, Kind::Breakpoint),
            Code::Unresolved { resolver } => (resolver, Kind::None(Reason::IfuncUnresolved)),
        };
        let Some(module) = image.modules().get(found.module) else {
            continue;
        };
        if seen.insert(address) {
            points.push(Probepoint {
                function,
                known: known.clone(),
                module: module.path().to_owned(),
                address,
                kind,
                refusal: None,
            });
        }
    }
    points
}

/// True of allocation functions that stand on malloc unless one module defines both.
fn is_beside_malloc(name: &str, action: Action) -> bool {
    !action.is_mapping() && (name.starts_with("_Z") || name.ends_with("allocx"))
}
