//! The agent's stacks are those of a plain walk, whatever the program's stack looks like.
#![allow(
    clippy::unwrap_used,
    reason = "a failure to prepare is a failure of the test"
)]

mod host;

use std::ffi::c_void;
use std::hint::black_box;
use std::mem::transmute;
use std::sync::atomic::Ordering::Relaxed;

use host::{Host, backtrace};
use leaktap_api::Action;
use leaktap_testing::Random;
use leaktap_unwind::End;
use nix::libc;

type Malloc = extern "C" fn(usize) -> *mut c_void;
type Free = extern "C" fn(*mut c_void);

struct Program {
    host: Host,
    malloc: Malloc,
    free: Free,
    random: Random,
    checked: u32,
}

impl Program {
    fn new(depth: u32) -> Program {
        let host = Host::with_depth(depth);
        let malloc = host.probe(
            libc::malloc as *const () as usize,
            Action::ALLOCATE.sized(0),
        );
        let free = host.probe(libc::free as *const () as usize, Action::FREE);
        // SAFETY: stubs are called as their originals are.
        let (malloc, free) = unsafe {
            (
                transmute::<usize, Malloc>(malloc),
                transmute::<usize, Free>(free),
            )
        };
        Program {
            host,
            malloc,
            free,
            random: Random(0x1234_5678),
            checked: 0,
        }
    }

    #[inline(never)]
    fn allocate(&mut self, depth: usize) {
        let block = (self.malloc)(16);
        let stack = backtrace();
        let frames = self.host.block(block as usize).frames;
        let len = frames.len();
        assert_eq!(frames[1..], stack[1..len], "after {} stacks", self.checked);
        assert!(
            len == stack.len() || len == depth,
            "{len} of {} frames",
            stack.len()
        );
        (self.free)(block);
        self.checked += 1;
    }
}

/// Frames of very different sizes, entered in random order.
#[inline(never)]
fn wander<const N: usize>(program: &mut Program, left: u32, depth: usize) {
    let mut frame = [0_u8; N];
    black_box(&mut frame);
    if left == 0 {
        return program.allocate(depth);
    }
    for _ in 0..1 + program.random.below(2) {
        match program.random.below(5) {
            0 => wander::<8>(program, left - 1, depth),
            1 => wander::<40>(program, left - 1, depth),
            2 => wander::<1000>(program, left - 1, depth),
            3 => wander::<9000>(program, left - 1, depth),
            _ => program.allocate(depth),
        }
    }
    black_box(&frame);
}

#[test]
fn random_call_paths() {
    let mut program = Program::new(256);
    while program.checked < 1000 {
        let left = (program.random.below(12)) as u32;
        wander::<24>(&mut program, left, 256);
    }
    assert_eq!(program.host.losses(), 0);
}

#[test]
fn truncated_stacks_say_so() {
    let mut program = Program::new(5);
    for _ in 0..50 {
        wander::<24>(&mut program, 8, 5);
    }
    let block = (program.malloc)(9);
    let live = program.host.block(block as usize);
    assert_eq!((live.frames.len(), live.end), (5, End::TooDeep as u8));
}

#[test]
fn new_rows_void_what_was_remembered() {
    let mut program = Program::new(64);
    for _ in 0..20 {
        program.allocate(64);
        program.host.change_rows();
    }
}

#[test]
fn other_stacks() {
    let program = Program::new(64);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (malloc, free) = (program.malloc, program.free);
            scope.spawn(move || {
                for _ in 0..2000 {
                    free(black_box(malloc(black_box(50))));
                }
            });
        }
    });
    assert_eq!(program.host.live(), []);
    assert_eq!(program.host.losses(), 0);
}

/// mov rbp, rsi; call rdi: code without call frame information, with anything in rbp.
fn without_cfi() -> extern "C" fn(Malloc, usize, usize) -> *mut c_void {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
    const CODE: [u8; 15] = [
        0x55, 0x48, 0x89, 0xf5, 0x48, 0x89, 0xf8, 0x48, 0x89, 0xd7, 0xff, 0xd0, 0x5d, 0xc3, 0xcc,
    ];
    let len = std::num::NonZeroUsize::new(4096).unwrap();
    let all = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE | ProtFlags::PROT_EXEC;
    // SAFETY: a new page, filled with a whole function: push rbp; mov rbp, rsi; mov rax, rdi;
    // mov rdi, rdx; call rax; pop rbp; ret.
    unsafe {
        let page = mmap_anonymous(None, len, all, MapFlags::MAP_PRIVATE).unwrap();
        std::ptr::copy_nonoverlapping(CODE.as_ptr(), page.as_ptr().cast(), CODE.len());
        transmute(page.as_ptr())
    }
}

#[test]
fn a_walk_that_goes_astray_does_not_fault() {
    let program = Program::new(64);
    let call = without_cfi();
    let here = &raw const program as usize & !15;
    for bp in [
        0,
        8,
        here + (1 << 20),
        here + (7 << 20),
        usize::MAX - 7,
        1 << 47,
        here - 4096,
    ] {
        let block = call(program.malloc, bp, 33);
        let live = program.host.block(block as usize);
        assert!(!live.frames.is_empty(), "{bp:#x}");
        assert_eq!(live.size, 33);
    }
}

#[test]
fn nothing_of_another_stack_without_the_kernel() {
    let program = Program::new(64);
    program.host.control().live.kernel.store(0, Relaxed);
    let frame = black_box([0_u8; 16 << 10]);
    let block = (program.malloc)(33);
    black_box(&frame);
    let live = program.host.block(block as usize);
    assert!(live.end != 0 && !live.frames.is_empty());
}

/// What was readable once need not be so again: a frame pointer without call frame information
/// leads to anything.
#[test]
fn a_page_that_was_closed_is_not_read() {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
    let program = Program::new(64);
    program.host.knows_this_stack();
    let call = without_cfi();
    let len = std::num::NonZeroUsize::new(8 << 20).unwrap();
    let (open, closed) = (
        ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        ProtFlags::PROT_NONE,
    );
    // SAFETY: a new mapping, that nothing is in.
    let page = unsafe { mmap_anonymous(None, len, open, MapFlags::MAP_PRIVATE) }.unwrap();
    let bp = page.as_ptr() as usize + 4096;
    for rights in [open, open, closed, closed, open] {
        // SAFETY: the same.
        unsafe { mprotect(page, len.get(), rights) }.unwrap();
        let block = call(program.malloc, bp, 33);
        assert!(program.host.has(block as usize));
    }
}

/// Frame pointers lead up the thread's own stack, whose pages are asked for once, and again when
/// some may have been closed.
#[test]
fn pages_of_the_own_stack_are_asked_for_once() {
    let program = Program::new(64);
    program.host.knows_this_stack();
    let live = &program.host.control().live;
    let call = without_cfi();
    // A frame whose caller's chain of frame pointers ends.
    let frame = black_box([0_usize, call as usize + 1]);
    let bp = frame.as_ptr() as usize;
    let ends = |kernel: bool, sees_closing: bool| {
        live.kernel.store(kernel.into(), Relaxed);
        live.sees_closing.store(sees_closing.into(), Relaxed);
        let block = call(program.malloc, bp, 33);
        let end = program.host.block(block as usize).end;
        (program.free)(block);
        end
    };
    let (root, unreadable) = (End::Root as u8, End::Unreadable as u8);
    assert_eq!(ends(true, false), root);
    assert_eq!(
        ends(false, true),
        unreadable,
        "nobody saw to it that it stays"
    );
    assert_eq!(ends(true, true), root);
    assert_eq!(ends(false, true), root, "the page was found readable");
    live.ranges.fetch_add(1, Relaxed);
    assert_eq!(ends(false, true), unreadable, "some page was closed");
    assert_eq!(ends(true, true), root);
    assert_eq!(ends(false, true), root);
}
