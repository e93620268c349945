//! The raw system calls: every `unsafe` block of this crate, one small safe function each.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use leaktap_arch::Registers;
use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, c_void, siginfo_t, user_regs_struct};
use nix::sys::signal::SigEvent;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

mod nice;
mod pending;
mod procmap;
mod spawn;

pub(crate) use nice::{has_other_policy, nice, restore_nice, set_nice_alone};
pub(crate) use pending::has_pending;
pub use procmap::Area;
pub(crate) use procmap::area_from;
pub(crate) use spawn::{Image, fork_exec, ignored_at_start};
pub use spawn::{become_program, raise_file_limit};

/// `PTRACE_EVENT_STOP` of linux/ptrace.h, which the libc crate lacks for glibc.
pub(crate) const PTRACE_EVENT_STOP: c_int = 128;

/// Size of the kernel's `sigset_t` in bytes, as `PTRACE_GETSIGMASK` and rt_sigaction(2) want it.
const KERNEL_SIGSET: usize = 8;

/// A ptrace request as the libc crate has most of them: each C library's own type.
#[cfg(target_env = "gnu")]
type Request = libc::c_uint;
#[cfg(not(target_env = "gnu"))]
type Request = c_int;

/// `PTRACE_GET_RSEQ_CONFIGURATION` of linux/ptrace.h, which the libc crate lacks for musl.
const GET_RSEQ_CONFIGURATION: c_long = 0x420f;

/// `struct ptrace_rseq_configuration` of linux/ptrace.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct RseqConfiguration {
    /// Address of the thread's `struct rseq`, zero if it has registered none.
    pub(crate) area: u64,
    size: u32,
    signature: u32,
    flags: u32,
    padding: u32,
}

/// Any tracee or child of this thread, to [`wait`] for.
pub(crate) const ANY: i32 = -1;

/// One waitpid(2) for `of`, a tracee or child of this thread: its id and raw status; none with
/// `WNOHANG` and nothing to report. Never takes what belongs to other threads. For [`ANY`], the
/// kernel goes through all of them, at each call.
pub(crate) fn wait(of: i32, flags: c_int) -> Result<Option<(i32, i32)>, Errno> {
    let mut status = 0;
    let flags = flags | libc::__WALL | libc::__WNOTHREAD;
    // SAFETY: `status` is a live c_int for the duration of the call.
    let tid = unsafe { libc::waitpid(of, &raw mut status, flags) };
    Errno::result(tid).map(|tid| (tid != 0).then_some((tid, status)))
}

/// The end of one thread that this process traces, reaped, as waitpid(2) has it; none if it has
/// not ended. Leaves its stops alone, of which waitid(2) tells unasked.
pub(crate) fn end_of(tid: i32) -> Option<i32> {
    let (code, _) = look_at(tid, libc::WNOWAIT).ok()??;
    if !matches!(code, libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED) {
        return None;
    }
    let (code, status) = look_at(tid, 0).ok()??;
    Some(match code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    })
}

/// `si_code` and `si_status` of waitid(2), if there is anything to tell of `tid`.
fn look_at(tid: i32, flags: c_int) -> Result<Option<(c_int, c_int)>, Errno> {
    let mut info = MaybeUninit::<siginfo_t>::zeroed();
    let flags = flags | libc::WEXITED | libc::WNOHANG | libc::__WALL;
    // SAFETY: the kernel fills `info`, which is made of integers, or leaves it as it is: zeroes.
    let (found, info) = unsafe {
        let id = tid.unsigned_abs();
        let found = libc::waitid(libc::P_PID, id, info.as_mut_ptr(), flags);
        (found, info.assume_init())
    };
    // SAFETY: waitid(2) fills these fields, of zeroes else.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Errno::result(found)?;
    Ok((pid == tid).then_some((info.si_code, status)))
}

/// Whether `tid` is a child or tracee of ours whose end waitid(2) has not told us yet.
pub(crate) fn is_ours(tid: i32) -> bool {
    look_at(tid, libc::WNOWAIT) != Err(Errno::ECHILD)
}

/// Waits for one child that is no tracee.
pub(crate) fn reap(child: i32) {
    // SAFETY: a null status pointer is allowed.
    while unsafe { libc::waitpid(child, ptr::null_mut(), libc::__WALL) } == -1
        && Errno::last() == Errno::EINTR
    {}
}

/// The calling thread's id, as `TracerPid` shows it.
pub(crate) fn own_tid() -> i32 {
    // SAFETY: gettid(2) takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

/// tgkill(2).
pub(crate) fn send(process: i32, tid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: three integers.
    Errno::result(unsafe { libc::syscall(libc::SYS_tgkill, process, tid, signal) }).map(drop)
}

/// What has a timer send `signal` to the calling thread.
pub(crate) fn to_this_thread(signal: c_int) -> SigEvent {
    // SAFETY: sigevent is made of integers and a pointer that may be null.
    let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = signal;
    event.sigev_notify_thread_id = own_tid();
    SigEvent::from(&event)
}

/// kcmp(2) with `KCMP_VM`: whether two threads run in the same memory.
pub(crate) fn same_memory(one: i32, other: i32) -> Result<bool, Errno> {
    /// Of linux/kcmp.h.
    const KCMP_VM: c_int = 1;
    // SAFETY: integers only; this kind takes no index.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) };
    Errno::result(order).map(|order| order == 0)
}

/// A ptrace request without pointers, of the list below only.
fn plain(request: Request, tid: i32, data: c_long) -> Result<(), Errno> {
    debug_assert!(matches!(
        request,
        libc::PTRACE_SEIZE
            | libc::PTRACE_INTERRUPT
            | libc::PTRACE_CONT
            | libc::PTRACE_SYSCALL
            | libc::PTRACE_SINGLESTEP
            | libc::PTRACE_LISTEN
            | libc::PTRACE_DETACH
            | libc::PTRACE_SETOPTIONS
    ));
    // SAFETY: none of these requests takes a pointer; the target is another process.
    Errno::result(unsafe { libc::syscall(libc::SYS_ptrace, c_long::from(request), tid, 0, data) })
        .map(drop)
}

pub(crate) fn seize(tid: i32, options: c_int) -> Result<(), Errno> {
    plain(libc::PTRACE_SEIZE, tid, c_long::from(options))
}

pub(crate) fn interrupt(tid: i32) -> Result<(), Errno> {
    plain(libc::PTRACE_INTERRUPT, tid, 0).map_err(ended)
}

pub(crate) fn resume(tid: i32, signal: c_int) -> Result<(), Errno> {
    plain(libc::PTRACE_CONT, tid, c_long::from(signal))
}

/// Resumes until a system call begins or ends.
pub(crate) fn resume_to_call(tid: i32, signal: c_int) -> Result<(), Errno> {
    plain(libc::PTRACE_SYSCALL, tid, c_long::from(signal))
}

pub(crate) fn step(tid: i32, signal: c_int) -> Result<(), Errno> {
    plain(libc::PTRACE_SINGLESTEP, tid, c_long::from(signal))
}

pub(crate) fn listen(tid: i32) -> Result<(), Errno> {
    plain(libc::PTRACE_LISTEN, tid, 0).map_err(ended)
}

/// These two requests say `EIO` in place of `ESRCH` of a thread that is taken apart between the
/// kernel's look at who traces it and the request itself (`lock_task_sighand` in its
/// `ptrace_request`): execve(2) of another thread does so to the leader, for instance.
fn ended(errno: Errno) -> Errno {
    match errno {
        Errno::EIO => Errno::ESRCH,
        other => other,
    }
}

pub(crate) fn detach(tid: i32, signal: c_int) -> Result<(), Errno> {
    plain(libc::PTRACE_DETACH, tid, c_long::from(signal))
}

pub(crate) fn set_options(tid: i32, options: c_int) -> Result<(), Errno> {
    plain(libc::PTRACE_SETOPTIONS, tid, c_long::from(options))
}

/// A request that fills one `T` of plain integers.
fn fetch<T>(request: impl Into<c_long>, tid: i32, addr: usize) -> Result<T, Errno> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the callers below pair each request with the type that the kernel writes for it, and
    // each of these types is made of integers, so zeroes are a value of it.
    unsafe {
        let request = request.into();
        Errno::result(libc::syscall(
            libc::SYS_ptrace,
            request,
            tid,
            addr,
            value.as_mut_ptr(),
        ))?;
        Ok(value.assume_init())
    }
}

/// A request that reads one `T`.
fn store<T>(request: impl Into<c_long>, tid: i32, addr: usize, value: &T) -> Result<(), Errno> {
    let (request, value) = (request.into(), ptr::from_ref(value));
    // SAFETY: the kernel only reads `value`, whose type the callers below pair with the request.
    Errno::result(unsafe { libc::syscall(libc::SYS_ptrace, request, tid, addr, value) }).map(drop)
}

pub(crate) fn event_message(tid: i32) -> Result<u64, Errno> {
    fetch(libc::PTRACE_GETEVENTMSG, tid, 0)
}

const _: () = assert!(size_of::<Registers>() == size_of::<user_regs_struct>());

pub(crate) fn registers(tid: i32) -> Result<Registers, Errno> {
    fetch(libc::PTRACE_GETREGS, tid, 0)
}

pub(crate) fn set_registers(tid: i32, registers: &Registers) -> Result<(), Errno> {
    store(libc::PTRACE_SETREGS, tid, 0, registers)
}

pub(crate) fn signal_info(tid: i32) -> Result<siginfo_t, Errno> {
    fetch(libc::PTRACE_GETSIGINFO, tid, 0)
}

pub(crate) fn set_signal_info(tid: i32, info: &siginfo_t) -> Result<(), Errno> {
    store(libc::PTRACE_SETSIGINFO, tid, 0, info)
}

pub(crate) fn signal_mask(tid: i32) -> Result<u64, Errno> {
    fetch(libc::PTRACE_GETSIGMASK, tid, KERNEL_SIGSET)
}

pub(crate) fn set_signal_mask(tid: i32, mask: u64) -> Result<(), Errno> {
    store(libc::PTRACE_SETSIGMASK, tid, KERNEL_SIGSET, &mask)
}

/// `PTRACE_GETREGSET` with `NT_X86_XSTATE`: what XSAVE has written, in its standard form. Fails
/// with `ENODEV` on a processor without.
pub(crate) fn extended_state(tid: i32) -> Result<Vec<u8>, Errno> {
    /// Of linux/elf.h.
    const NT_X86_XSTATE: usize = 0x202;
    /// With the tiles of AMX, 11 KiB.
    const MOST: usize = 16 << 10;
    let mut area = vec![0; MOST];
    let mut vector = libc::iovec {
        iov_base: area.as_mut_ptr().cast(),
        iov_len: area.len(),
    };
    // SAFETY: the kernel writes at most `iov_len` bytes to `area`, and how many to `vector`; both
    // live through the call.
    Errno::result(unsafe {
        let request = c_long::from(libc::PTRACE_GETREGSET);
        libc::syscall(
            libc::SYS_ptrace,
            request,
            tid,
            NT_X86_XSTATE,
            &raw mut vector,
        )
    })?;
    area.truncate(vector.iov_len);
    Ok(area)
}

/// process_vm_writev(2) of one piece: writes where the tracee itself may write. Returns how much.
pub(crate) fn write(tid: i32, at: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let remote = RemoteIoVec {
        base: at as usize,
        len: bytes.len(),
    };
    process_vm_writev(Pid::from_raw(tid), &[IoSlice::new(bytes)], &[remote])
}

/// process_vm_readv(2) of one piece. Returns how much.
pub(crate) fn read(tid: i32, at: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
    let remote = RemoteIoVec {
        base: at as usize,
        len: bytes.len(),
    };
    process_vm_readv(Pid::from_raw(tid), &mut [IoSliceMut::new(bytes)], &[remote])
}

/// process_vm_readv(2) of all `ranges`, one behind the other in `bytes`. Returns how much: up to
/// the first that cannot be read, or to the end of `bytes`.
pub(crate) fn read_ranges(
    tid: i32,
    ranges: &[(u64, usize)],
    bytes: &mut [u8],
) -> Result<usize, Errno> {
    let range = |(at, len): &(u64, usize)| RemoteIoVec {
        base: *at as usize,
        len: *len,
    };
    let remote: Vec<_> = ranges.iter().map(range).collect();
    process_vm_readv(Pid::from_raw(tid), &mut [IoSliceMut::new(bytes)], &remote)
}

/// Fails with `EIO` before Linux 5.13.
pub(crate) fn rseq_configuration(tid: i32) -> Result<RseqConfiguration, Errno> {
    fetch(GET_RSEQ_CONFIGURATION, tid, size_of::<RseqConfiguration>())
}

/// One word of the tracee's memory.
pub(crate) fn peek(tid: i32, at: u64) -> Result<u64, Errno> {
    fetch(libc::PTRACE_PEEKDATA, tid, at as usize)
}

/// Writes one word into the tracee's memory, read-only pages included.
pub(crate) fn poke(tid: i32, at: u64, word: u64) -> Result<(), Errno> {
    let request = c_long::from(libc::PTRACE_POKEDATA);
    // SAFETY: `word` is a value here, not a pointer; `at` is an address of the other process.
    Errno::result(unsafe { libc::syscall(libc::SYS_ptrace, request, tid, at, word) }).map(drop)
}

/// Bytes of a siginfo_t, for reading its fields by their offsets in the ABI.
pub(crate) fn signal_info_bytes(info: &siginfo_t) -> &[u8; size_of::<siginfo_t>()] {
    // SAFETY: siginfo_t is 128 bytes that the kernel (or zeroes) filled wholly; any byte is a u8.
    unsafe { &*ptr::from_ref(info).cast() }
}

/// How often each signal has been noted that nobody has taken yet: see [`set_handler`].
pub(crate) static NOTED: [AtomicU32; 32] = [const { AtomicU32::new(0) }; 32];

/// Signals of a terminal that stop a job.
const STOPS: [c_int; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// A [`Sleeper`](crate::Sleeper) is to wake up, and has not yet.
static WOKEN: AtomicBool = AtomicBool::new(false);

/// Whether SIGURG has come since this was last asked.
pub(crate) fn take_wake() -> bool {
    WOKEN.load(Ordering::Relaxed) && WOKEN.swap(false, Ordering::Relaxed)
}

/// Who has sent the last SIGCONT that was noted.
pub(crate) static CONTINUED_BY: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: c_int, info: *const siginfo_t, _: *const c_void) {
    // As the kernel does with those that are pending.
    let void: &[c_int] = match signal {
        libc::SIGCONT => &STOPS,
        libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => &[libc::SIGCONT],
        _ => &[],
    };
    for noted in void.iter().filter_map(|&signal| NOTED.get(signal as usize)) {
        noted.store(0, Ordering::Relaxed);
    }
    if signal == libc::SIGCONT {
        // SAFETY: with SA_SIGINFO the kernel hands over a siginfo_t, of zeroes where it has nothing
        // to say.
        let sender = unsafe { (*info).si_pid() };
        CONTINUED_BY.store(sender, Ordering::Relaxed);
    }
    if signal == libc::SIGURG {
        WOKEN.store(true, Ordering::Relaxed);
    }
    // These only have to interrupt waitpid(2).
    if !matches!(signal, libc::SIGALRM | libc::SIGURG)
        && let Some(noted) = NOTED.get(signal as usize)
    {
        noted.fetch_add(1, Ordering::Relaxed);
    }
}

/// What [`set_handler`] replaced.
pub(crate) struct OldAction(c_int, libc::sigaction);

impl OldAction {
    pub(crate) fn signal(&self) -> c_int {
        self.0
    }
}

/// Lets `signal` be noted in [`NOTED`], and interrupt system calls (no `SA_RESTART`).
pub(crate) fn set_handler(signal: c_int) -> Result<OldAction, Errno> {
    handle(signal, noting(), 0)
}

/// Lets `signal` come once without an effect; the next one does what it does by default.
pub(crate) fn ignore_once(signal: c_int) -> Result<(), Errno> {
    handle(signal, noting(), libc::SA_RESETHAND | libc::SA_RESTART).map(drop)
}

/// Lets `signal` come without an effect.
pub(crate) fn ignore(signal: c_int) -> Result<OldAction, Errno> {
    handle(signal, libc::SIG_IGN, 0)
}

/// Lets `signal` do what it does by default.
pub(crate) fn set_default(signal: c_int) -> Result<OldAction, Errno> {
    handle(signal, libc::SIG_DFL, 0)
}

/// [`note`] as a handler.
fn noting() -> usize {
    note as extern "C" fn(c_int, *const siginfo_t, *const c_void) as *const () as usize
}

fn handle(signal: c_int, handler: usize, flags: c_int) -> Result<OldAction, Errno> {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `handler` is `note`, which only stores to atomics and so is async-signal-safe, or
    // none; zeroes are an empty mask and no flags; both structs live through the call, which fills
    // `old` when it succeeds.
    unsafe {
        let mut new = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        new.sa_sigaction = handler;
        new.sa_flags = flags | libc::SA_SIGINFO;
        Errno::result(libc::sigaction(signal, &raw const new, old.as_mut_ptr()))?;
        Ok(OldAction(signal, old.assume_init()))
    }
}

/// Puts back what [`set_handler`] replaced.
pub(crate) fn restore_handler(old: &OldAction) {
    // SAFETY: the action is one that sigaction(2) itself has handed out.
    unsafe { libc::sigaction(old.0, &raw const old.1, ptr::null_mut()) };
}
