//! Where detours enter the agent.
//!
//! A stub jumps here with its descriptor's address in r11, which no function expects anything in
//! (psABI, 3.2.1: neither do rax and r10 matter to a function with a fixed list of arguments).
//! Everything else is as at the entry of the probed function. What it passes on, arguments and
//! rbp among them, is unchanged; what is clobbered is what any call may clobber. `.cfi` lines
//! describe each frame, so that a walk gets through.
//!
//! A thread in here needs nobody's help to get out: it gets to one of the labels `_call`, `_pass` and
//! `_return`, where the tracer can take it over, or it is inside the original, to return to `_back`.
//!
//! The fs base is read by `rdfsbase`, never from memory: a program may have set it to anything.

use core::arch::global_asm;

use crate::agent::{Agent, set_outer};
use crate::call::{ARGUMENTS, DESCRIPTOR};
use crate::layout::{Action, BUSY, Call, Descriptor, Loss, MAP_FIXED, Old, running};
use crate::nesting::{Entry, entry};
use crate::record::Sought;
use crate::unreturned::returns;

global_asm!(
    ".macro leaktap_push register",
    "push \\register",
    ".cfi_adjust_cfa_offset 8",
    ".endm",
    ".macro leaktap_pop register",
    "pop \\register",
    ".cfi_adjust_cfa_offset -8",
    ".endm",
    // Functions whose original is called: allocations, and deletes.
    ".macro leaktap_call name, on_null",
    ".globl \\name",
    ".type \\name, @function",
    "\\name:",
    ".cfi_startproc",
    "leaktap_push rdx",
    "leaktap_push rsi",
    "leaktap_push rdi",
    "leaktap_push r11",
    "sub rsp, {descriptor}",
    ".cfi_adjust_cfa_offset {descriptor}",
    "mov rdi, rsp",
    "rdfsbase rsi",
    "mov rdx, rbp",
    "call leaktap_enter",
    "mov r11, [rsp + {descriptor}]",
    "mov rdi, [rsp + {arguments}]",
    "mov rsi, [rsp + {arguments} + 8]",
    "mov rdx, [rsp + {arguments} + 16]",
    "test eax, eax",
    "jz 2f",
    ".globl \\name\\()_call",
    "\\name\\()_call:",
    "call [r11 + 8]",
    ".globl \\name\\()_back",
    "\\name\\()_back:",
    "mov rdi, rsp",
    "mov rsi, rax",
    "mov rdx, rbp",
    "call leaktap_leave",
    ".if \\on_null",
    "test rax, rax",
    "jz 1f",
    ".endif",
    "add rsp, {call_len}",
    ".cfi_adjust_cfa_offset -{call_len}",
    ".globl \\name\\()_return",
    "\\name\\()_return:",
    "ret",
    ".cfi_adjust_cfa_offset {call_len}",
    "1:",
    "mov r11, [rsp + {descriptor}]",
    "mov rdi, [rsp + {arguments}]",
    "mov rsi, [rsp + {arguments} + 8]",
    "mov rdx, [rsp + {arguments} + 16]",
    "2:",
    "add rsp, {call_len}",
    ".cfi_adjust_cfa_offset -{call_len}",
    ".globl \\name\\()_pass",
    "\\name\\()_pass:",
    "jmp [r11]",
    ".cfi_endproc",
    ".size \\name, . - \\name",
    ".endm",
    "leaktap_call leaktap_around, 0",
    // A twin that does not throw is called; if it fails, the throwing original is gone to without a frame.
    "leaktap_call leaktap_around_throwing, 1",
    // Functions that free and tell nothing: no frame.
    ".globl leaktap_before",
    ".type leaktap_before, @function",
    "leaktap_before:",
    ".cfi_startproc",
    "test rdi, rdi",
    "jz 1f",
    "leaktap_push rdx",
    "leaktap_push rsi",
    "leaktap_push rdi",
    "leaktap_push r11",
    "sub rsp, 8",
    ".cfi_adjust_cfa_offset 8",
    "lea rdx, [rsp + 40]",
    "rdfsbase rsi",
    "mov rcx, rbp",
    "call leaktap_free",
    "add rsp, 8",
    ".cfi_adjust_cfa_offset -8",
    "leaktap_pop r11",
    "leaktap_pop rdi",
    "leaktap_pop rsi",
    "leaktap_pop rdx",
    "1:",
    ".globl leaktap_before_pass",
    "leaktap_before_pass:",
    "jmp [r11]",
    ".cfi_endproc",
    ".size leaktap_before, . - leaktap_before",
    // Functions that a breakpoint watches, but for calls that nobody wants to know of. No argument may change, nor rax, which
    // says how many vector registers the call of a function like mremap uses.
    ".globl leaktap_gate",
    ".type leaktap_gate, @function",
    "leaktap_gate:",
    ".cfi_startproc",
    "leaktap_push rax",
    "leaktap_push rcx",
    "leaktap_push rdx",
    "leaktap_push r8",
    "leaktap_push r9",
    "leaktap_push r10",
    "leaktap_push r11",
    "leaktap_push rsi",
    "leaktap_push rdi",
    "mov rdi, rsp",
    "lea rsi, [rsp + 72]",
    "call leaktap_passes",
    "test eax, eax",
    "leaktap_pop rdi",
    "leaktap_pop rsi",
    "leaktap_pop r11",
    "leaktap_pop r10",
    "leaktap_pop r9",
    "leaktap_pop r8",
    "leaktap_pop rdx",
    "leaktap_pop rcx",
    "leaktap_pop rax",
    "jnz leaktap_gate_pass",
    ".globl leaktap_gate_int3",
    "leaktap_gate_int3:",
    "int3",
    ".globl leaktap_gate_pass",
    "leaktap_gate_pass:",
    "jmp [r11]",
    ".cfi_endproc",
    ".size leaktap_gate, . - leaktap_gate",
    call_len = const Call::LEN,
    descriptor = const DESCRIPTOR,
    arguments = const ARGUMENTS,
);

/// A function is entered. 1: its original is to be called, and [`leaktap_leave`] with what it
/// returns; 0: it is none of our business.
#[unsafe(no_mangle)]
extern "C" fn leaktap_enter(call: &mut Call, fs: u64, bp: u64) -> u32 {
    let Some(agent) = Agent::present() else {
        return 0;
    };
    let sp = call.entry_sp();
    if call.descriptor().action.shape() != Action::ALLOCATE {
        return enter_any(call, fs, bp);
    }
    let Some(thread) = agent.idle_thread(fs, sp) else {
        return enter_any(call, fs, bp);
    };
    call.thread = thread as u64;
    call.before = 0;
    set_outer(thread, sp);
    1
}

/// The same for functions that free, too, and for calls that may be another one's.
#[cold]
#[inline(never)]
extern "C" fn enter_any(call: &mut Call, fs: u64, bp: u64) -> u32 {
    let Some(agent) = Agent::present() else {
        return 0;
    };
    let Some(thread) = agent.thread(fs) else {
        agent.lose(Loss::NoThread);
        return 0;
    };
    let sp = call.entry_sp();
    let Entry::Own { before } = entry(agent, thread, sp, bp) else {
        return 0;
    };
    call.thread = thread as u64;
    call.before = before;
    let action = call.descriptor().action;
    if matches!(action.shape(), Action::REALLOCATE | Action::FREE) {
        set_outer(thread, sp | BUSY);
        call.old = Old::default();
        call.take_old(agent);
    }
    set_outer(thread, running(sp, before));
    1
}

/// The original has returned `result`, which is handed on.
#[unsafe(no_mangle)]
extern "C" fn leaktap_leave(call: &mut Call, result: u64, bp: u64) -> u64 {
    // Not present in a child that was forked by a signal handler meanwhile.
    let Some(agent) = Agent::present() else {
        return result;
    };
    set_outer(call.thread(), call.entry_sp() | BUSY);
    returns(call.thread(), call.entry_sp());
    if let Err(sought) = call.returned_again(agent, result, bp) {
        return leave_any(call, result, bp, sought);
    }
    set_outer(call.thread(), call.before);
    result
}

/// The same for what is not remembered. The thread's state says already that the agent is busy.
#[cold]
#[inline(never)]
fn leave_any(call: &mut Call, result: u64, bp: u64, sought: Sought) -> u64 {
    if let Some(agent) = Agent::present() {
        call.returned(agent, result, bp, sought);
        set_outer(call.thread(), call.before);
    }
    result
}

/// A function that frees `block` is entered.
#[unsafe(no_mangle)]
extern "C" fn leaktap_free(block: u64, fs: u64, sp: u64, bp: u64) {
    let Some(agent) = Agent::present() else {
        return;
    };
    let Some(thread) = agent.idle_thread(fs, sp) else {
        return free_any(block, fs, sp, bp);
    };
    set_outer(thread, sp | BUSY);
    let is_done = agent.freed_again(thread, block);
    set_outer(thread, 0);
    if !is_done {
        free_any(block, fs, sp, bp);
    }
}

/// The same for calls that may be another one's, and blocks that are not where they belong.
#[cold]
#[inline(never)]
extern "C" fn free_any(block: u64, fs: u64, sp: u64, bp: u64) {
    let Some(agent) = Agent::present() else {
        return;
    };
    let Some(thread) = agent.thread(fs) else {
        agent.lose(Loss::NoThread);
        return;
    };
    if let Entry::Own { before } = entry(agent, thread, sp, bp) {
        set_outer(thread, sp | BUSY);
        agent.freed(thread, before, block);
        set_outer(thread, before);
    }
}

/// What `leaktap_gate` has saved first.
#[repr(C)]
struct Gate {
    arguments: [u64; 2],
    descriptor: u64,
    /// r10, r9, r8, rdx.
    _others: [u64; 4],
    fourth: u64,
}

/// Whether a call that was entered with its return address at `sp` is the C library's own doing, or the allocator's. 0 if it is
/// the program's. Whosever it is: what it unmaps is no stack any more.
#[unsafe(no_mangle)]
extern "C" fn leaktap_passes(gate: &Gate, sp: &u64) -> u32 {
    // In a forked child there is nobody to tell.
    let Some(agent) = Agent::present() else {
        return 1;
    };
    // SAFETY: the stub has put it there, whose descriptor lies behind its code.
    let descriptor = unsafe { &*(gate.descriptor as *const Descriptor) };
    let [start, len] = gate.arguments;
    let unmaps = match descriptor.action {
        Action::UNMAP => true,
        Action::MAP_AT => gate.fourth & MAP_FIXED != 0,
        _ => false,
    };
    if unmaps && start != 0 {
        agent.unmaps(start, len);
    }
    let mut system = agent.control.system.iter();
    u32::from(system.any(|module| module.contains(*sp)))
}
