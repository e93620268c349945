//! Signal handlers that allocate, while the program does and while the agent works. Handlers are
//! of the whole process, and the tests run side by side: each test has signals of its own.
#![allow(
    clippy::unwrap_used,
    reason = "a failure to prepare is a failure of the test"
)]

mod host;

use std::ffi::c_void;
use std::mem::{offset_of, transmute};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use host::Host;
use leaktap_agent::layout::{BUSY, Thread};
use leaktap_api::Action;
use nix::libc;

type Malloc = extern "C" fn(usize) -> *mut c_void;
type Free = extern "C" fn(*mut c_void);

const MALLOC: Action = Action::ALLOCATE.sized(0);

fn handle(signal: i32, handler: extern "C" fn(i32), flags: i32) {
    // SAFETY: the handlers of this file call nothing that is not async-signal-safe, but for their
    // own bump allocator.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags | libc::SA_RESTART;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

/// An allocator that signal handlers may use, too.
extern "C" fn bump(_: usize) -> *mut c_void {
    static NEXT: AtomicUsize = AtomicUsize::new(0x1000_0000_0000);
    NEXT.fetch_add(16, Relaxed) as *mut c_void
}

extern "C" fn nothing(_: *mut c_void) {}

static INTERRUPTED: OnceLock<(Host, Malloc)> = OnceLock::new();
static BY_HANDLER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn allocate_in_handler(_: i32) {
    let (_, malloc) = INTERRUPTED.get().unwrap();
    BY_HANDLER.store(malloc(111) as usize, Relaxed);
}

/// An allocator that is interrupted.
extern "C" fn raising(size: usize) -> *mut c_void {
    // SAFETY: raises a signal that has a handler.
    unsafe { libc::raise(libc::SIGUSR1) };
    bump(size)
}

fn interrupted_call(flags: i32) {
    let (host, _) = INTERRUPTED.get_or_init(|| {
        let host = Host::new();
        let malloc = host.probe(bump as *const () as usize, MALLOC);
        // SAFETY: called as its original is.
        (host, unsafe { transmute::<usize, Malloc>(malloc) })
    });
    handle(libc::SIGUSR1, allocate_in_handler, flags);
    // SAFETY: called as its original is.
    let outer: Malloc = unsafe { transmute(host.probe(raising as *const () as usize, MALLOC)) };
    let block = outer(222) as usize;
    let (inner, outer) = (host.block(BY_HANDLER.load(Relaxed)), host.block(block));
    assert_eq!((inner.size, outer.size), (111, 222));
    assert_eq!(host.thread().outer.load(Relaxed), 0);
    // The handler's stack leads through the interrupted allocator to the same callers.
    assert_eq!((inner.end, outer.end), (0, 0));
    assert!(inner.frames.ends_with(&outer.frames), "{inner:?} {outer:?}");
    assert!(inner.frames.iter().all(|&frame| !host.owns(frame)));
}

#[test]
fn a_handler_that_interrupts_an_allocation_allocates_for_itself() {
    interrupted_call(0);
    let stack = vec![0_u8; 64 << 10].leak();
    let other = libc::stack_t {
        ss_sp: stack.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: stack.len(),
    };
    // SAFETY: the stack is never freed.
    let failed = unsafe { libc::sigaltstack(&other, std::ptr::null_mut()) };
    assert_eq!(failed, 0);
    interrupted_call(libc::SA_ONSTACK);
}

static NESTED: OnceLock<(Host, Malloc)> = OnceLock::new();
static UNCHANGED: AtomicBool = AtomicBool::new(false);

/// As if it had interrupted the agent at work.
extern "C" fn allocate_while_busy(_: i32) {
    let (host, malloc) = NESTED.get().unwrap();
    host.thread().outer.fetch_or(BUSY, Relaxed);
    let before = state(host);
    malloc(333);
    UNCHANGED.store(state(host) == before, Relaxed);
    host.thread().outer.fetch_and(!BUSY, Relaxed);
}

/// What the agent keeps for the calling thread, but for what that is in the middle of.
fn state(host: &Host) -> Vec<u8> {
    let from = offset_of!(Thread, stack);
    let state = (&raw const *host.thread()).cast::<u8>();
    // SAFETY: the rest of a Thread, which nobody else writes to.
    unsafe { std::slice::from_raw_parts(state.add(from), size_of::<Thread>() - from) }.to_vec()
}

extern "C" fn allocate_in_turn(_: i32) {
    let (host, _) = NESTED.get().unwrap();
    // SAFETY: called as its original is.
    let malloc: Malloc = unsafe { transmute(host.probe(bump as *const () as usize, MALLOC)) };
    malloc(444);
}

/// Allocators that are interrupted: the program's, and the handler's.
extern "C" fn hanging_up(size: usize) -> *mut c_void {
    // SAFETY: raises a signal that has a handler.
    unsafe { libc::raise(libc::SIGHUP) };
    bump(size)
}

extern "C" fn in_handler(size: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { libc::raise(libc::SIGUSR2) };
    bump(size)
}

#[test]
fn a_handler_of_a_handler_keeps_away_from_the_agent_at_work() {
    let (host, _) = NESTED.get_or_init(|| {
        let host = Host::new();
        let malloc = host.probe(in_handler as *const () as usize, MALLOC);
        // SAFETY: called as its original is.
        (host, unsafe { transmute::<usize, Malloc>(malloc) })
    });
    handle(libc::SIGHUP, allocate_while_busy, 0);
    handle(libc::SIGUSR2, allocate_in_turn, 0);
    // SAFETY: called as its original is.
    let malloc: Malloc = unsafe { transmute(host.probe(hanging_up as *const () as usize, MALLOC)) };
    malloc(222);
    let mut live = host.live();
    live.sort_by_key(|block| block.size);
    let sizes: Vec<_> = live.iter().map(|block| block.size).collect();
    assert_eq!(sizes, [222, 333, 444]);
    for pair in live.windows(2) {
        assert!(pair[1].frames.ends_with(&pair[0].frames), "{pair:?}");
    }
    assert!(UNCHANGED.load(Relaxed));
    assert_eq!(host.thread().outer.load(Relaxed), 0);
}

static STORM: OnceLock<(Host, Malloc, Free)> = OnceLock::new();
static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn storm(_: i32) {
    let (_, malloc, free) = STORM.get().unwrap();
    for size in 1..4 {
        free(malloc(size));
    }
    HANDLED.fetch_add(1, Relaxed);
}

/// A timer that sends `signal` to this thread every 50 microseconds.
fn timer(signal: i32) -> libc::timer_t {
    // SAFETY: plain system calls on values of this frame.
    unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = libc::gettid();
        let mut timer = std::ptr::null_mut();
        assert_eq!(
            libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer),
            0
        );
        let every = libc::timespec {
            tv_sec: 0,
            tv_nsec: 50_000,
        };
        let spec = libc::itimerspec {
            it_interval: every,
            it_value: every,
        };
        assert_eq!(
            libc::timer_settime(timer, 0, &spec, std::ptr::null_mut()),
            0
        );
        timer
    }
}

#[test]
fn handlers_that_interrupt_the_agent_lose_nothing() {
    let (host, malloc, free) = STORM.get_or_init(|| {
        let host = Host::new();
        let malloc = host.probe(bump as *const () as usize, MALLOC);
        let free = host.probe(nothing as *const () as usize, Action::FREE);
        // SAFETY: called as their originals are.
        unsafe {
            (
                host,
                transmute::<usize, Malloc>(malloc),
                transmute::<usize, Free>(free),
            )
        }
    });
    host.knows_this_stack();
    handle(libc::SIGALRM, storm, 0);
    let timer = timer(libc::SIGALRM);
    let mut calls = 0_u64;
    // As often as it takes for a handler to find the agent at work.
    while HANDLED.load(Relaxed) < 2000 || !host.has_used_spares() {
        free(malloc(64));
        calls += 1;
    }
    // SAFETY: made above.
    assert_eq!(unsafe { libc::timer_delete(timer) }, 0);
    assert!(calls > 1000);
    assert_eq!(host.live(), []);
    assert_eq!(host.losses(), 0);
    assert_eq!(host.thread().outer.load(Relaxed), 0);
    assert_eq!(host.unmatched_frees(), 0);
}
