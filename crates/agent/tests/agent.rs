//! What the agent makes of calls.

mod host;

use std::ffi::c_void;
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use host::{Host, backtrace};
use leaktap_agent::Shape;
use leaktap_agent::layout::{BUSY, Loss};
use leaktap_api::Action;
use nix::libc;

type Malloc = extern "C" fn(usize) -> *mut c_void;
type Calloc = extern "C" fn(usize, usize) -> *mut c_void;
type Realloc = extern "C" fn(*mut c_void, usize) -> *mut c_void;
type Memalign = extern "C" fn(*mut *mut c_void, usize, usize) -> i32;
type Free = extern "C" fn(*mut c_void);

const MALLOC: Action = Action::ALLOCATE.sized(0);

/// A stub as a function.
macro_rules! probe {
    ($host:expr, $function:expr, $action:expr, $type:ty) => {{
        let stub = $host.probe($function as *const () as usize, $action);
        // SAFETY: a stub is called as its original is.
        unsafe { transmute::<usize, $type>(stub) }
    }};
}

#[inline(never)]
fn allocate(malloc: Malloc, size: usize) -> (*mut c_void, Vec<u64>) {
    (malloc(size), backtrace())
}

#[test]
fn a_block_is_live_from_malloc_to_free() {
    let host = Host::new();
    let malloc = probe!(host, libc::malloc, MALLOC, Malloc);
    let free = probe!(host, libc::free, Action::FREE, Free);
    let (block, stack) = allocate(malloc, 24);
    let live = host.block(block as usize);
    assert_eq!((live.size, live.end), (24, 0));
    assert_eq!(live.frames[1..], stack[1..], "the callers of `allocate`");
    free(block);
    free(null_mut());
    assert_eq!(host.live(), []);
    assert_eq!(host.thread().outer.load(Relaxed), 0);
    assert_eq!(host.losses(), 0);
}

#[test]
fn sizes_and_results_are_as_each_function_has_them() {
    let host = Host::new();
    let calloc = probe!(host, libc::calloc, Action::ALLOCATE.product(0, 1), Calloc);
    let block = calloc(3, 100) as usize;
    assert_eq!(host.block(block).size, 300);
    assert!(calloc(1 << 40, 1 << 40).is_null());
    let memalign = Action::ALLOCATE_INTO.sized(2);
    let memalign = probe!(host, libc::posix_memalign, memalign, Memalign);
    let mut into = null_mut();
    assert_eq!(memalign(&mut into, 256, 1000), 0);
    assert_eq!(host.block(into as usize).size, 1000);
    assert_eq!(memalign(&mut into, 3, 1000), libc::EINVAL);
    assert_eq!(host.live().len(), 2);
}

#[test]
fn realloc_moves_a_block_and_a_failed_one_keeps_it() {
    let host = Host::new();
    let malloc = probe!(host, libc::malloc, MALLOC, Malloc);
    let realloc = probe!(host, libc::realloc, Action::REALLOCATE.sized(1), Realloc);
    let small = malloc(100);
    let large = realloc(small, 1 << 20);
    assert_eq!(host.live().len(), 1);
    assert_eq!(host.block(large as usize).size, 1 << 20);
    assert!(realloc(large, usize::MAX / 2).is_null());
    assert_eq!(host.block(large as usize).size, 1 << 20);
    let new = realloc(null_mut(), 10);
    assert_eq!(host.block(new as usize).size, 10);
    assert!(realloc(large, 0).is_null());
    assert_eq!(host.live().len(), 1);
}

static INNER: std::sync::OnceLock<Malloc> = std::sync::OnceLock::new();

/// An allocator that gets its memory by the probed malloc.
extern "C" fn outer_allocator(size: usize) -> *mut c_void {
    let inner = INNER.get().expect("the test has set it");
    let room = inner(size + 16);
    room.wrapping_byte_add(16)
}

#[test]
fn the_outermost_call_is_the_allocation() {
    let host = Host::new();
    let inner = INNER.get_or_init(|| probe!(host, libc::malloc, MALLOC, Malloc));
    let outer = probe!(host, outer_allocator, MALLOC, Malloc);
    let block = outer(32) as usize;
    assert_eq!(host.live().len(), 1);
    assert_eq!(host.block(block).size, 32);
    let (other, _) = allocate(*inner, 8);
    assert_eq!(host.block(other as usize).size, 8);
}

#[test]
fn a_call_left_by_longjmp_does_not_swallow_later_ones() {
    let host = Host::new();
    let malloc = probe!(host, libc::malloc, MALLOC, Malloc);
    malloc(1);
    let here = &raw const host as u64 & !15;
    let far_below = here - (64 << 10);
    for stale in [here + 0x400, far_below, far_below | BUSY, here | BUSY, 8] {
        host.thread().outer.store(stale, Relaxed);
        let block = malloc(77) as usize;
        assert_eq!(host.block(block).size, 77, "{stale:#x}");
        let now = host.thread().outer.load(Relaxed);
        assert_eq!(now, 0, "{stale:#x}");
    }
}

extern "C" fn twin(size: usize) -> *mut c_void {
    if size > 1000 {
        null_mut()
    } else {
        // SAFETY: malloc has no preconditions.
        unsafe { libc::malloc(size) }
    }
}

extern "C-unwind" fn throwing_new(size: usize) -> *mut c_void {
    std::panic::resume_unwind(Box::new(size))
}

#[test]
fn a_throwing_new_throws_through_no_frame_of_ours() {
    let host = Host::new();
    let (original, call) = (
        throwing_new as *const () as usize,
        twin as *const () as usize,
    );
    for shape in [Shape::AroundThrowing, Shape::FullAroundThrowing] {
        let stub = host.stub(shape, original, call, MALLOC.by_twin());
        // SAFETY: called as its original is.
        let new: extern "C-unwind" fn(usize) -> *mut c_void = unsafe { transmute(stub) };
        assert_eq!(host.block(new(100) as usize).size, 100);
        let thrown = std::panic::catch_unwind(|| new(2000)).unwrap_err();
        assert_eq!(thrown.downcast_ref(), Some(&2000_usize));
    }
    assert_eq!(host.losses(), 2);
    let losses = &host.control().told.losses;
    assert_eq!(losses[Loss::Retried as usize].load(Relaxed), 2);
    assert_eq!(host.live().len(), 2);
}

#[test]
fn a_forked_child_passes_through() {
    let host = Host::new();
    let malloc = probe!(host, libc::malloc, MALLOC, Malloc);
    let free = probe!(host, libc::free, Action::FREE, Free);
    let kept = malloc(10);
    // SAFETY: the child calls malloc, free and _exit only, through stubs.
    match unsafe { libc::fork() } {
        0 => {
            free(kept);
            let block = malloc(20);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if block.is_null() { 1 } else { 42 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child just made.
            unsafe { libc::waitpid(child, &mut status, 0) };
            assert_eq!(libc::WEXITSTATUS(status), 42);
        }
    }
    assert_eq!(host.live().len(), 1);
}

#[test]
fn a_disarmed_agent_passes_through() {
    let host = Host::new();
    let malloc = probe!(host, libc::malloc, MALLOC, Malloc);
    host.header().control.store(0, Relaxed);
    assert!(!malloc(5).is_null());
    assert_eq!(host.live(), []);
}

#[test]
fn a_full_ledger_loses_and_says_so() {
    let host = Host::new();
    let malloc = probe!(host, bump, MALLOC, Malloc);
    let mut calls = 0;
    while host.losses() == 0 {
        malloc(1);
        calls += 1;
    }
    assert!(calls > 100_000);
    assert_eq!(host.live().len(), calls - 1);
    assert_eq!(
        host.ledger()
            .totals(leaktap_ledger::FamilyId::FIRST)
            .allocations,
        calls as u64 - 1
    );
}

/// An allocator that never frees.
extern "C" fn bump(_: usize) -> *mut c_void {
    static NEXT: AtomicUsize = AtomicUsize::new(0x1000_0000_0000);
    NEXT.fetch_add(16, Relaxed) as *mut c_void
}

/// Threads with one fs base would write to one state at the same time: each has its own by its
/// number, or none.
#[test]
fn threads_that_share_an_fs_base_are_told_apart_by_number() {
    let host = Host::new();
    let malloc = probe!(host, libc::malloc, MALLOC, Malloc);
    let free = probe!(host, libc::free, Action::FREE, Free);
    free(malloc(10));
    host.share_this_thread();
    let block = malloc(20);
    assert!(host.has(block as usize));
    free(block);
    assert_eq!((host.live(), host.losses()), (vec![], 0));
    host.control().live.kernel.store(0, Relaxed);
    free(malloc(30));
    assert_eq!((host.live(), host.losses()), (vec![], 2));
    assert_eq!(
        host.ledger()
            .totals(leaktap_ledger::FamilyId::FIRST)
            .allocations,
        2
    );
}
