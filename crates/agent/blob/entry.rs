//! Where detours enter the agent.
//!
//! There are two kinds. A *lean* one is for functions of shared libraries whose callers know
//! nothing of them but the psABI: the stub names its descriptor in r11, which no function expects
//! anything in (psABI, 3.2.1: neither do rax and r10 matter to a function with a fixed list of
//! arguments), and what is clobbered is what any call may clobber. A *full* one preserves what its
//! function preserves: all general registers and the direction flag, at entry, and after the
//! original has returned all but its result. Callers compiled together with the function know what
//! it leaves alone (-fipa-ra, LTO). Its stub pushes the descriptor's address, and jumps are made
//! through the word below the stack pointer, which no signal handler touches (the red zone, psABI
//! 3.2.2). No vector register is ever touched.
//!
//! `.cfi` lines describe each frame, so that a walk gets through.
//!
//! A thread in here needs nobody's help to get out: it gets to one of the labels `_call`, `_pass`
//! and `_return`, where the tracer can take it over, or it is inside the original, to return to
//! `_back`.
//!
//! The fs base is read by `rdfsbase`, never from memory: a program may have set it to anything.

use core::arch::global_asm;

use crate::agent::{Agent, outer, set_outer};
use crate::call::{ARGUMENTS, DESCRIPTOR};
use crate::frees::Freeing;
use crate::layout::{BUSY, Call, Descriptor, Loss, NOT_MOVING, TAKEN, running};
use crate::mappings::Mapping;
use crate::nesting::{Entry, entry};
use crate::record::Sought;
use crate::unreturned::returns;
use leaktap_ledger::Key;
use leaktap_api::Action;

global_asm!(
    ".macro leaktap_push register",
    "push \\register",
    ".cfi_adjust_cfa_offset 8",
    ".endm",
    ".macro leaktap_pop register",
    "pop \\register",
    ".cfi_adjust_cfa_offset -8",
    ".endm",
    // What a thread leaves the agent by begins with `test al, 0xfe`; another first byte makes that
    // `jmp $`.
    ".macro leaktap_exit",
    ".byte 0xa8, 0xfe",
    ".endm",
    // Functions whose original is called: allocations, and deletes.
    ".macro leaktap_call name, on_null",
    ".globl \\name",
    ".type \\name, @function",
    "\\name:",
    ".cfi_startproc",
    "leaktap_push r11",
    "leaktap_push rdx",
    "leaktap_push rsi",
    "leaktap_push rdi",
    "sub rsp, {arguments}",
    ".cfi_adjust_cfa_offset {arguments}",
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
    "leaktap_exit",
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
    "leaktap_exit",
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
    "leaktap_exit",
    "jmp [r11]",
    ".cfi_endproc",
    ".size \\name, . - \\name",
    ".endm",
    "leaktap_call leaktap_around, 0",
    // A twin that does not throw is called; if it fails, the throwing original is gone to without a
    // frame.
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
    "mov r8, r11",
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
    "leaktap_exit",
    "jmp [r11]",
    ".cfi_endproc",
    ".size leaktap_before, . - leaktap_before",
    // What a full detour saves besides arguments: ten words with what the stub has pushed.
    ".macro leaktap_save_scratch",
    "leaktap_push rax",
    "leaktap_push rcx",
    "leaktap_push r8",
    "leaktap_push r9",
    "leaktap_push r10",
    "leaktap_push r11",
    "pushfq",
    ".cfi_adjust_cfa_offset 8",
    "test byte ptr [rsp + 1], 4", // the direction flag
    "jz 3f",
    "cld",
    "3:",
    ".endm",
    ".macro leaktap_restore_scratch",
    "test byte ptr [rsp + 1], 4",
    "jz 3f",
    "std",
    "3:",
    "add rsp, 8",
    ".cfi_adjust_cfa_offset -8",
    "leaktap_pop r11",
    "leaktap_pop r10",
    "leaktap_pop r9",
    "leaktap_pop r8",
    "leaktap_pop rcx",
    "leaktap_pop rax",
    ".endm",
    ".macro leaktap_save_arguments",
    "leaktap_push rdx",
    "leaktap_push rsi",
    "leaktap_push rdi",
    ".endm",
    ".macro leaktap_restore_arguments",
    "leaktap_pop rdi",
    "leaktap_pop rsi",
    "leaktap_pop rdx",
    ".endm",
    // A call begins: where it goes is in rcx, or, if it is none of ours, its descriptor, at `2:`.
    ".macro leaktap_full_enter",
    ".cfi_startproc",
    ".cfi_def_cfa_offset 16",
    "leaktap_save_arguments",
    "sub rsp, {arguments} + 8",
    ".cfi_adjust_cfa_offset {arguments} + 8",
    "leaktap_save_scratch",
    "lea rdi, [rsp + 64]",
    "rdfsbase rsi",
    "mov rdx, rbp",
    "call leaktap_enter",
    "mov rcx, [rsp + 64 + {descriptor}]",
    "test eax, eax",
    "jz 2f",
    "mov rcx, [rcx + 8]",
    ".endm",
    // All is as at the entry, but for what was changed of what was saved.
    ".macro leaktap_full_leave",
    "leaktap_restore_scratch",
    "mov rdi, [rsp + 8 + {arguments}]",
    "mov rsi, [rsp + 8 + {arguments} + 8]",
    "mov rdx, [rsp + 8 + {arguments} + 16]",
    "lea rsp, [rsp + 8 + {call_len}]",
    ".cfi_def_cfa_offset 8",
    ".endm",
    // The same, and the original's address is in the word below the stack pointer.
    ".macro leaktap_full_original",
    "mov rcx, [rcx]",
    "mov [rsp + 64 + {descriptor}], rcx",
    "leaktap_full_leave",
    ".endm",
    // As `leaktap_around`. Below the call lies where it goes, and below that what was saved.
    ".globl leaktap_full_around",
    ".type leaktap_full_around, @function",
    "leaktap_full_around:",
    "leaktap_full_enter",
    "mov [rsp + 56], rcx",
    ".cfi_remember_state",
    "leaktap_restore_scratch",
    "mov rdi, [rsp + 8 + {arguments}]",
    "mov rsi, [rsp + 8 + {arguments} + 8]",
    "mov rdx, [rsp + 8 + {arguments} + 16]",
    "lea rsp, [rsp + 8]",
    ".cfi_adjust_cfa_offset -8",
    ".globl leaktap_full_around_call",
    "leaktap_full_around_call:",
    "leaktap_exit",
    "call [rsp - 8]", // read before the return address is pushed there
    ".globl leaktap_full_around_back",
    "leaktap_full_around_back:",
    "leaktap_save_arguments",
    "leaktap_save_scratch",
    "lea rdi, [rsp + 80]",
    "mov rsi, rax",
    "mov rdx, rbp",
    "call leaktap_leave", // returns what it is given
    "leaktap_restore_scratch",
    "leaktap_restore_arguments",
    "lea rsp, [rsp + {call_len}]",
    ".cfi_adjust_cfa_offset -{call_len}",
    ".globl leaktap_full_around_return",
    "leaktap_full_around_return:",
    "leaktap_exit",
    "ret",
    ".cfi_restore_state",
    "2:",
    "leaktap_full_original",
    ".globl leaktap_full_around_pass",
    "leaktap_full_around_pass:",
    "leaktap_exit",
    "jmp [rsp - 8]",
    ".cfi_endproc",
    ".size leaktap_full_around, . - leaktap_full_around",
    // As `leaktap_around_throwing`: what the twin changes and the operator need not is restored,
    // too.
    ".globl leaktap_full_around_throwing",
    ".type leaktap_full_around_throwing, @function",
    "leaktap_full_around_throwing:",
    "leaktap_full_enter",
    "mov [rsp + 56], rcx", // where a return address to us is looked for: it is no such
    "mov [rsp - 8], rcx",
    "mov rdi, [rsp + 64 + {arguments}]",
    ".globl leaktap_full_around_throwing_call",
    "leaktap_full_around_throwing_call:",
    "leaktap_exit",
    "call [rsp - 8]",
    "lea rdi, [rsp + 64]",
    "mov rsi, rax",
    "mov rdx, rbp",
    "call leaktap_leave",
    "mov rcx, [rsp + 64 + {descriptor}]",
    "test rax, rax",
    "jz 2f",
    "mov [rsp + 48], rax",
    ".cfi_remember_state",
    "leaktap_full_leave",
    ".globl leaktap_full_around_throwing_return",
    "leaktap_full_around_throwing_return:",
    "leaktap_exit",
    "ret",
    ".cfi_restore_state",
    "2:",
    "leaktap_full_original",
    ".globl leaktap_full_around_throwing_pass",
    "leaktap_full_around_throwing_pass:",
    "leaktap_exit",
    "jmp [rsp - 8]",
    ".cfi_endproc",
    ".size leaktap_full_around_throwing, . - leaktap_full_around_throwing",
    // As `leaktap_before`.
    ".globl leaktap_full_before",
    ".type leaktap_full_before, @function",
    "leaktap_full_before:",
    ".cfi_startproc",
    ".cfi_def_cfa_offset 16",
    "leaktap_save_arguments",
    "leaktap_save_scratch",
    "test rdi, rdi",
    "jz 1f",
    "lea rdx, [rsp + 88]",
    "rdfsbase rsi",
    "mov rcx, rbp",
    "mov r8, [rsp + 80]",
    "call leaktap_free",
    "1:",
    "mov rcx, [rsp + 80]",
    "mov rcx, [rcx]",
    "mov [rsp + 80], rcx",
    "leaktap_restore_scratch",
    "leaktap_restore_arguments",
    "lea rsp, [rsp + 8]",
    ".cfi_adjust_cfa_offset -8",
    ".globl leaktap_full_before_pass",
    "leaktap_full_before_pass:",
    "leaktap_exit",
    "jmp [rsp - 8]",
    ".cfi_endproc",
    ".size leaktap_full_before, . - leaktap_full_before",
    // mprotect and mlockall: without a frame, once the tracer has seen what they are about to do.
    // Always full.
    ".globl leaktap_gate",
    ".type leaktap_gate, @function",
    "leaktap_gate:",
    ".cfi_startproc",
    ".cfi_def_cfa_offset 16",
    "leaktap_save_arguments",
    "leaktap_save_scratch",
    "mov rdi, rsp",
    "lea rsi, [rsp + 88]",
    "rdfsbase rdx",
    "call leaktap_knock",
    "mov rcx, [rsp + 80]",
    "mov rcx, [rcx]",
    "mov [rsp + 80], rcx",
    "leaktap_restore_scratch",
    "leaktap_restore_arguments",
    "lea rsp, [rsp + 8]",
    ".cfi_adjust_cfa_offset -8",
    ".globl leaktap_gate_pass",
    "leaktap_gate_pass:",
    "leaktap_exit",
    "jmp [rsp - 8]",
    ".cfi_endproc",
    ".size leaktap_gate, . - leaktap_gate",
    // The dynamic linker's word that its list changes: the function itself only returns.
    ".globl leaktap_change",
    ".type leaktap_change, @function",
    "leaktap_change:",
    ".cfi_startproc",
    ".cfi_def_cfa_offset 16",
    "leaktap_save_arguments",
    "leaktap_save_scratch",
    "rdfsbase rdi",
    "call leaktap_changed",
    "leaktap_restore_scratch",
    "leaktap_restore_arguments",
    "lea rsp, [rsp + 8]",
    ".cfi_adjust_cfa_offset -8",
    ".globl leaktap_change_return",
    "leaktap_change_return:",
    "leaktap_exit",
    "ret",
    ".cfi_endproc",
    ".size leaktap_change, . - leaktap_change",
    call_len = const Call::LEN,
    descriptor = const DESCRIPTOR,
    arguments = const ARGUMENTS,
);

/// A function is entered, with `fourth` as its fourth argument. 1: its original is to be called,
/// and [`leaktap_leave`] with what it returns; 0: it is none of our business.
#[unsafe(no_mangle)]
extern "C" fn leaktap_enter(call: &mut Call, fs: u64, bp: u64, fourth: u64) -> u32 {
    let Some(agent) = Agent::present() else {
        return 0;
    };
    let (sp, descriptor) = (call.entry_sp(), call.descriptor());
    if descriptor.action.shape() != Action::ALLOCATE {
        return enter_any(call, fs, bp, fourth);
    }
    let Some(thread) = agent.idle_thread(fs, descriptor.family, sp) else {
        return enter_any(call, fs, bp, fourth);
    };
    call.thread = thread as u64;
    call.before = 0;
    set_outer(thread, sp);
    1
}

/// The same for functions that free, too, and for calls that may be another one's.
#[cold]
#[inline(never)]
extern "C" fn enter_any(call: &mut Call, fs: u64, bp: u64, fourth: u64) -> u32 {
    let Some(agent) = Agent::present() else {
        return 0;
    };
    if call.descriptor().action.is_mapping() {
        return call.enter_mapping(agent, fs, bp, fourth);
    }
    let Some(thread) = agent.thread(fs) else {
        agent.lose(Loss::NoThread);
        return 0;
    };
    let sp = call.entry_sp();
    let family = call.descriptor().family;
    let Entry::Own { before } = entry(agent, thread, Some(family), (sp, bp)) else {
        return 0;
    };
    call.thread = thread as u64;
    call.before = before;
    let action = call.descriptor().action;
    if matches!(action.shape(), Action::REALLOCATE | Action::RESIZE | Action::FREE
    ) {
        set_outer(thread, sp | BUSY);
        call.moving = NOT_MOVING;
        call.take_old(agent, bp);
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
    let now = outer(call.thread());
    if now & !TAKEN != call.entry_sp() {
        return leave_beside(call, result, bp, now);
    }
    set_outer(call.thread(), call.entry_sp() | BUSY);
    returns(call.thread(), call.entry_sp());
    if let Err(sought) = call.returned_again(agent, result, bp) {
        return leave_any(call, result, bp, sought);
    }
    set_outer(call.thread(), call.before);
    result
}

/// Another call is under way in the thread, which had left this one for it, on another stack: its
/// note stays.
#[cold]
#[inline(never)]
fn leave_beside(call: &mut Call, result: u64, bp: u64, other: u64) -> u64 {
    set_outer(call.thread(), other | BUSY);
    returns(call.thread(), call.entry_sp());
    call.before = other;
    leave_any(call, result, bp, Sought::NotYet)
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

/// The function of `descriptor`, which frees `block`, is entered.
#[unsafe(no_mangle)]
extern "C" fn leaktap_free(block: u64, fs: u64, sp: u64, bp: u64, descriptor: &Descriptor) {
    let Some(agent) = Agent::present() else {
        return;
    };
    let key = Key::new(descriptor.family, block);
    let Some(thread) = agent.idle_thread(fs, descriptor.family, sp) else {
        return free_any(key, fs, sp, bp);
    };
    set_outer(thread, sp | BUSY);
    let is_done = agent.freed_again(thread, &Freeing { key, sp, bp });
    set_outer(thread, 0);
    if !is_done {
        free_any(key, fs, sp, bp);
    }
}

/// The same for calls that may be another one's, and blocks that are not where they belong.
#[cold]
#[inline(never)]
extern "C" fn free_any(key: Key, fs: u64, sp: u64, bp: u64) {
    let Some(agent) = Agent::present() else {
        return;
    };
    let Some(thread) = agent.thread(fs) else {
        agent.lose(Loss::NoThread);
        return;
    };
    if let Entry::Own { before } = entry(agent, thread, Some(key.family()), (sp, bp)) {
        set_outer(thread, sp | BUSY);
        agent.freed(thread, before, &Freeing { key, sp, bp });
        set_outer(thread, before);
    }
}

/// What `leaktap_gate` has saved.
#[repr(C)]
struct Gate {
    /// Flags, r11, r10, r9, r8.
    _scratch: [u64; 5],
    /// rcx.
    fourth: u64,
    _rax: u64,
    /// rdi, rsi.
    arguments: [u64; 2],
    /// rdx.
    third: u64,
    descriptor: u64,
}

/// mprotect(2) or mlockall(2) was called, with its return address at `sp`. Where that may be what
/// the tracer has to be gone for, it is asked first.
#[unsafe(no_mangle)]
extern "C" fn leaktap_knock(gate: &Gate, sp: &u64, fs: u64) {
    // In a forked child there is nobody to ask.
    let Some(agent) = Agent::present() else {
        return;
    };
    let [first, second] = gate.arguments;
    let call = Mapping {
        // SAFETY: the stub has put it there, whose descriptor lies behind its code.
        descriptor: unsafe { &*(gate.descriptor as *const Descriptor) },
        arguments: [first, second, gate.third],
        fourth: gate.fourth,
        sp: &raw const *sp as u64,
    };
    if !agent.passes(&call) && agent.asks(&call) {
        agent.await_tracer(fs);
    }
}
