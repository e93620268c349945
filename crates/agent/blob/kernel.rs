//! The system calls that the agent makes.

use core::arch::asm;

const RT_SIGPROCMASK: u64 = 14;
const PROCESS_VM_READV: u64 = 310;
const EFAULT: i64 = -14;

/// Bytes of a kernel `sigset_t`.
const MASK_LEN: u64 = 8;

/// A `how` that rt_sigprocmask(2) does not know.
const NO_SUCH_HOW: u64 = u64::MAX;

/// Whether the word at `at` can be read.
///
/// rt_sigprocmask(2) copies the new mask before it looks at `how`: EFAULT if it could not,
/// EINVAL if it could, and nothing is changed either way.
pub(crate) fn is_readable(at: u64) -> bool {
    // SAFETY: the call fails, and has no effect.
    unsafe { call(RT_SIGPROCMASK, [NO_SUCH_HOW, at, 0, MASK_LEN, 0, 0]) != EFAULT }
}

/// Copies words from `at` on, as many as can be read. Returns how many.
///
/// process_vm_readv(2) of the own process, which nothing forbids but a filter: it needs no permission.
pub(crate) fn read(process: u32, at: u64, words: &mut [u64]) -> usize {
    let bytes = core::mem::size_of_val(words) as u64;
    let local = [words.as_mut_ptr() as u64, bytes];
    let remote = [at, bytes];
    let (local, remote) = (local.as_ptr() as u64, remote.as_ptr() as u64);
    // SAFETY: the kernel writes into `words` alone.
    let copied = unsafe { call(PROCESS_VM_READV, [process.into(), local, 1, remote, 1, 0]) };
    usize::try_from(copied).map_or(0, |bytes| bytes / 8)
}

/// # Safety
/// As for the system call.
unsafe fn call(number: u64, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
    let result;
    // SAFETY: the kernel changes rax, rcx and r11 and what the caller vouches for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}
