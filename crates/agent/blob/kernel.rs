//! The system calls that the agent makes.

use core::arch::asm;
use core::cell::Cell;
use core::sync::atomic::AtomicU32;

use leaktap_arch::system_calls::{FUTEX, GETTID, PROCESS_VM_READV};

/// The number of this thread: gettid(2).
pub(crate) fn number() -> u32 {
    // SAFETY: it has no effect.
    unsafe { call(GETTID, [0; 6]) as u32 }
}

/// Waits while `word` is `value`, so many nanoseconds at most, and less than a second. May return
/// at any time: futex(2).
pub(crate) fn wait(word: &AtomicU32, value: u32, nanoseconds: u64) {
    const WAIT: u64 = 0;
    let timeout = [0, nanoseconds];
    let (word, timeout) = (word.as_ptr() as u64, timeout.as_ptr() as u64);
    // SAFETY: the kernel only reads.
    unsafe { call(FUTEX, [word, WAIT, value.into(), timeout, 0, 0]) };
}

/// Wakes whoever waits for `word`, in whatever process: futex(2).
pub(crate) fn wake(word: &AtomicU32) {
    const WAKE: u64 = 1;
    // SAFETY: it has no effect on this process.
    unsafe { call(FUTEX, [word.as_ptr() as u64, WAKE, 1, 0, 0, 0]) };
}

/// Copies words from `at` on, as many as can be read. Returns how many.
///
/// process_vm_readv(2) of the own process, which nothing forbids but a filter: it needs no
/// permission.
pub(crate) fn copy(process: u32, at: u64, words: &[Cell<u64>]) -> usize {
    let bytes = core::mem::size_of_val(words) as u64;
    let local = [words.as_ptr() as u64, bytes];
    let remote = [at, bytes];
    let (local, remote) = (local.as_ptr() as u64, remote.as_ptr() as u64);
    // SAFETY: the kernel writes into `words` alone.
    let copied = unsafe { call(PROCESS_VM_READV, [process.into(), local, 1, remote, 1, 0]) };
    usize::try_from(copied).map_or(0, |bytes| bytes / 8)
}

/// # Safety
/// As for the system call.
unsafe fn call(number: i64, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
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
