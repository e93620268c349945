//! Moves instructions to another address without changing what they do.
//!
//! Non-branches are encoded anew at their new address, so a rip-relative operand still means the
//! same address. Branches go to their original targets, through `jmp [rip+0]` where 32 bits do not
//! reach. A `call` becomes a push of its *original* return address and a jump: nothing ever
//! returns to the moved code, and a backtrace taken meanwhile is the true one.
//!
//! Pure code over bytes. Source: Intel SDM volume 2, iced-x86's description of each instruction.

use iced_x86::{
    Code, ConditionCode, Decoder, DecoderError, DecoderOptions, Encoder, FlowControl, Instruction,
    OpKind, Register,
};
use leaktap_memory::Addr;

use super::jump::{jump, rel32};
use crate::Refusal;

/// Instructions that do at another address what they did at their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocated {
    /// The moved instructions, for the address given.
    pub code: Vec<u8>,
    /// Bytes of the original instructions.
    pub displaced: usize,
    /// Where each instruction begins, and after the last one, unless [`Relocated::ends`], the end.
    pub map: Vec<Boundary>,
    /// The last instruction never falls through to what follows it.
    pub ends: bool,
}

/// An instruction boundary before and after the move, as offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// Offset in the original code.
    pub original: usize,
    /// Offset in the moved code.
    pub relocated: usize,
}

/// One instruction moved to a scratch slot, and the jump back behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfLine {
    /// The bytes of the slot.
    pub code: Vec<u8>,
    /// Length of the original instruction in bytes.
    pub displaced: usize,
    /// Offset of the jump back; the length of `code` where the instruction never falls through.
    pub jump: usize,
}

impl Relocated {
    /// The offset in the original code that a thread at `relocated` is at.
    ///
    /// Nothing in the middle of an instruction that became several: such a thread has to be
    /// stepped on, since part of the effect may have happened.
    pub fn original(&self, relocated: usize) -> Option<usize> {
        let found = self.map.iter().find(|b| b.relocated == relocated)?;
        Some(found.original)
    }
}

impl OutOfLine {
    /// The offset from the instruction's own address that a thread at `offset` of the slot is at:
    /// before the instruction or after it. Nothing as for [`Relocated::original`].
    pub fn original(&self, offset: usize) -> Option<usize> {
        match offset {
            0 => Some(0),
            _ if offset == self.jump && offset < self.code.len() => Some(self.displaced),
            _ => None,
        }
    }
}

/// Moves the whole instructions that cover the first `count` bytes at `at` to `to`.
///
/// `bytes` is what is at `at` and may be longer than needed. A process that has a shadow stack
/// must not get a displaced `call` (it would return without having been called).
///
/// # Errors
/// - [`Refusal::TooShort`]: `bytes` or the straight line of code ends before `count`.
/// - [`Refusal::NotRelocatable`]: an instruction depends on its address in a way that cannot be
///   kept, may stay for long (a system call), or is none.
/// - [`Refusal::JumpIntoRegion`]: a moved branch targets a moved instruction other than the first.
/// - [`Refusal::NoMemoryInReach`]: a rip-relative operand is more than 2 GiB away from `to`.
pub fn relocate(bytes: &[u8], at: Addr, count: usize, to: Addr) -> Result<Relocated, Refusal> {
    let instructions = displaced(bytes, at, count)?;
    let displaced: usize = instructions.iter().map(Instruction::len).sum();
    let mut moved = Relocated {
        code: Vec::new(),
        displaced,
        map: Vec::new(),
        ends: false,
    };
    let mut original = 0;
    for instruction in &instructions {
        if targets_inside(instruction, at, displaced) {
            return Err(Refusal::JumpIntoRegion);
        }
        moved.map.push(Boundary {
            original,
            relocated: moved.code.len(),
        });
        let here = to.wrapping_offset(moved.code.len() as i64);
        original += instruction.len();
        moved
            .code
            .extend(one(instruction, here, original == displaced)?);
        moved.ends = never_falls_through(instruction);
    }
    if !moved.ends {
        moved.map.push(Boundary {
            original,
            relocated: moved.code.len(),
        });
    }
    Ok(moved)
}

/// The bytes of a scratch slot at `to` that does what the instruction at `at` does and goes on
/// behind it, in at most `max_len` bytes (48 are always enough).
///
/// # Errors
/// As [`relocate`]; [`Refusal::NoMemoryInReach`] also where the slot is too small.
pub fn out_of_line(bytes: &[u8], at: Addr, to: Addr, max_len: usize) -> Result<OutOfLine, Refusal> {
    let Relocated {
        mut code,
        displaced,
        ends,
        ..
    } = relocate(bytes, at, 1, to)?;
    let back = code.len();
    if !ends {
        let from = to.wrapping_offset(back as i64);
        code.extend(jump(from, at.wrapping_offset(displaced as i64)));
    }
    if code.len() > max_len {
        return Err(Refusal::NoMemoryInReach);
    }
    Ok(OutOfLine {
        code,
        displaced,
        jump: back,
    })
}

/// The instructions that cover `count` bytes of a straight line of code.
fn displaced(bytes: &[u8], at: Addr, count: usize) -> Result<Vec<Instruction>, Refusal> {
    let mut decoder = Decoder::with_ip(64, bytes, at.get(), DecoderOptions::NONE);
    let mut instructions: Vec<Instruction> = Vec::new();
    let mut covered = 0;
    while covered < count {
        if instructions.last().is_some_and(never_falls_through) || !decoder.can_decode() {
            return Err(Refusal::TooShort);
        }
        let start = decoder.position();
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return Err(match decoder.last_error() {
                DecoderError::NoMoreBytes => Refusal::TooShort,
                _ => Refusal::NotRelocatable,
            });
        }
        let encoded = bytes.get(start..decoder.position()).unwrap_or_default();
        if short_operand_branch(&instruction, encoded) {
            return Err(Refusal::NotRelocatable);
        }
        covered += instruction.len();
        instructions.push(instruction);
    }
    Ok(instructions)
}

/// True of a direct branch into the `len` bytes at `at`, other than to the first of them.
pub(crate) fn targets_inside(instruction: &Instruction, at: Addr, len: usize) -> bool {
    if !matches!(instruction.op0_kind(), OpKind::NearBranch64) {
        return false;
    }
    let offset = instruction.near_branch_target().wrapping_sub(at.get());
    (1..len as u64).contains(&offset)
}

/// A direct branch with an operand size prefix and no REX.W: Intel ignores the prefix, AMD
/// truncates rip to 16 bits.
fn short_operand_branch(instruction: &Instruction, encoded: &[u8]) -> bool {
    let direct = matches!(
        instruction.op0_kind(),
        OpKind::NearBranch64 | OpKind::NearBranch16
    );
    let prefixes = || {
        encoded
            .iter()
            .take_while(|b| matches!(b, 0x26..=0x6f | 0xf2 | 0xf3))
    };
    direct && prefixes().any(|b| *b == 0x66) && !prefixes().any(|b| matches!(b, 0x48..=0x4f))
}

/// True of an instruction after which the next one is never run.
pub(crate) fn never_falls_through(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return
    )
}

/// One instruction at `here`; `last`: it is the last one that is displaced.
fn one(instruction: &Instruction, here: Addr, last: bool) -> Result<Vec<u8>, Refusal> {
    let target = instruction.near_branch_target();
    match instruction.flow_control() {
        FlowControl::Next => encode(instruction, here),
        FlowControl::UnconditionalBranch if instruction.is_jmp_short_or_near() => {
            Ok(jump(here, Addr::new(target)))
        }
        FlowControl::ConditionalBranch if instruction.is_jcc_short_or_near() => {
            conditional(instruction.condition_code(), here, target)
        }
        FlowControl::ConditionalBranch => counted(instruction, here, target),
        FlowControl::IndirectBranch if instruction.code() == Code::Jmp_rm64 => {
            encode(instruction, here)
        }
        FlowControl::Return if matches!(instruction.code(), Code::Retnq | Code::Retnq_imm16) => {
            encode(instruction, here)
        }
        // The return address must lie behind the bytes that are replaced.
        FlowControl::Call if instruction.is_call_near() && last => {
            call(instruction.next_ip(), here, |from| {
                Ok(jump(from, Addr::new(target)))
            })
        }
        FlowControl::IndirectCall if instruction.code() == Code::Call_rm64 && last => {
            call(instruction.next_ip(), here, |from| {
                indirect(instruction, from)
            })
        }
        // Far branches, system calls, interrupts, transactions, ud2.
        _ => Err(Refusal::NotRelocatable),
    }
}

fn encode(instruction: &Instruction, here: Addr) -> Result<Vec<u8>, Refusal> {
    let mut encoder = Encoder::new(64);
    match encoder.encode(instruction, here.get()) {
        Ok(_) => Ok(encoder.take_buffer()),
        Err(_) if instruction.is_ip_rel_memory_operand() => Err(Refusal::NoMemoryInReach),
        Err(_) => Err(Refusal::NotRelocatable),
    }
}

/// `jcc target`: as such where it reaches, else `jncc over; jmp [rip+0]`.
fn conditional(condition: ConditionCode, here: Addr, target: u64) -> Result<Vec<u8>, Refusal> {
    // The condition codes' values are those of the opcode's low four bits, plus one.
    let code = (condition as u8)
        .checked_sub(1)
        .ok_or(Refusal::NotRelocatable)?;
    if let Some(distance) = rel32(here.wrapping_offset(6), target) {
        return Ok([&[0x0f, 0x80 | code][..], &distance.to_le_bytes()].concat());
    }
    let far = jump(here.wrapping_offset(2), Addr::new(target));
    Ok([&[0x70 | (code ^ 1), far.len() as u8][..], &far].concat())
}

/// `loop`, `loope`, `loopne`, `jrcxz`, `jecxz`: they have 8-bit distances only.
fn counted(instruction: &Instruction, here: Addr, target: u64) -> Result<Vec<u8>, Refusal> {
    let mut near = *instruction;
    let len = if counts_in_ecx(instruction) { 3 } else { 2 };
    let over_short_jump = here.wrapping_offset(len + 2);
    near.set_near_branch64(over_short_jump.get());
    let mut code = encode(&near, here)?;
    let far = jump(over_short_jump, Addr::new(target));
    code.extend([0xeb, far.len() as u8]);
    code.extend(far);
    Ok(code)
}

/// True where the counter is ecx: an address size prefix more.
fn counts_in_ecx(instruction: &Instruction) -> bool {
    matches!(
        instruction.code(),
        Code::Jecxz_rel8_64
            | Code::Loop_rel8_64_ECX
            | Code::Loope_rel8_64_ECX
            | Code::Loopne_rel8_64_ECX
    )
}

/// Pushes `return_address` and goes on with what `branch` encodes. Flags and registers are kept.
fn call(
    return_address: u64,
    here: Addr,
    branch: impl FnOnce(Addr) -> Result<Vec<u8>, Refusal>,
) -> Result<Vec<u8>, Refusal> {
    let [low, high] = [return_address as u32, (return_address >> 32) as u32];
    let mut code = Vec::with_capacity(32);
    code.push(0x68); // push imm32, sign-extended
    code.extend(low.to_le_bytes());
    code.extend([0xc7, 0x44, 0x24, 0x04]); // mov dword ptr [rsp+4], imm32
    code.extend(high.to_le_bytes());
    code.extend(branch(here.wrapping_offset(code.len() as i64))?);
    Ok(code)
}

/// The jump of an indirect call, whose operand must not depend on the word just pushed.
fn indirect(instruction: &Instruction, here: Addr) -> Result<Vec<u8>, Refusal> {
    if uses_stack_pointer(instruction) {
        return Err(Refusal::NotRelocatable);
    }
    let mut jump = *instruction;
    jump.set_code(Code::Jmp_rm64);
    encode(&jump, here)
}

fn uses_stack_pointer(instruction: &Instruction) -> bool {
    let registers = [
        instruction.op0_register(),
        instruction.memory_base(),
        instruction.memory_index(),
    ];
    registers.iter().any(|r| r.full_register() == Register::RSP)
}

#[cfg(test)]
#[path = "relocate_tests.rs"]
mod tests;
