//! Functions into whose first bytes something else of their module branches.

use std::collections::HashMap;
use std::ops::Range;

use leaktap_image::{Image, Module};
use leaktap_memory::{Addr, Svma};

use crate::detour::{LongBranch, Site, has_branch, long_branches, may_have_branch};
use crate::extents::functions_at;
use crate::refusal::Refusal;

/// Looks for branches from anywhere in a function's module: its cold parts are elsewhere.
pub(super) fn refuse_branched_into(
    image: &Image,
    sites: &mut HashMap<Addr, Result<Site, Refusal>>,
) {
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
            let mut found = long_branches(&code, at, &inner);
            retain_real(&mut found, module, at, &code);
            for (function, _) in found.iter().filter_map(|branch| here.get(branch.into)) {
                sites.insert(*function, Err(Refusal::JumpIntoRegion));
            }
        }
    }
}

/// Drops of `branches`, in the text `code` at `at`, those that are no instructions of the function
/// that they are found in, or, where no function is known, of any code that begins before them.
fn retain_real(branches: &mut Vec<LongBranch>, module: &Module, at: Addr, code: &[u8]) {
    if branches.is_empty() {
        return;
    }
    let opcodes = branches.iter().map(|branch| opcode(module, branch));
    let opcodes: Vec<_> = opcodes.collect();
    let mut functions = functions_at(module, &opcodes).into_iter();
    branches.retain(|branch| {
        let function = functions.next().flatten();
        let bytes = function.and_then(|function| {
            let start = module.addr(function.start);
            let place = |at: Addr, from: Addr| usize::try_from(at.offset_from(from)?).ok();
            let range = place(start, at)?..place(module.addr(function.end), at)?;
            Some((start, code.get(range)?))
        });
        match bytes {
            Some((start, bytes)) => has_branch(bytes, start, branch.end),
            None => may_have_branch(code, at, branch.end),
        }
    });
}

/// The last byte of its opcode: before the four of its distance.
fn opcode(module: &Module, branch: &LongBranch) -> Svma {
    module.svma(branch.end.wrapping_offset(-5))
}

/// The executable segments of a module's file.
pub(super) fn text(module: &Module) -> impl Iterator<Item = (Addr, Vec<u8>)> + '_ {
    let segments = module.file().segments().iter().filter(|s| s.exec);
    segments.filter_map(|segment| {
        let start = Svma(segment.svma);
        let len = usize::try_from(segment.file_size).ok()?;
        Some((module.addr(start), module.file().bytes_at(start, len)?))
    })
}
