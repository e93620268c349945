//! Whether a function only hands its work on to an allocator function of a known name, told by its
//! code.

use std::collections::HashSet;

use leaktap_api::Functions;
use leaktap_arch::{DIRECT_LEN, direct_branch};
use leaktap_image::ElfFile;
use leaktap_memory::Svma;

use crate::arch::{self, Callee};

/// How far calls are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// The function's own code.
    Itself,
    /// Functions of its own module that it calls, too.
    Helpers,
}

/// Most functions looked into.
const MOST_FUNCTIONS: usize = 32;
/// Bytes of one without a symbol.
const SHORT: u64 = 32;

/// Whether the function at `at` in `file` calls an allocator function that it gets by name, from
/// another module or its own: such a call is seen there.
pub(super) fn calls_by_name(file: &ElfFile, at: Svma, depth: Depth, known: &Functions) -> bool {
    let allocators = allocators(file, known);
    let mut seen = vec![at];
    let mut next = 0;
    while let Some(&function) = seen.get(next) {
        next += 1;
        let end = arch::by_symbol(file, function).map(|symbol| symbol.end);
        let end = end.unwrap_or(Svma(function.0.saturating_add(SHORT)));
        let callees = arch::callees(file, &(function..end));
        let is_allocator = |callee: &Callee| match callee {
            Callee::Slot(slot) => file
                .referred_to_at(*slot)
                .is_some_and(|name| is_known(&name, known)),
            Callee::Here(at) => allocators.contains(at),
        };
        if callees.iter().any(is_allocator) {
            return true;
        }
        for callee in callees.into_iter().filter(|_| depth == Depth::Helpers) {
            if let Callee::Here(target) = callee
                && seen.len() < MOST_FUNCTIONS
                && !seen.contains(&target)
            {
                seen.push(target);
            }
        }
    }
    false
}

fn is_known(name: &str, functions: &Functions) -> bool {
    let mut all = functions.all();
    all.any(|(_, known)| known.is_of_heap() && known.name == name)
}

/// Where `file` has malloc and its kin itself; not operators new and delete, which call each other.
fn allocators(file: &ElfFile, functions: &Functions) -> HashSet<Svma> {
    let names = functions.all().filter(|(_, known)| known.is_of_heap());
    let names = names.filter(|(_, known)| !known.name.starts_with("_Z"));
    let functions = names.flat_map(|(_, known)| file.functions(&known.name));
    functions.map(|function| function.svma).collect()
}

/// Whether code of `file` calls or jumps to `target` by its distance.
pub(super) fn has_direct_call(file: &ElfFile, target: Svma) -> bool {
    file.code_in_pieces(DIRECT_LEN - 1).any(|(at, code)| {
        let mut windows = code.windows(DIRECT_LEN).enumerate();
        windows.any(|(offset, bytes)| {
            let end = at.0.wrapping_add((offset + DIRECT_LEN) as u64);
            bytes
                .first_chunk()
                .and_then(|bytes| direct_branch(*bytes, end))
                == Some(target.0)
        })
    })
}
