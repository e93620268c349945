//! What this process was started with, and children that start with the same.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc::{self, c_char, c_int, c_void};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::execv;

use super::{KERNEL_SIGSET, restore_nice};

/// The kernel's own `struct sigaction` on x86-64 (glibc's refuses signals 32 and 33).
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Signals ignored when this process began, bit `n - 1` for signal `n`.
static IGNORED: AtomicU64 = AtomicU64::new(0);
/// Signals blocked when this process began.
static BLOCKED: AtomicU64 = AtomicU64::new(0);
/// Which of the descriptors 0, 1, 2 were closed when this process began.
static CLOSED: AtomicU64 = AtomicU64::new(0);
/// How many descriptors this process could have when it began (RLIMIT_NOFILE, getrlimit(2)), or 0
/// if that has not changed.
static MOST_FILES: AtomicU64 = AtomicU64::new(0);

/// Lets this process have as many descriptors as it may: one for each file that a target has
/// mapped, and more. A launched program finds the limit as it was.
pub fn raise_file_limit() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        MOST_FILES.store(soft, Ordering::Relaxed);
    }
}

/// Runs before Rust's own start code, which ignores SIGPIPE and opens /dev/null as descriptors 0
/// to 2 where they are closed: a launched program has to find what this process found.
#[used]
// SAFETY: functions in .init_array are called once by the C library before main, which is what
// `record_start` expects; it uses neither allocation nor the standard library.
#[unsafe(link_section = ".init_array")]
static RECORD_START: extern "C" fn() = record_start;

extern "C" fn record_start() {
    let mut ignored = 0;
    for signal in 1..=64 {
        let mut action = KernelAction::default();
        let size = KERNEL_SIGSET;
        let none = ptr::null::<KernelAction>();
        // SAFETY: a null new action changes nothing; `action` is the kernel's layout.
        let result =
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, none, &raw mut action, size) };
        if result == 0 && action.handler == libc::SIG_IGN {
            ignored |= 1 << (signal - 1);
        }
    }
    IGNORED.store(ignored, Ordering::Relaxed);
    // Where a file may not grow (RLIMIT_FSIZE, getrlimit(2)), that is an error, and not our end
    // with a tracee in our hands.
    dispose(libc::SIGXFSZ, libc::SIG_IGN);
    BLOCKED.store(swap_mask(libc::SIG_BLOCK, 0), Ordering::Relaxed);
    for fd in 0..3 {
        // SAFETY: F_GETFD only asks whether the descriptor exists.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
}

/// Has `handler` be what happens on `signal`: SIG_IGN or SIG_DFL. Nothing changes for SIGKILL and
/// SIGSTOP.
fn dispose(signal: c_int, handler: usize) {
    let action = KernelAction {
        handler,
        ..KernelAction::default()
    };
    let (new, none) = (&raw const action, ptr::null_mut::<KernelAction>());
    let size = KERNEL_SIGSET;
    // SAFETY: an action without handler, in the kernel's layout.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, none, size) };
}

/// True if `signal` was ignored when this process began (nohup(1), a shell's background job).
pub(crate) fn ignored_at_start(signal: c_int) -> bool {
    IGNORED.load(Ordering::Relaxed) & (1 << (signal - 1)) != 0
}

/// rt_sigprocmask(2) of all 64 signals; returns the mask before.
fn swap_mask(how: c_int, mask: u64) -> u64 {
    let mut old = 0u64;
    let (new, size) = (&raw const mask, KERNEL_SIGSET);
    // SAFETY: both masks are eight bytes, as `size` says, and live through the call.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, new, &raw mut old, size) };
    old
}

/// All that the child needs between fork and exec, allocated before the fork.
pub(crate) struct Image {
    /// Paths to try in turn.
    pub(crate) paths: Vec<CString>,
    /// The arguments, from the program's name on.
    pub(crate) arguments: Vec<CString>,
}

/// Forks a child that puts signals and descriptors back as this process found them, waits for one
/// byte from `go`, and executes the first of the image's paths that can be, as execvp(3) does. If
/// none can be it writes the errno (four bytes) to `failed` and exits. Returns the child's id.
pub(crate) fn fork_exec(
    image: &Image,
    go: BorrowedFd<'_>,
    not_go: BorrowedFd<'_>,
    failed: BorrowedFd<'_>,
) -> Result<i32, Errno> {
    let pointers = |first: Option<&CString>, rest: &[CString]| -> Vec<*const c_char> {
        let all = first.into_iter().chain(rest).map(|text| text.as_ptr());
        all.chain([ptr::null()]).collect()
    };
    let arguments = pointers(None, &image.arguments);
    let shell = CString::from(c"/bin/sh");
    // The second word is the script, filled in by the child.
    let mut script = pointers(Some(&shell), &image.arguments);
    let before = swap_mask(libc::SIG_SETMASK, !0);
    // SAFETY: the child calls only async-signal-safe functions, on memory made above.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: this is the child of a fork, with all signals blocked; both vectors end in null.
        unsafe {
            start_as_found();
            libc::close(not_go.as_raw_fd());
            if gate(go.as_raw_fd()) {
                let errno = execute(&image.paths, &arguments, &mut script);
                let errno = errno.to_ne_bytes();
                libc::write(
                    failed.as_raw_fd(),
                    errno.as_ptr().cast::<c_void>(),
                    errno.len(),
                );
            }
            libc::_exit(127)
        }
    }
    let child = Errno::result(child);
    swap_mask(libc::SIG_SETMASK, before);
    child
}

/// Becomes `program`, by execv(2), with signals and descriptors as this process found them. Returns
/// why that has failed; there is nothing left to do then but to end.
pub fn become_program(program: &CStr, arguments: &[CString]) -> Errno {
    // SAFETY: what follows is another program, or the end of this one.
    unsafe { start_as_found() };
    match execv(program, arguments) {
        Err(errno) => errno,
        Ok(never) => match never {},
    }
}

/// # Safety
/// Only before a program is executed: in a forked child, or by a process without other threads.
unsafe fn start_as_found() {
    let ignored = IGNORED.load(Ordering::Relaxed);
    for signal in 1..=64 {
        let ignore = ignored & (1 << (signal - 1)) != 0;
        let handler = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
        dispose(signal, handler);
    }
    for fd in 0..3 {
        if CLOSED.load(Ordering::Relaxed) & (1 << fd) != 0 {
            // SAFETY: the /dev/null that Rust's start code opened there.
            unsafe { libc::close(fd) };
        }
    }
    let soft = MOST_FILES.load(Ordering::Relaxed);
    if soft != 0
        && let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard); // lower than now: cannot be refused
    }
    restore_nice();
    swap_mask(libc::SIG_SETMASK, BLOCKED.load(Ordering::Relaxed));
}

/// True once the parent has written a byte; false if it died first.
///
/// # Safety
/// `go` is the read end of a pipe whose write end this process does not hold.
unsafe fn gate(go: c_int) -> bool {
    let mut byte = 0u8;
    loop {
        // SAFETY: one byte, into `byte`.
        match unsafe { libc::read(go, (&raw mut byte).cast(), 1) } {
            1 => return true,
            -1 if Errno::last() == Errno::EINTR => {}
            _ => return false,
        }
    }
}

/// execvp(3) over paths found beforehand; returns only with the errno that says why not.
///
/// # Safety
/// `arguments` and `script` end in null and point to live strings; `script` has two words or more.
unsafe fn execute(
    paths: &[CString],
    arguments: &[*const c_char],
    script: &mut [*const c_char],
) -> i32 {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut last = Errno::ENOENT;
    for path in paths {
        // SAFETY: as promised by the caller; nobody else can change `environ` in this child.
        unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environ) };
        match Errno::last() {
            Errno::ENOEXEC => {
                if let [shell, name, ..] = script {
                    *name = path.as_ptr();
                    // SAFETY: as above.
                    unsafe { libc::execve(*shell, script.as_ptr(), environ) };
                }
                return Errno::ENOEXEC as i32;
            }
            Errno::EACCES => last = Errno::EACCES,
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
            other => return other as i32,
        }
    }
    last as i32
}
