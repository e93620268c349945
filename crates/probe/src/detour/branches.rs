//! Does any branch lead between the instructions that a jump displaces?
//!
//! Direct branches are found by disassembling the whole function. Indirect ones are tail calls
//! or table jumps of a `switch`; a table is found by what the function names: every address that
//! it takes with `lea reg, [rip+x]` may be a table of 32-bit distances from itself (what GCC and
//! Clang emit for position independent code), every `[index*8 + x]` one of 64-bit addresses. All
//! of them are read, whether or not they are tables: a random word falls into the few displaced
//! bytes once in a thousand million, and then costs a refusal, no harm.
//!
//! A function's cold part, split off by the compiler, is elsewhere: [`are_branched_into`] looks at
//! every possible long branch of a whole text segment.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use leaktap_memory::{Addr, ReadMemory};

use crate::Refusal;

/// Entries read of what may be a jump table; a `switch` of more cases is not in an allocator.
const TABLE_ENTRIES: usize = 1024;

/// Refuses if a branch in `function`, all bytes of the function at `at`, may target `inner`.
pub(super) fn check(
    function: &[u8],
    at: Addr,
    inner: &Range<Addr>,
    memory: &impl ReadMemory,
) -> Result<(), Refusal> {
    let mut decoder = Decoder::with_ip(64, function, at.get(), DecoderOptions::NONE);
    let mut tables = Vec::new();
    let mut indirect = false;
    for instruction in &mut decoder {
        if instruction.is_invalid() || targets(&instruction, inner) {
            return Err(Refusal::JumpIntoRegion);
        }
        indirect |= instruction.flow_control() == FlowControl::IndirectBranch;
        tables.extend(Table::named_by(&instruction));
    }
    tables.sort_unstable();
    tables.dedup();
    if indirect && tables.iter().any(|table| table.leads_into(inner, memory)) {
        return Err(Refusal::JumpIntoRegion);
    }
    Ok(())
}

/// For each of `inner`: whether some jump or call anywhere in `text`, the text segment at `at`, may
/// lead into it over a 32-bit distance. Every byte is taken for the opcode of one, so that no
/// disassembly out of step with the code can miss any.
pub fn are_branched_into(text: &[u8], at: Addr, inner: &[Range<Addr>]) -> Vec<bool> {
    let mut found = vec![false; inner.len()];
    let first = inner.iter().map(|range| range.start).min();
    let last = inner.iter().map(|range| range.end).max();
    let Some(span) = first.zip(last).map(|(first, last)| first..last) else {
        return found;
    };
    for (window, at) in text.windows(6).zip(at.get()..) {
        // call, jmp; the distance counts from the end of the instruction
        let ([_, 0xe8 | 0xe9, a, b, c, d] | [0x0f, 0x80..=0x8f, a, b, c, d]) = *window else {
            continue;
        };
        let distance = i64::from(i32::from_le_bytes([a, b, c, d]));
        let target = Addr::new((at + 6).wrapping_add_signed(distance));
        if span.contains(&target) {
            for (found, range) in found.iter_mut().zip(inner) {
                *found |= range.contains(&target);
            }
        }
    }
    found
}

fn targets(instruction: &Instruction, inner: &Range<Addr>) -> bool {
    instruction.op0_kind() == OpKind::NearBranch64
        && inner.contains(&Addr::new(instruction.near_branch_target()))
}

/// What may be a jump table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    /// 32-bit distances from the table itself.
    Distances(Addr),
    /// 64-bit addresses.
    Addresses(Addr),
}

impl Table {
    fn named_by(instruction: &Instruction) -> Option<Table> {
        let displacement = Addr::new(instruction.memory_displacement64());
        if instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand() {
            return Some(Table::Distances(displacement));
        }
        let indexed = instruction.memory_index() != Register::None
            && instruction.memory_index_scale() == 8
            && instruction.memory_base() == Register::None;
        indexed.then_some(Table::Addresses(displacement))
    }

    fn leads_into(self, inner: &Range<Addr>, memory: &impl ReadMemory) -> bool {
        let (start, width) = match self {
            Table::Distances(start) => (start, 4),
            Table::Addresses(start) => (start, 8),
        };
        let mut buf = [0; 8];
        for entry in 0..TABLE_ENTRIES {
            let at = start.wrapping_offset((entry * width) as i64);
            let Some(word) = buf.get_mut(..width) else {
                return false;
            };
            if memory.read(at, word).is_err() {
                return false; // past the end of the module's data
            }
            let value = u64::from_le_bytes(buf);
            let target = match self {
                Table::Distances(start) => start.wrapping_offset(i64::from(value as i32)),
                Table::Addresses(_) => Addr::new(value),
            };
            if inner.contains(&target) {
                return true;
            }
        }
        false
    }
}
