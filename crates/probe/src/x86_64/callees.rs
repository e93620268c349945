//! Where a function's calls and jumps lead, told by its code.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};
use leaktap_image::ElfFile;
use leaktap_memory::Svma;

/// Most bytes of a function that are looked at.
const LONGEST: u64 = 16 << 10;
/// An entry of a PLT, and how many instructions it takes to leave it.
const ENTRY_LEN: usize = 16;
const ENTRY_INSTRUCTIONS: usize = 3;

/// Where a call or jump out of a function leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callee {
    Here(Svma),
    /// To where this word says.
    Slot(Svma),
}

/// The function that `at` lies in, if its symbol says how long it is.
pub(crate) fn by_symbol(file: &ElfFile, at: Svma) -> Option<Range<Svma>> {
    let symbol = file.symbol_at(at).filter(|symbol| symbol.size > 0)?;
    let end = symbol.svma.0.saturating_add(symbol.size);
    Some(symbol.svma..Svma(end))
}

/// Where the code of `file` in `function` leads; a PLT's entry is what it stands for.
pub(crate) fn callees(file: &ElfFile, function: &Range<Svma>) -> Vec<Callee> {
    let len = function.end.0.saturating_sub(function.start.0).min(LONGEST);
    let code = usize::try_from(len)
        .ok()
        .and_then(|len| file.bytes_at(function.start, len));
    let code = code.unwrap_or_default();
    let leads_out = |callee: &Callee| match callee {
        Callee::Here(at) => !function.contains(at),
        Callee::Slot(_) => true,
    };
    let callees = instructions(&code, function.start).filter_map(|found| callee(&found));
    let out = callees.filter(leads_out);
    out.map(|callee| behind_plt(file, callee)).collect()
}

/// Where the direct calls and jumps of `code`, which is at `at`, lead.
pub(crate) fn direct_callees(code: &[u8], at: Svma) -> Vec<Svma> {
    let direct = instructions(code, at).filter(|found| found.op0_kind() == OpKind::NearBranch64);
    direct
        .map(|found| Svma(found.near_branch_target()))
        .collect()
}

/// Whether `code`, which is at `at`, may go on elsewhere, and not come back.
pub(crate) fn may_leave(code: &[u8], at: Svma) -> bool {
    let is_inside = |target: u64| target.wrapping_sub(at.0) < code.len() as u64;
    instructions(code, at).any(|found| leaves(&found, is_inside))
}

fn leaves(instruction: &Instruction, is_inside: impl Fn(u64) -> bool) -> bool {
    let is_far = || {
        instruction.op0_kind() != OpKind::NearBranch64
            || !is_inside(instruction.near_branch_target())
    };
    match instruction.flow_control() {
        FlowControl::IndirectBranch | FlowControl::Exception => true,
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => is_far(),
        _ => instruction.is_invalid(),
    }
}

fn instructions(code: &[u8], at: Svma) -> impl Iterator<Item = Instruction> + '_ {
    Decoder::with_ip(64, code, at.0, DecoderOptions::NONE).into_iter()
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

fn behind_plt(file: &ElfFile, callee: Callee) -> Callee {
    let Callee::Here(at) = callee else {
        return callee;
    };
    if file.symbol_at(at).is_some() {
        return callee;
    }
    let code = file.bytes_at(at, ENTRY_LEN).unwrap_or_default();
    let mut first = instructions(&code, at).take(ENTRY_INSTRUCTIONS);
    let jump = first.find(Instruction::is_jmp_near_indirect);
    jump.and_then(|jump| self::callee(&jump)).unwrap_or(callee)
}
