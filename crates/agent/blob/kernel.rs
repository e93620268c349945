//! The one system call that the agent makes.

use core::arch::asm;

const RT_SIGPROCMASK: u64 = 14;
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
    unsafe { call(RT_SIGPROCMASK, [NO_SUCH_HOW, at, 0, MASK_LEN]) != EFAULT }
}

/// # Safety
/// As for the system call.
unsafe fn call(number: u64, [a, b, c, d]: [u64; 4]) -> i64 {
    let result;
    // SAFETY: the kernel changes rax, rcx and r11 and what the caller vouches for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}
