//! How a thread gets back to where it was by itself, should its tracer die while it makes a system
//! call for us.
//!
//! On the thread's own stack, below its red zone, lies a signal frame as the kernel writes it
//! (`struct rt_sigframe` of the kernel's asm/sigframe.h): all of its registers, and its signal
//! mask. The thread stands at a `syscall` instruction whose number is that of rt_sigreturn(2), or
//! returns from its call into code which makes that call. Either way the kernel puts back what the
//! frame holds, whether or not anybody traces the thread by then.

use leaktap_arch::signal_frame::{self, CONTEXT, EXTENDED_ALIGNMENT, EXTENDED_END, frame_extended};
use leaktap_arch::{BREAKPOINT, RED_ZONE, breakpoint_before, system_calls};
use leaktap_memory::Addr;
use nix::libc;

use super::{Before, CallCode, RESTART, RemoteCalls};
use crate::{Registers, Tid, procfs, restart, sys};

const INSTRUCTION_LEN: i64 = system_calls::INSTRUCTION.len() as i64;

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
    /// done without harm: on a stack that is not known to be the thread's own, or with features
    /// that we do not know. The thread has no shadow stack.
    pub(super) fn lay(tid: Tid, code: CallCode, before: &Before) -> Option<(WayBack, Covered)> {
        let sigreturn = code.sigreturn?;
        if !is_code(tid, code) {
            return None;
        }
        let registers = going_on(tid, before);
        let state = Extended::of(tid)?;
        let top = registers.sp().get().checked_sub(RED_ZONE)?;
        let top = top.checked_sub(RemoteCalls::SCRATCH)?;
        let state_at = top.checked_sub(state.0.len() as u64)? & !(EXTENDED_ALIGNMENT - 1);
        let context = (state_at.checked_sub(8 * CONTEXT as u64)?) & !15;
        let start = context.checked_sub(8)?;
        if !is_own_stack(tid, &registers, start) {
            return None;
        }
        let mut bytes = sigreturn.get().to_le_bytes().to_vec();
        for word in signal_frame::context(&registers, before.mask, state_at) {
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
        registers.set_result(libc::SYS_rt_sigreturn.cast_unsigned());
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
        let mut forms = system_calls::SIGRETURN.iter();
        forms.any(|form| starts_with(at, form))
    };
    starts_with(code.syscall, &system_calls::RETURNING) && code.sigreturn.is_some_and(sigreturn)
}

/// The registers with which the kernel would let the thread go on, without a handler.
fn going_on(tid: Tid, before: &Before) -> Registers {
    let mut registers = before.registers;
    let answer = registers.result().cast_signed();
    let is_interrupted = RESTART.contains(&answer) || restart::is_interrupted(&registers);
    if let Some(number) = registers.system_call().filter(|_| is_interrupted) {
        registers.set_result(number);
        registers.set_ip(registers.ip().wrapping_offset(-INSTRUCTION_LEN));
    }
    // Unless the tracer has moved it on already.
    let behind = breakpoint_before(registers.ip());
    let is_behind =
        || sys::peek(tid.get(), behind.get()).is_ok_and(|word| word as u8 == BREAKPOINT);
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

/// What XSAVE has written of a thread, as a signal frame has it.
struct Extended(Vec<u8>);

impl Extended {
    fn of(tid: Tid) -> Option<Extended> {
        Extended::framed(sys::extended_state(tid.get()).ok()?)
    }

    fn framed(mut area: Vec<u8>) -> Option<Extended> {
        let len = frame_extended(&mut area)?;
        area.truncate(len);
        area.extend(EXTENDED_END);
        Some(Extended(area))
    }
}
