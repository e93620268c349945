//! Does any branch lead between the instructions that a jump displaces?
//!
//! Direct branches are found by disassembling the whole function. Indirect ones are tail calls
//! or table jumps of a `switch`; a table is found by what the function names: every address that
//! it takes with `lea reg, [rip+x]` may be a table of 32-bit distances from itself (what GCC and
//! Clang emit for position independent code), every `[index*8 + x]` one of 64-bit addresses. All
//! of them are read, whether or not they are tables: a random word falls into the few displaced
//! bytes once in a thousand million, and then costs a refusal, no harm.
//!
//! A function's cold part, split off by the compiler, is elsewhere: [`long_branches`] looks at
//! every possible long branch of a whole text segment. In one of 200 MB, some are parts of other
//! instructions: [`has_branch`] tells, for which functions around them alone are decoded.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use leaktap_arch::{CALL, JUMP};
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

/// Bytes of the distance of a long branch, which counts from its end.
const DISTANCE: usize = 4;

/// Most bytes of one, with its opcode.
pub(crate) const LONGEST_BRANCH: usize = 2 + DISTANCE;

/// What looks like a jump or call over a 32-bit distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongBranch {
    /// Where it ends.
    pub end: Addr,
    /// Index of the range that it leads into.
    pub into: usize,
}

/// What may be a jump or call, anywhere in `text`, the text segment at `at`, into one of `inner`
/// over a 32-bit distance. Every byte is taken for the opcode of one, so that no disassembly out of
/// step with the code can miss any.
pub fn long_branches(text: &[u8], at: Addr, inner: &[Range<Addr>]) -> Vec<LongBranch> {
    let mut found = Vec::new();
    let first = inner.iter().map(|range| range.start).min();
    let last = inner.iter().map(|range| range.end).max();
    let Some(span) = first.zip(last).map(|(first, last)| first..last) else {
        return found;
    };
    let len = span.end.offset_from(span.start).unwrap_or(0);
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let first_end = at.wrapping_offset(DISTANCE as i64);
    // Most bytes are done with after one addition, in 32 bits: what is there is no such distance.
    let from = first_end.get().wrapping_sub(span.start.get()) as u32;
    for start in (0..text.len()).step_by(BLOCK) {
        let end = (start + BLOCK + DISTANCE - 1).min(text.len());
        let block = text.get(start..end).unwrap_or_default();
        let from = from.wrapping_add(start as u32);
        if !may_reach(block, from, len) {
            continue;
        }
        for (offset, distance) in distances_in(block, from, len) {
            let offset = start + offset;
            if is_opcode(text.get(..offset).unwrap_or_default()) {
                let end = first_end.wrapping_offset(offset as i64);
                let target = end.wrapping_offset(i64::from(distance));
                let into = inner.iter().position(|range| range.contains(&target));
                found.extend(into.map(|into| LongBranch { end, into }));
            }
        }
    }
    found
}

/// Bytes that are looked at together: they stay in the processor's cache.
const BLOCK: usize = 4096;

/// Whether any four bytes of `block` are a distance to less than `len` bytes from the start of what
/// is looked for. `from` is how far behind that start such a distance in the first four bytes
/// counts from. Compiled to vector instructions: a browser has 200 MB of code.
fn may_reach(block: &[u8], from: u32, len: u32) -> bool {
    (0..DISTANCE).any(|phase| {
        let words = block.get(phase..).unwrap_or_default();
        let (words, _) = words.as_chunks::<DISTANCE>();
        let mut from = from.wrapping_add(phase as u32);
        let mut reaches = false;
        for word in words {
            reaches |= is_in(from, i32::from_le_bytes(*word), len);
            from = from.wrapping_add(DISTANCE as u32);
        }
        reaches
    })
}

/// Those distances, each with where in `block` it is.
fn distances_in(block: &[u8], from: u32, len: u32) -> impl Iterator<Item = (usize, i32)> + '_ {
    let windows = block.windows(DISTANCE).enumerate();
    windows.filter_map(move |(offset, word)| {
        let distance = i32::from_le_bytes(*word.first_chunk()?);
        is_in(from.wrapping_add(offset as u32), distance, len).then_some((offset, distance))
    })
}

fn is_in(from: u32, distance: i32, len: u32) -> bool {
    from.wrapping_add(distance.cast_unsigned()) < len
}

/// Whether `before` ends with the opcode of a call, jmp or jcc.
fn is_opcode(before: &[u8]) -> bool {
    matches!(before, [.., CALL | JUMP] | [.., 0x0f, 0x80..=0x8f])
}

/// Whether `function`, all bytes of the function at `at`, decoded from its start on, has a branch
/// that ends at `end`: if not, what looks like one is part of something else. True where that
/// cannot be told, since a byte before it begins no instruction.
pub fn has_branch(function: &[u8], at: Addr, end: Addr) -> bool {
    is_branch(function, at, end).unwrap_or(true)
}

/// How far before what looks like a branch it is begun to decode where no function is known: x86
/// code read out of step gets into step within a few instructions.
pub(crate) const RUN_UP: Range<usize> = 96..160;

/// The same for a branch in `text`, the text at `at`, where no function is known: whether one is
/// found that ends at `end` from any of many places before it. True where none leads there.
pub fn may_have_branch(text: &[u8], at: Addr, end: Addr) -> bool {
    let len = end
        .offset_from(at)
        .and_then(|len| usize::try_from(len).ok());
    let Some(before) = len.and_then(|len| text.get(..len)) else {
        return true;
    };
    let starts = RUN_UP.filter_map(|back| before.len().checked_sub(back));
    let from = |start: usize| {
        let code = text.get(start..)?;
        is_branch(code, at.wrapping_offset(start as i64), end)
    };
    let mut found = starts.filter_map(from).peekable();
    found.peek().is_none() || found.any(|is_branch| is_branch)
}

/// Whether code, decoded from its start `at` on, has a branch that ends at `end`. Nothing where a
/// byte before it begins no instruction.
fn is_branch(code: &[u8], at: Addr, end: Addr) -> Option<bool> {
    let mut decoder = Decoder::with_ip(64, code, at.get(), DecoderOptions::NONE);
    for instruction in &mut decoder {
        if instruction.is_invalid() {
            return None;
        }
        if instruction.next_ip() >= end.get() {
            let is_branch = instruction.op0_kind() == OpKind::NearBranch64;
            return Some(is_branch && instruction.next_ip() == end.get());
        }
    }
    Some(false)
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
