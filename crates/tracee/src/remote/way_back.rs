//! How a thread gets back to where it was by itself, should its tracer die while it makes a system
//! call for us.
//!
//! On the thread's own stack, below its red zone, lies a signal frame as the kernel writes it
//! (`struct rt_sigframe` of the kernel's asm/sigframe.h): all of its registers, and its signal
//! mask. The thread stands at a `syscall` instruction whose number is that of rt_sigreturn(2), or
//! returns from its call into code which makes that call. Either way the kernel puts back what the
//! frame holds, whether or not anybody traces the thread by then.

use leaktap_memory::Addr;
use nix::libc;

use super::{Before, CallCode, RESTART, RemoteCalls};
use crate::{Registers, Tid, procfs, restart, sys};

/// The instruction of one byte.
const INT3: u8 = 0xcc;

/// Bytes below the stack pointer that belong to the function that runs (System V psABI 3.2.2).
pub(super) const RED_ZONE: u64 = 128;

/// `FP_XSTATE_MAGIC1` and `FP_XSTATE_MAGIC2` of asm/sigcontext.h: between them is what XSAVE has
/// written, extended features included.
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;

/// `struct _fpx_sw_bytes` of asm/sigcontext.h. A debugger finds there, in the place of the first
/// word, which features there are (`USER_XSTATE_XCR0_WORD`).
const SW_BYTES: usize = 464;
/// `XSTATE_BV` of the XSAVE header: the features that are not in their initial state.
const IN_USE: usize = 512;
/// The shortest area with such a header.
const SHORTEST: usize = 576;

/// Features by bit: x87 and SSE, protection keys, the tiles of AMX, and the first that is unknown.
const FP_SSE: u64 = 0b11;
const PKRU: u64 = 1 << 9;
const TILES: u64 = 1 << 18;
const UNKNOWN: u64 = !0 << 20;
/// The tiles come last. A thread has room for them once it has asked for that (arch_prctl(2)).
const TILES_LEN: usize = 8192;

/// `UC_FP_XSTATE`, `UC_SIGCONTEXT_SS` and `UC_STRICT_RESTORE_SS` of asm/ucontext.h.
const FLAGS: u64 = 0b111;
/// No mode of sigaltstack(2): rt_sigreturn(2) leaves the alternate stack as it is then.
const NO_MODE: u64 = 0x7fff;

/// Words of `struct ucontext`, up to the end of the signal mask.
const CONTEXT: usize = 38;

/// A frame that lies in the target.
#[derive(Clone, Copy, Debug)]
pub(super) struct WayBack {
    /// Its `struct ucontext`; the word below is a return address, to code that makes
    /// rt_sigreturn(2).
    context: u64,
}

/// What was where a frame lies now: a handler may run on an alternate stack that is part of the
/// thread's own one, with the frames that it has interrupted below.
#[derive(Debug)]
pub(super) struct Covered {
    start: u64,
    bytes: Vec<u8>,
}

impl Covered {
    /// The thread needs the frame no more.
    pub(super) fn uncover(&self, tid: Tid) {
        let _ = sys::write(tid.get(), self.start, &self.bytes); // killed meanwhile
    }
}

impl WayBack {
    /// Lays the frame for a thread that is to go on as `before` says. None where that cannot be
    /// done without harm: on a stack that is not known to be the thread's own, or with features that
    /// we do not know. The thread has no shadow stack.
    pub(super) fn lay(tid: Tid, code: CallCode, before: &Before) -> Option<(WayBack, Covered)> {
        let sigreturn = code.sigreturn?;
        if !is_code(tid, code) {
            return None;
        }
        let registers = going_on(tid, before);
        let state = Extended::of(tid)?;
        let top = registers.sp().get().checked_sub(RED_ZONE)?;
        let top = top.checked_sub(RemoteCalls::SCRATCH)?;
        // XRSTOR wants it so.
        let state_at = top.checked_sub(state.0.len() as u64)? & !63;
        let context = (state_at.checked_sub(8 * CONTEXT as u64)?) & !15;
        let start = context.checked_sub(8)?;
        if !is_own_stack(tid, &registers, start) {
            return None;
        }
        let mut bytes = sigreturn.get().to_le_bytes().to_vec();
        for word in words(&registers, before.mask, state_at) {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(usize::try_from(state_at - start).ok()?, 0);
        bytes.extend(state.0);
        let mut covered = Covered {
            start,
            bytes: vec![0; bytes.len()],
        };
        let is_read = sys::read(tid.get(), start, &mut covered.bytes) == Ok(bytes.len());
        // Fails where the thread itself may not write.
        let is_laid = is_read && sys::write(tid.get(), start, &bytes) == Ok(bytes.len());
        is_laid.then_some((WayBack { context }, covered))
    }

    /// The thread is about to make a system call by itself: that one.
    pub(super) fn take_at(self, syscall: Addr, registers: &mut Registers) {
        registers.0.rax = libc::SYS_rt_sigreturn.cast_unsigned();
        registers.set_ip(syscall);
        registers.set_sp(Addr::new(self.context));
        registers.set_system_call(None);
    }

    /// The thread has entered that call: has it make another one, and return from there.
    pub(super) fn take_after(self, registers: &mut Registers, number: i64, arguments: [u64; 6]) {
        registers.set_call(number, arguments);
        registers.set_system_call(Some(number.cast_unsigned()));
        registers.set_sp(Addr::new(self.context.wrapping_sub(8)));
    }
}

/// Whether the instructions are there.
fn is_code(tid: Tid, code: CallCode) -> bool {
    let starts_with = |at: Addr, bytes: &[u8]| {
        let word = |at: u64| sys::peek(tid.get(), at).map(u64::to_le_bytes);
        let next = at.get().wrapping_add(8);
        let found = word(at.get()).and_then(|first| Ok([first, word(next)?].concat()));
        found.is_ok_and(|found| found.starts_with(bytes))
    };
    let sigreturn = |at| {
        let mut forms = super::SIGRETURN.iter();
        forms.any(|form| starts_with(at, form))
    };
    starts_with(code.syscall, &super::SYSCALL_RETURN) && code.sigreturn.is_some_and(sigreturn)
}

/// The registers with which the kernel would let the thread go on, without a handler.
fn going_on(tid: Tid, before: &Before) -> Registers {
    let mut registers = before.registers;
    let answer = registers.result().cast_signed();
    let is_interrupted = RESTART.contains(&answer) || restart::is_interrupted(&registers);
    if let Some(number) = registers.system_call().filter(|_| is_interrupted) {
        registers.set_result(number);
        registers.set_ip(registers.ip().wrapping_offset(-2));
    }
    // Unless the tracer has moved it on already.
    let behind = registers.ip().wrapping_offset(-1);
    let is_behind = || sys::peek(tid.get(), behind.get()).is_ok_and(|word| word as u8 == INT3);
    if before.info.is_some_and(|info| info.is_int3()) && is_behind() {
        registers.set_ip(behind);
    }
    if let Some((_, section)) = before.sequence
        && let Some(abort) = abort_of(tid, section, registers.ip())
    {
        registers.set_ip(abort);
    }
    registers
}

/// Where a thread at `ip` goes on if it is in the restartable sequence `section` (`struct rseq_cs`
/// of linux/rseq.h) and has been interrupted.
fn abort_of(tid: Tid, section: u64, ip: Addr) -> Option<Addr> {
    let word = |offset: u64| sys::peek(tid.get(), section.checked_add(offset)?).ok();
    let (start, len, abort) = (word(8)?, word(16)?, word(24)?);
    (ip.get().wrapping_sub(start) < len).then_some(Addr::new(abort))
}

/// Whether all from `start` up to the stack pointer is free, and the thread's to write to: it is on
/// the first thread's stack, or on one at whose end the thread's own data lie and below which
/// nothing can be written (so glibc and musl have it). Not so a coroutine's, or a signal's.
fn is_own_stack(tid: Tid, registers: &Registers, start: u64) -> bool {
    let (sp, fs) = (registers.sp().get(), registers.fs_base());
    procfs::main_stack(tid).is_some_and(|stack| stack.contains(&start) && stack.contains(&sp))
        || procfs::guarded(tid, sp)
            .is_some_and(|stack| stack.contains(&start) && sp < fs && stack.contains(&fs))
}

/// The frame's `struct ucontext`: its head, `sigaltstack`, `struct sigcontext`, the mask.
fn words(registers: &Registers, mask: u64, state_at: u64) -> [u64; CONTEXT] {
    let r = &registers.0;
    let segments = (r.cs & 0xffff) | (r.ss & 0xffff) << 48;
    let mut words = [0; CONTEXT];
    let set = [
        FLAGS, 0, 0, NO_MODE, 0, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi,
        r.rsi, r.rbp, r.rbx, r.rdx, r.rax, r.rcx, r.rsp, r.rip, r.eflags, segments, 0, 0, 0, 0,
        state_at,
    ];
    for (word, value) in words.iter_mut().zip(set) {
        *word = value;
    }
    words[CONTEXT - 1] = mask;
    words
}

/// What XSAVE has written of a thread, as a signal frame has it.
struct Extended(Vec<u8>);

impl Extended {
    fn of(tid: Tid) -> Option<Extended> {
        Extended::framed(sys::extended_state(tid.get()).ok()?)
    }

    fn framed(mut area: Vec<u8>) -> Option<Extended> {
        let word = |area: &[u8], at: usize| {
            let bytes = area.get(at..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        };
        let (there, in_use) = (word(&area, SW_BYTES)?, word(&area, IN_USE)?);
        if (there | in_use) & UNKNOWN != 0 {
            return None;
        }
        if there & !in_use & TILES != 0 {
            area.truncate(area.len().checked_sub(TILES_LEN)?);
        }
        // The kernel keeps protection keys elsewhere, and writes them here in any case.
        let in_use = in_use | there & PKRU;
        let len = u32::try_from(area.len()).ok()?;
        if area.len() < SHORTEST {
            return None;
        }
        area.get_mut(IN_USE..IN_USE + 8)?
            .copy_from_slice(&in_use.to_le_bytes());
        let mut sw = [0; 48];
        sw[..4].copy_from_slice(&MAGIC1.to_le_bytes());
        sw[4..8].copy_from_slice(&(len + 4).to_le_bytes());
        sw[8..16].copy_from_slice(&(in_use | FP_SSE).to_le_bytes());
        sw[16..20].copy_from_slice(&len.to_le_bytes());
        area.get_mut(SW_BYTES..SW_BYTES + 48)?.copy_from_slice(&sw);
        area.extend(MAGIC2.to_le_bytes());
        Some(Extended(area))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(len: usize, there: u64, in_use: u64) -> Vec<u8> {
        let mut area = vec![0; len];
        area[SW_BYTES..SW_BYTES + 8].copy_from_slice(&there.to_le_bytes());
        area[IN_USE..IN_USE + 8].copy_from_slice(&in_use.to_le_bytes());
        area
    }

    #[test]
    fn tiles_are_left_out_where_a_thread_has_none() {
        let len_of =
            |len, there, in_use| Extended::framed(area(len, there, in_use)).unwrap().0.len();
        assert_eq!(len_of(832, 0b111, 0b111), 836);
        assert_eq!(len_of(11008, TILES | 0b111, 0b111), 2820);
        assert_eq!(len_of(11008, TILES | 0b111, TILES), 11012);
    }

    #[test]
    fn what_is_unknown_or_too_short_is_refused() {
        assert!(Extended::framed(area(832, 1 << 20, 0)).is_none());
        assert!(Extended::framed(area(520, 0b11, 0b11)).is_none());
        assert!(Extended::framed(Vec::new()).is_none());
    }

    #[test]
    fn protection_keys_are_always_restored() {
        let framed = Extended::framed(area(2696, PKRU | 0b111, 0b1)).unwrap().0;
        let features = u64::from_le_bytes(*framed[SW_BYTES + 8..].first_chunk().unwrap());
        assert_eq!(features, PKRU | FP_SSE);
    }
}
