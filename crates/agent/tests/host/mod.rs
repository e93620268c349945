//! The agent injected into the test's own process, and its stubs called as functions.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "a failure to prepare is a failure of the test"
)]

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::fs;
use std::mem;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use leaktap_agent::layout::{
    Control, Descriptor, Header, KEYS, MAPPINGS, Module, Region, SPARES, STACKS, Thread, shared_key,
};
use leaktap_agent::mapping::Noted;
use leaktap_agent::queue::{Place, Queue};
use leaktap_agent::tally::Sum;
use leaktap_agent::{HEADER_LEN, STUB_LEN, Shape};
use leaktap_api::Action;
use leaktap_ledger::{self as ledger, FamilyId, Ledger};
use leaktap_memory::{Addr, Svma};
use leaktap_unwind::{CfiSections, Row, rows};
use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect};
use object::{Object, ObjectSection, ObjectSegment};

/// Bytes of the code region: image, then stubs.
const REGION_LEN: usize = 128 << 10;

/// Where in the region the stubs begin.
const STUBS: usize = 64 << 10;

/// Threads that a test may have: `KEYS << KEY_BITS`.
const KEY_BITS: u32 = 4;

/// Tables of blocks: 300,000 of them.
const TABLES: u32 = 3;

/// An agent, armed, in this process. Leaked: its code may be running.
pub(crate) struct Host {
    image: usize,
    control: usize,
    stubs: Mutex<usize>,
}

/// A block in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) at: usize,
    pub(crate) size: usize,
    pub(crate) frames: Vec<u64>,
    pub(crate) end: u8,
    pub(crate) kind: u16,
}

fn map(len: usize) -> NonNull<c_void> {
    let len = NonZeroUsize::new(len).unwrap();
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a new mapping.
    unsafe {
        mmap_anonymous(
            None,
            len,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            flags,
        )
    }
    .unwrap()
}

impl Host {
    pub(crate) fn new() -> Host {
        Host::with_depth(64)
    }

    pub(crate) fn with_depth(depth: u32) -> Host {
        let image = map(REGION_LEN);
        let text = leaktap_agent::text();
        assert!(HEADER_LEN as usize + text.len() <= STUBS);
        let code = image.as_ptr() as usize + HEADER_LEN as usize;
        // SAFETY: within the new mapping; text and stubs are two pages or more.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), code as *mut u8, text.len());
            let code = NonNull::new(code as *mut c_void).unwrap();
            let len = REGION_LEN - HEADER_LEN as usize;
            mprotect(code, len, ProtFlags::PROT_READ | ProtFlags::PROT_EXEC).unwrap();
            madvise(image, HEADER_LEN as usize, MmapAdvise::MADV_WIPEONFORK).unwrap();
        }
        let image = image.as_ptr() as usize;
        let control = control(image, depth);
        let host = Host {
            image,
            control,
            stubs: Mutex::new(image + STUBS),
        };
        host.header().control.store(control as u64, Release);
        host
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the first page of the image.
        unsafe { &*(self.image as *const Header) }
    }

    pub(crate) fn control(&self) -> &Control {
        // SAFETY: made by `control`, never unmapped.
        unsafe { &*(self.control as *const Control) }
    }

    pub(crate) fn ledger(&self) -> Ledger<'_> {
        // SAFETY: made by `control`, never unmapped.
        unsafe { Ledger::at(self.control().ledger as *mut u8, TABLES) }
    }

    /// State of the calling thread, after its first call of a stub.
    pub(crate) fn thread(&self) -> &Thread {
        let fs: u64;
        // SAFETY: glibc keeps the fs base there.
        unsafe { std::arch::asm!("mov {}, fs:0", out(reg) fs) };
        let keys = KEYS << KEY_BITS;
        // SAFETY: made by `control`.
        let keys = unsafe { std::slice::from_raw_parts(self.control().keys as *const u64, keys) };
        let index = keys
            .iter()
            .position(|&key| key == fs)
            .expect("the thread is known");
        // SAFETY: as above.
        unsafe { &*(self.control().threads as *const Thread).add(index) }
    }

    /// Whether a signal handler has allocated while it interrupted the agent.
    pub(crate) fn has_used_spares(&self) -> bool {
        let threads = self.control().threads as *const Thread;
        // SAFETY: made by `control`; the spares come last.
        unsafe { (*threads.add(KEYS << KEY_BITS)).index.load(Relaxed) != 0 }
    }

    /// A detour of `original`: what its patched first instruction would jump to. Every other one is
    /// a full one.
    pub(crate) fn probe(&self, original: usize, action: Action) -> usize {
        let made = (*self.stubs.lock().unwrap() - self.image - STUBS) / STUB_LEN;
        let shape = match (action == Action::FREE, made % 2) {
            (true, 0) => Shape::Before,
            (true, _) => Shape::FullBefore,
            (false, 0) => Shape::Around,
            (false, _) => Shape::FullAround,
        };
        self.stub(shape, original, original, action)
    }

    pub(crate) fn stub(&self, shape: Shape, original: usize, call: usize, action: Action) -> usize {
        let mut next = self.stubs.lock().unwrap();
        let at = *next;
        *next += STUB_LEN.next_multiple_of(16);
        let descriptor = Descriptor {
            original: original as u64,
            call: call as u64,
            action,
            kind: 7,
            family: FamilyId::FIRST,
        };
        let (at_addr, image) = (Addr::new(at as u64), Addr::new(self.image as u64));
        let code = leaktap_agent::stub(at_addr, image, shape, &descriptor);
        write_code(at, &code);
        at
    }

    /// The calls that have mapped something, as they were noted from position `from` on.
    pub(crate) fn noted(&self, from: u64) -> Vec<Noted> {
        let queue = self.mappings();
        let words = (from..).map_while(|at| queue.take(at));
        words.map(Noted::from_words).collect()
    }

    pub(crate) fn mappings(&self) -> Queue<'_> {
        let places = self.control().mappings as *const Place;
        Queue {
            next: &self.control().told.noted,
            // SAFETY: made by `control`.
            places: unsafe { std::slice::from_raw_parts(places, MAPPINGS) },
        }
    }

    pub(crate) fn live(&self) -> Vec<Live> {
        live(self.ledger())
    }

    /// The block at `at`, which must be there.
    pub(crate) fn block(&self, at: usize) -> Live {
        let found = self.live().into_iter().find(|live| live.at == at);
        found.expect("the block is in the ledger")
    }

    pub(crate) fn has(&self, at: usize) -> bool {
        self.live().iter().any(|live| live.at == at)
    }

    pub(crate) fn unmatched_frees(&self) -> u64 {
        self.ledger().totals(FamilyId::FIRST).unmatched_frees
    }

    pub(crate) fn losses(&self) -> u64 {
        self.control()
            .told
            .losses
            .iter()
            .map(|count| count.load(Acquire))
            .sum()
    }

    /// True of an address in the agent's code or stubs.
    pub(crate) fn owns(&self, ip: u64) -> bool {
        (self.image as u64..(self.image + REGION_LEN) as u64).contains(&ip)
    }

    /// As the tracer does when it finds a thread: the calling thread's own stack is known from now
    /// on.
    pub(crate) fn knows_this_stack(&self) {
        let here = &raw const self as u64;
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let bounds = |line: &str| {
            let (start, end) = line.split_whitespace().next()?.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            Some((number(start)?, number(end)?))
        };
        let mut all = maps.lines().filter_map(bounds);
        let (start, end) = all
            .find(|(start, end)| (*start..*end).contains(&here))
            .unwrap();
        let table: &'static [u64; 3] = Box::leak(Box::new([2, start, end]));
        self.control().live.publish_stacks(table.as_ptr() as u64);
    }

    /// As the tracer does when another thread has the same fs base.
    pub(crate) fn share_this_thread(&self) {
        let fs: u64;
        // SAFETY: glibc keeps the fs base there.
        unsafe { std::arch::asm!("mov {}, fs:0", out(reg) fs) };
        let len = KEYS << KEY_BITS;
        // SAFETY: made by `control`; atomic words.
        let keys =
            unsafe { std::slice::from_raw_parts(self.control().keys as *const AtomicU64, len) };
        let mine = keys
            .iter()
            .find(|key| key.load(Relaxed) == fs)
            .expect("it is known");
        mine.store(shared_key(fs), Relaxed);
    }

    /// As the tracer does at dlopen.
    pub(crate) fn change_rows(&self) {
        self.control().live.generation.fetch_add(1, Release);
    }
}

/// Writes through /proc/self/mem, as the tracer does.
fn write_code(at: usize, code: &[u8]) {
    use std::os::unix::fs::FileExt;
    let memory = fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/mem")
        .unwrap();
    memory.write_all_at(code, at as u64).unwrap();
}

fn control(image: usize, depth: u32) -> usize {
    let at = map(mem::size_of::<Control>()).as_ptr();
    let keys = KEYS << KEY_BITS;
    // SAFETY: zeroed memory is a Control.
    let control = unsafe { &mut *(at as *mut Control) };
    control.ledger = new_ledger() as u64;
    control.tables = TABLES;
    control.keys = map(keys * 8).as_ptr() as u64;
    control.threads = map((keys + SPARES) * mem::size_of::<Thread>()).as_ptr() as u64;
    control.mappings = map(MAPPINGS * mem::size_of::<Place>()).as_ptr() as u64;
    control.sums = map(STACKS * mem::size_of::<Sum>()).as_ptr() as u64;
    control.key_bits = KEY_BITS;
    control.process = std::process::id();
    control.depth = depth;
    control.live.kernel.store(1, Relaxed);
    control.regions[0] = Region {
        start: image as u64,
        end: (image + REGION_LEN) as u64,
    };
    control.region_count = 1;
    control.inside_of[0] = !0;
    control.inside[0] = Region {
        start: 0,
        end: u64::MAX,
    };
    control.live.modules.publish(modules(image));
    at as usize
}

/// Address of a table of the rows of every file mapped here, and of the agent.
fn modules(image: usize) -> u64 {
    let mut modules: Vec<Module> = files()
        .iter()
        .filter_map(|(path, start, end)| {
            let bytes = fs::read(path).ok()?;
            let file = object::File::parse(&*bytes).ok()?;
            let first = file.segments().map(|s| s.address()).min()? & !0xfff;
            let section = file.section_by_name(".eh_frame")?;
            let sections = CfiSections {
                base: Svma(first),
                eh_frame: Some((Svma(section.address()), section.data().ok()?)),
                ..CfiSections::default()
            };
            Some(module(*start, *end, *start, rows(&sections).rows))
        })
        .collect();
    let (at, bytes) = leaktap_agent::eh_frame();
    let sections = CfiSections {
        eh_frame: Some((at, bytes)),
        ..CfiSections::default()
    };
    modules.push(module(
        image,
        image + REGION_LEN,
        image,
        rows(&sections).rows,
    ));
    modules.sort_by_key(|module| module.range.start);
    let entries = modules.iter().flat_map(Module::words);
    let mut table = vec![5 * modules.len() as u64];
    table.extend(entries);
    table.leak().as_ptr() as u64
}

fn module(start: usize, end: usize, base: usize, rows: Vec<Row>) -> Module {
    let rows: &'static [Row] = rows.leak();
    Module {
        range: Region {
            start: start as u64,
            end: end as u64,
        },
        base: base as u64,
        rows: rows.as_ptr() as u64,
        len: rows.len() as u64,
    }
}

/// Path, first and last address of each mapped file.
fn files() -> Vec<(String, usize, usize)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mapping = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let path = fields.nth(4).filter(|path| path.starts_with('/'))?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((path.to_owned(), number(start)?, number(end)?))
    };
    let all: Vec<_> = maps.lines().filter_map(mapping).collect();
    let paths: BTreeSet<_> = all.iter().map(|(path, ..)| path.clone()).collect();
    let spans = paths.into_iter().map(|path| {
        let mine = || all.iter().filter(|(p, ..)| *p == path);
        let start = mine().map(|(_, start, _)| *start).min().unwrap();
        let end = mine().map(|(.., end)| *end).max().unwrap();
        (path, start, end)
    });
    spans.collect()
}

/// The caller's stack as backtrace(3) has it: return addresses, the first one in the caller.
#[inline(never)]
pub(crate) fn backtrace() -> Vec<u64> {
    let mut frames = [std::ptr::null_mut(); 128];
    // SAFETY: the array is as long as said.
    let len = unsafe { libc::backtrace(frames.as_mut_ptr(), 128) };
    frames[1..len as usize]
        .iter()
        .map(|&frame| frame as u64)
        .collect()
}

fn new_ledger() -> usize {
    map(ledger::reserved(TABLES)).as_ptr() as usize
}

fn live(ledger: Ledger<'_>) -> Vec<Live> {
    let live = |block: ledger::Block| {
        let mut frames = Vec::new();
        let kept = ledger
            .stack(block.stack, |frame| frames.push(frame))
            .unwrap();
        Live {
            at: block.key.addr() as usize,
            size: block.size as usize,
            frames,
            end: kept.end,
            kind: kept.kind,
        }
    };
    ledger.live().map(live).collect()
}
