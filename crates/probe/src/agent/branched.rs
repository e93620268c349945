//! Functions into whose first bytes something else of their module branches.

use std::collections::HashMap;
use std::ops::Range;

use leaktap_image::{Image, Module};
use leaktap_memory::{Addr, Svma};

use crate::arch::{
    LONGEST_BRANCH, LongBranch, RUN_UP, Site, has_branch, long_branches, may_have_branch,
};
use crate::extents::functions_at;
use crate::refusal::Refusal;

/// Bytes of the longest instruction there is (Intel SDM, volume 2, 2.3.11).
const LONGEST_INSTRUCTION: u64 = 15;

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
        let pieces = module.file().code_in_pieces(LONGEST_BRANCH - 1);
        let found = pieces.flat_map(|(at, code)| long_branches(&code, module.addr(at), &inner));
        let mut found: Vec<_> = found.collect();
        retain_real(&mut found, module);
        for (function, _) in found.iter().filter_map(|branch| here.get(branch.into)) {
            sites.insert(*function, Err(Refusal::JumpIntoRegion));
        }
    }
}

/// Drops of `branches` those that are no instructions of the function that they are found in, or,
/// where no function is known, of any code that begins before them.
fn retain_real(branches: &mut Vec<LongBranch>, module: &Module) {
    if branches.is_empty() {
        return;
    }
    let opcodes = branches.iter().map(|branch| opcode(module, branch));
    let opcodes: Vec<_> = opcodes.collect();
    let mut functions = functions_at(module, &opcodes).into_iter();
    branches.retain(|branch| {
        let function = functions.next().flatten();
        let code = |range: Range<Svma>| {
            let len = usize::try_from(range.end.0.checked_sub(range.start.0)?).ok()?;
            Some((
                module.addr(range.start),
                module.file().bytes_at(range.start, len)?,
            ))
        };
        if let Some((start, bytes)) = function.and_then(code) {
            return has_branch(&bytes, start, branch.end);
        }
        let end = module.svma(branch.end).0;
        let start = end.saturating_sub(RUN_UP.end as u64);
        let around = Svma(start)..Svma(end.saturating_add(LONGEST_INSTRUCTION));
        code(around).is_none_or(|(start, bytes)| may_have_branch(&bytes, start, branch.end))
    });
}

/// The last byte of its opcode: before the four of its distance.
fn opcode(module: &Module, branch: &LongBranch) -> Svma {
    module.svma(branch.end.wrapping_offset(-5))
}
