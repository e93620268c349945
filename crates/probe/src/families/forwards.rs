//! Whether a function only hands its work on to an allocator function of a known name, told by its
//! code.

use std::collections::HashSet;

use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind};
use leaktap_api::Functions;
use leaktap_image::{ElfFile, Segment};
use leaktap_memory::Svma;

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
/// Most bytes of one.
const LONGEST: u64 = 16 << 10;
/// A PLT entry, or code without a symbol.
const STUB: u64 = 32;

/// Whether the function at `at` in `file` calls an allocator function that it gets by name, from
/// another module or its own: such a call is seen there.
pub(super) fn calls_by_name(file: &ElfFile, at: Svma, depth: Depth, known: &Functions) -> bool {
    let allocators = allocators(file, known);
    let mut seen = vec![at];
    let mut next = 0;
    while let Some(&function) = seen.get(next) {
        next += 1;
        let callees = callees(file, function);
        let is_allocator = |callee: &Callee| match callee {
            Callee::Slot(slot) => file
                .referred_to_at(*slot)
                .is_some_and(|name| is_known(&name, known)),
            Callee::Here(at) => allocators.contains(at),
        };
        if callees.iter().any(is_allocator) {
            return true;
        }
        for callee in callees {
            let Callee::Here(target) = callee else {
                continue;
            };
            let is_followed = depth == Depth::Helpers || is_stub(file, target);
            if is_followed && seen.len() < MOST_FUNCTIONS && !seen.contains(&target) {
                seen.push(target);
            }
        }
    }
    false
}

/// Where a call or jump out of a function leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callee {
    Here(Svma),
    /// To where this word says.
    Slot(Svma),
}

fn callees(file: &ElfFile, function: Svma) -> Vec<Callee> {
    let symbol = file.symbol_at(function).filter(|symbol| symbol.size > 0);
    let len = symbol.map_or(STUB, |symbol| {
        let end = symbol.svma.0.saturating_add(symbol.size);
        end.saturating_sub(function.0).min(LONGEST)
    });
    let code = usize::try_from(len)
        .ok()
        .and_then(|len| file.bytes_at(function, len));
    let code = code.unwrap_or_default();
    let is_own = |at: Svma| at.0.wrapping_sub(function.0) < len;
    let is_stub = is_stub(file, function);
    let mut found = Vec::new();
    for instruction in Decoder::with_ip(64, &code, function.0, DecoderOptions::NONE) {
        match callee(&instruction) {
            Some(Callee::Here(at)) if is_own(at) => {}
            Some(callee) => found.push(callee),
            None => {}
        }
        // What follows a PLT entry is another one.
        if is_stub && instruction.is_jmp_near_indirect() {
            break;
        }
    }
    found
}

fn callee(instruction: &Instruction) -> Option<Callee> {
    if instruction.op_count() == 0 {
        return None;
    }
    match instruction.op0_kind() {
        OpKind::NearBranch64 => Some(Callee::Here(Svma(instruction.near_branch_target()))),
        OpKind::Memory if instruction.is_ip_rel_memory_operand() => {
            let is_call = instruction.is_call_near_indirect() || instruction.is_jmp_near_indirect();
            is_call.then(|| Callee::Slot(Svma(instruction.ip_rel_memory_address())))
        }
        _ => None,
    }
}

fn is_stub(file: &ElfFile, at: Svma) -> bool {
    file.symbol_at(at).is_none()
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
    file.segments()
        .iter()
        .filter(|segment| segment.exec)
        .any(|segment| {
            let code = text(file, segment).unwrap_or_default();
            let mut windows = code.windows(5).enumerate();
            windows.any(|(offset, bytes)| {
                let [0xe8 | 0xe9, distance @ ..] = bytes else {
                    return false;
                };
                let Ok(distance) = distance.try_into().map(i32::from_le_bytes) else {
                    return false;
                };
                let next = segment.svma.wrapping_add(offset as u64 + 5);
                next.wrapping_add_signed(i64::from(distance)) == target.0
            })
        })
}

fn text(file: &ElfFile, segment: &Segment) -> Option<Vec<u8>> {
    file.bytes_at(Svma(segment.svma), usize::try_from(segment.file_size).ok()?)
}
