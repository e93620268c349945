//! How system calls are made (System V psABI, A.2), and their numbers (syscalls(2)).

use crate::RET;

/// The instruction, `syscall`.
pub const INSTRUCTION: [u8; 2] = [0x0f, 0x05];

/// The same and `ret`.
pub const RETURNING: [u8; 3] = [0x0f, 0x05, RET];

/// Code that makes rt_sigreturn(2): `mov rax, 15` and `syscall`, as C libraries have it behind
/// signal handlers; `mov eax, 15`.
pub const SIGRETURN: [&[u8]; 2] = [
    &[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05],
    &[0xb8, 15, 0, 0, 0, 0x0f, 0x05],
];

/// close(2).
pub const CLOSE: i64 = 3;
/// mmap(2).
pub const MMAP: i64 = 9;
/// mprotect(2).
pub const MPROTECT: i64 = 10;
/// munmap(2).
pub const MUNMAP: i64 = 11;
/// rt_sigaction(2).
pub const RT_SIGACTION: i64 = 13;
/// madvise(2).
pub const MADVISE: i64 = 28;
/// clone(2).
pub const CLONE: i64 = 56;
/// exit(2).
pub const EXIT: i64 = 60;
/// munlock(2).
pub const MUNLOCK: i64 = 150;
/// gettid(2).
pub const GETTID: i64 = 186;
/// futex(2).
pub const FUTEX: i64 = 202;
/// restart_syscall(2).
pub const RESTART: i64 = 219;
/// process_vm_readv(2).
pub const PROCESS_VM_READV: i64 = 310;
/// memfd_create(2).
pub const MEMFD_CREATE: i64 = 319;
/// clone3(2).
pub const CLONE3: i64 = 435;
