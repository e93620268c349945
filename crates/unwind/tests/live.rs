//! Walks of this very process, compared with libgcc's unwinder frame by frame.
//!
//! `std`'s own unwinder ([`_Unwind_Backtrace`]) evaluates the same call frame information with
//! different code: what it sees from a place is what the walker has to see.
#![allow(clippy::unwrap_used)]

use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::Mutex;

use leaktap_memory::{Addr, ReadMemory, Svma, Unreadable};
use leaktap_unwind::{CfiSections, End, Frame, Start, Table, Walk, rows, walk};
use object::{Object, ObjectSection, ObjectSegment};

#[repr(C)]
struct Context([u8; 0]);

unsafe extern "C" {
    fn _Unwind_Backtrace(
        trace: extern "C" fn(*mut Context, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut Context, before_instruction: *mut c_int) -> usize;
    fn qsort(base: *mut c_void, count: usize, size: usize, compare: Compare);
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn raise(number: c_int) -> c_int;
}

type Compare = extern "C" fn(*const c_void, *const c_void) -> c_int;

/// This process, read through the kernel: an address that is not mapped is an error, not a fault.
struct OwnMemory(File);

impl ReadMemory for OwnMemory {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        let len = buf.len();
        self.0
            .read_exact_at(buf, at.get())
            .map_err(|_| Unreadable { at, len })
    }
}

/// The rows of every file mapped executable.
fn own_table() -> Table {
    let mut table = Table::new();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    for line in maps.lines().filter(|line| line.contains("r-xp")) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let Some(path) = fields.get(5).filter(|path| path.starts_with('/')).copied() else {
            continue;
        };
        let (start, end) = fields[0].split_once('-').unwrap();
        let start = u64::from_str_radix(start, 16).unwrap();
        let end = u64::from_str_radix(end, 16).unwrap();
        let offset = u64::from_str_radix(fields[2], 16).unwrap();
        insert(&mut table, path, start..end, offset);
    }
    table
}

fn insert(table: &mut Table, path: &str, range: std::ops::Range<u64>, offset: u64) {
    let data = std::fs::read(path).unwrap();
    let elf = object::File::parse(&*data).unwrap();
    let section = elf.section_by_name(".eh_frame").unwrap();
    let (at, bytes) = (Svma(section.address()), section.data().unwrap().to_vec());
    let segments = || elf.segments();
    let base = Svma(segments().map(|segment| segment.address()).min().unwrap());
    let mapped = segments()
        .find(|segment| segment.file_range().0 & !0xfff == offset)
        .unwrap();
    let bias = range.start.wrapping_sub(mapped.address() & !0xfff);
    let load = move || {
        let eh_frame = Some((at, &*bytes));
        Arc::new(rows(&CfiSections {
            base,
            eh_frame,
            ..CfiSections::default()
        }))
    };
    let range = Addr::new(range.start)..Addr::new(range.end);
    table.insert(range, base.at_bias(bias), Box::new(load));
}

extern "C" fn collect(context: *mut Context, argument: *mut c_void) -> c_int {
    let mut exact = 0;
    // SAFETY: libgcc passes a context that is valid during this call.
    let ip = unsafe { _Unwind_GetIPInfo(context, &mut exact) };
    // SAFETY: `argument` is the vector that `both_walks` passed, and nobody else uses it meanwhile.
    let lookups = unsafe { &mut *argument.cast::<Vec<u64>>() };
    // libgcc ends with a null frame where the walker says Root.
    if ip != 0 {
        lookups.push(if exact != 0 { ip as u64 } else { ip as u64 - 1 });
    }
    0
}

/// A stack by libgcc and by the walker, as lookup addresses, and how the walk ended.
type Both = (Vec<u64>, Vec<u64>, End);

/// The stack of the caller.
#[inline(never)]
fn both_walks() -> Both {
    let (ip, sp, bp): (u64, u64, u64);
    // SAFETY: reads three registers.
    unsafe {
        asm!("lea {}, [rip]", "mov {}, rsp", "mov {}, rbp", out(reg) ip, out(reg) sp, out(reg) bp);
    }
    let mut expected: Vec<u64> = Vec::new();
    // SAFETY: `collect` gets the vector that it expects.
    unsafe { _Unwind_Backtrace(collect, (&raw mut expected).cast()) };
    let memory = OwnMemory(File::open("/proc/self/mem").unwrap());
    let start = Start::stopped_at(Addr::new(ip), Addr::new(sp), bp);
    let mut frames = [Frame::from_raw(0); 200];
    let Walk { depth, end } = walk(start, &memory, &mut own_table(), &mut frames);
    assert!(
        frames[..depth]
            .iter()
            .all(|frame| !frame.by_frame_pointer())
    );
    let lookups = frames[..depth].iter().map(|frame| frame.lookup().get());
    // Both begin in this function, at different instructions.
    (expected.split_off(1), lookups.skip(1).collect(), end)
}

#[track_caller]
fn assert_same((expected, seen, end): Both, at_least: usize) {
    assert_eq!(seen, expected);
    assert_eq!(end, End::Root);
    assert!(seen.len() >= at_least);
}

#[inline(never)]
fn recursive(depth: u32) -> Both {
    if depth == 0 {
        both_walks()
    } else {
        std::hint::black_box(recursive(depth - 1))
    }
}

#[test]
fn rust_frames_are_libgccs() {
    assert_same(recursive(50), 50);
}

static IN_QSORT: Mutex<Option<Both>> = Mutex::new(None);
static IN_HANDLER: Mutex<Option<Both>> = Mutex::new(None);

extern "C" fn compare(_: *const c_void, _: *const c_void) -> c_int {
    IN_QSORT.lock().unwrap().get_or_insert_with(both_walks);
    0
}

extern "C" fn handler(_: c_int) {
    *IN_HANDLER.lock().unwrap() = Some(both_walks());
}

#[test]
fn frames_through_libc_are_libgccs() {
    let mut numbers = [3_u32, 1, 2];
    // SAFETY: three numbers of four bytes, and a comparison that reads neither.
    unsafe { qsort(numbers.as_mut_ptr().cast(), 3, 4, compare) };
    assert_same(IN_QSORT.lock().unwrap().take().unwrap(), 5);
}

#[test]
fn frames_through_a_signal_handler_are_libgccs() {
    const SIGUSR1: c_int = 10;
    // SAFETY: the handler runs on this thread, inside `raise`, so it may do what any code may.
    unsafe {
        signal(SIGUSR1, handler);
        raise(SIGUSR1);
    }
    assert_same(IN_HANDLER.lock().unwrap().take().unwrap(), 5);
}
