//! The memory that the agent and the tracer share, word for word. Compiled into both.
//!
//! All of it starts out zeroed. The other end may write at any moment what it may write: each
//! field says who that is. The tracer believes nothing that it reads here.

use core::cell::Cell;
use core::mem::offset_of;
use core::sync::atomic::Ordering::Release;
use core::sync::atomic::{AtomicU32, AtomicU64};

use leaktap_api::{Action, Nested};
use leaktap_arch::BREAKPOINT;
use leaktap_ledger::{FamilyId, Near, StackId, Trail};
use leaktap_memory::{GOLDEN, PAGE};
use leaktap_unwind::{Frame, Memo, Remembered};

use crate::moving::{MOVING, MOVING_WORDS};
use crate::published::Published;
use crate::tally::Tally;

/// Nested calls that a thread remembers.
pub const NESTED: usize = 128;

/// Most frames of a stack.
pub const MAX_DEPTH: usize = 256;

/// Quads of words that a thread remembers of its walks: 6 for a walk of 16 frames.
pub const MEMO_QUADS: usize = 32 << 10;

/// Sets of slots by which they are found.
pub const MEMO_SETS: usize = 1024;

/// Areas of the heap of which a thread remembers where in the ledger their blocks are: 32 MiB.
pub const NEARS: usize = 512;

/// Sets of two pairs of who allocated a block and who freed it that a thread remembers to have
/// told.
pub const PAIRS_TOLD: usize = 1024;

/// In [`Live::wanted`]: pairs of who allocated a block and who freed it.
pub const PAIRS: u32 = 1;

/// In [`Live::wanted`]: the stack of each free.
pub const FREE_STACKS: u32 = 2;

/// In [`Live::wanted`]: all calls were seen, so that what is no block never was one, or is none any
/// more.
pub const ALL_SEEN: u32 = 4;

/// Of a stack that no allocation has.
pub const NO_FUNCTION: u8 = u8::MAX;

/// What the ledger keeps of who allocated: a function, by number, and the heap that the block is
/// in. A stack so is of one heap.
#[inline]
pub const fn kind(function: u8, family: FamilyId) -> u16 {
    (family.number() as u16) << u8::BITS | function as u16
}

/// The function of such a kind.
#[inline]
pub const fn function(kind: u16) -> u8 {
    kind as u8
}

/// Bits of a kind.
pub const KIND_BITS: u32 = u8::BITS + FamilyId::MOST.ilog2();

/// Rules that a thread remembers by pc.
pub const CACHED_RULES: usize = 4096;

/// Threads that share a cache line of keys.
pub const KEYS: usize = 8;

/// In place of the key of a thread: several threads have this fs base (clone(2) without
/// CLONE_SETTLS). They would write to one state at the same time, so each has one by its number,
/// [`key_of_number`].
#[inline]
pub const fn shared_key(fs: u64) -> u64 {
    fs | 1
}

/// The key of a thread by its number (gettid(2)): no fs base is as high.
#[inline]
pub const fn key_of_number(tid: u32) -> u64 {
    1 << 63 | tid as u64
}

/// Which set of keys a thread's is in, by its fs base: of `1 << key_bits` ones.
#[inline]
pub const fn set_of_keys(fs: u64, key_bits: u32) -> usize {
    let hash = fs.wrapping_mul(GOLDEN);
    hash.wrapping_shr(key_bits.wrapping_neg()) as usize
}

/// Words of another stack that are copied at a time.
pub const WINDOW: usize = 128;

/// Binary logarithm of the bytes of a page.
const PAGE_BITS: u32 = PAGE.ilog2();

/// Words of bits for the pages of a stack that were found readable: 2 MiB from its end down.
pub const OPEN: usize = 8;

/// Calls of a thread that are on record though another one runs.
pub const UNRETURNED: usize = 32;

/// Work areas for signal handlers that allocate while they interrupt the agent.
pub const SPARES: usize = 8;

/// Most code regions of a process.
pub const REGIONS: usize = 16;

/// Most ranges of [`Control::inside`].
pub const INSIDE: usize = 32;

/// Most modules of [`Control::system`].
pub const SYSTEM: usize = 16;

/// Stacks that have numbers.
pub const STACKS: usize = StackId::MOST;

/// Calls of mmap(2) and its kin that may be noted and not be read yet: 8 MiB of notes.
pub const MAPPINGS: usize = 128 << 10;

/// [`Live::served`] while the tracer is there. The first byte is a breakpoint's: the guard, which
/// takes these out after a tracer that was killed, says so that the tracer has gone.
pub const SERVED: u32 = BREAKPOINT as u32;

/// In [`Live::leaving`]: all threads.
pub const ALL: u64 = u64::MAX;

/// Marks [`Thread::outer`] while the agent works for the thread.
pub const BUSY: u64 = 1;

/// The same where the agent was interrupted: a signal handler has called a function since, which
/// runs.
pub const UNDER: u64 = 2;

/// The thread's state may be half written: it is not for a signal handler.
pub const TAKEN: u64 = BUSY | UNDER;

/// The tracer has noted the call: its function has an int3, and no detour.
pub const NOTED: u64 = 1 << 63;

/// All marks of [`Thread::outer`].
pub const MARKS: u64 = TAKEN | NOTED;

/// [`Thread::outer`] while a call runs whose return address is at `sp`; before that it was
/// `before`.
#[inline]
pub const fn running(sp: u64, before: u64) -> u64 {
    if before & TAKEN == 0 { sp } else { sp | UNDER }
}

/// The first page of a code region, private to the process.
///
/// It is wiped in a forked child (`MADV_WIPEONFORK`, madvise(2)), where the detours so become
/// mere detours: all else that the agent needs is not even mapped there (`MADV_DONTFORK`).
#[repr(C)]
pub struct Header {
    /// Address of the [`Control`], or 0: pass everything through. Written by the tracer.
    pub control: AtomicU64,
}

/// What the agent needs to know, and what it has to say.
#[repr(C, align(64))]
pub struct Control {
    /// Address of the ledger. This and what follows up to `regions` is written by the tracer
    /// before the first probe is armed, and constant then.
    pub ledger: u64,
    /// Address of the keys of threads: `KEYS << key_bits` fs bases, 0 where there is none.
    pub keys: u64,
    /// Address of as many [`Thread`]s, and [`SPARES`] more.
    pub threads: u64,
    /// Address of room for [`MAPPINGS`] notes: see [`Queue`](crate::queue::Queue).
    pub mappings: u64,
    /// Address of the [`Sum`](crate::tally::Sum)s of stacks, [`STACKS`] of them.
    pub sums: u64,
    /// Where the C library notes the end of the heap segment, or 0.
    pub current_break: u64,
    /// Binary logarithm of the number of sets of [`KEYS`] keys, 1 or more.
    pub key_bits: u32,
    /// Tables of blocks that the ledger may open.
    pub tables: u32,
    /// The process, as it sees itself (getpid(2)).
    pub process: u32,
    /// Frames to keep of a stack, at most [`MAX_DEPTH`].
    pub depth: u32,
    /// How many of `regions` there are.
    pub region_count: u32,
    /// Where the agent's code is: frames there are not the program's.
    pub regions: [Region; REGIONS],
    /// By family, glibc's malloc.o: what it calls of the family is no call of the program's, even
    /// with nothing running. Empty for others.
    pub allocators: [Region; FamilyId::MOST],
    /// Modules of the allocators and of the C library: a call from elsewhere, but for `regions`, is
    /// the program's own, though made while another one runs. Unused ones are empty.
    pub inside: [Region; INSIDE],
    /// The families, a bit each, of whose functions this holds for each of `inside`: a pool that
    /// calls malloc is no part of that.
    pub inside_of: [u32; INSIDE],
    /// The C library, the dynamic linker and the allocator, where they are not part of the
    /// program's own module. Unused ones are empty.
    pub system: [Region; SYSTEM],
    /// Written by the tracer at any time.
    pub live: Live,
    /// Written by the agent.
    pub told: Told,
}

/// Addresses from `start` to before `end`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Region {
    /// The first.
    pub start: u64,
    /// Behind the last.
    pub end: u64,
}

impl Region {
    /// True of an address in it.
    #[inline]
    pub const fn contains(&self, at: u64) -> bool {
        at.wrapping_sub(self.start) < self.end.wrapping_sub(self.start)
    }
}

/// What the tracer changes while the agent runs.
#[repr(C, align(64))]
pub struct Live {
    /// Modules with unwind rows, and the agent itself: [`Module`]s.
    pub modules: Published,
    /// Stacks of threads, readable up to the end: [`Region`]s.
    pub stacks: Published,
    /// Changes after `modules` did: what was remembered of the old rules is void.
    pub generation: AtomicU32,
    /// Changes before memory that may have been a stack is unmapped. The agent changes it, too.
    pub ranges: AtomicU32,
    /// 1 if the agent may make system calls. 0 in a process with a seccomp filter, which might
    /// kill it.
    pub kernel: AtomicU32,
    /// 1 if mmap, munmap, mremap, mprotect and madvise of the C library all have detours: what was
    /// readable is until `ranges` changes.
    pub sees_closing: AtomicU32,
    /// Milliseconds since the ledger's epoch, as of the last time the tracer looked at a clock.
    pub clock: AtomicU32,
    /// What is to be known of frees: [`PAIRS`], [`FREE_STACKS`], [`ALL_SEEN`].
    pub wanted: AtomicU32,
    /// How many of [`Told::changes`] the tracer has seen. A futex, futex(2).
    pub seen: AtomicU32,
    /// The fs base of a thread that the tracer takes out of the agent, or [`ALL`] for all of them:
    /// it waits for nobody. 0 while there is none.
    pub leaving: AtomicU64,
    /// [`SERVED`] while the tracer is waited for to see them: it says so, and whoever has waited
    /// for it in vain takes that back.
    pub served: AtomicU32,
}

impl Live {
    /// Gives the agent another table of modules: see [`Published::publish`]. Whoever sees the new
    /// generation sees it.
    pub fn publish_modules(&self, at: u64) {
        self.modules.publish(at);
        self.generation.fetch_add(1, Release);
    }

    /// The same for stacks.
    pub fn publish_stacks(&self, at: u64) {
        self.stacks.publish(at);
        self.ranges.fetch_add(1, Release);
    }
}

/// What the agent tells the tracer.
#[repr(C, align(64))]
pub struct Told {
    /// Calls that were seen and are not in the ledger, by [`Loss`].
    pub losses: [AtomicU64; LOSSES],
    /// How many calls of mmap(2) and its kin were noted: the position of the next.
    pub noted: AtomicU64,
    /// How often there was something for the tracer to see: the dynamic linker was about to change
    /// its list of modules, or had done so; or a note says what. A futex, futex(2).
    pub changes: AtomicU32,
}

/// Why a call is not in the ledger.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The thread has no fs base, or there are more threads than keys.
    NoThread = 0,
    /// Too many signal handlers interrupted the agent at the same time.
    NoSpare = 1,
    /// The ledger's last table is full.
    Full = 2,
    /// A throwing operator new that succeeded only after its twin had failed.
    Retried = 3,
    /// Mappings were made, or unmade, faster than the tracer reads.
    Unread = 4,
}

/// How many kinds of [`Loss`] there are.
pub const LOSSES: usize = 5;

/// A module of the process, or the agent itself.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Where it is.
    pub range: Region,
    /// What its rows count from.
    pub base: u64,
    /// Address of its [`leaktap_unwind::Row`]s.
    pub rows: u64,
    /// How many rows.
    pub len: u64,
}

impl Module {
    /// As an entry of [`Live::modules`].
    pub const fn words(&self) -> [u64; 5] {
        let Region { start, end } = self.range;
        [start, end, self.base, self.rows, self.len]
    }

    /// The same back.
    #[inline]
    pub const fn from_words([start, end, base, rows, len]: [u64; 5]) -> Module {
        let range = Region { start, end };
        Module {
            range,
            base,
            rows,
            len,
        }
    }
}

/// What the agent keeps for each thread; written by that thread alone.
#[repr(C, align(64))]
pub struct Thread {
    /// Stack pointer at the entry of the outermost call that is running, 0 if none is; with
    /// [`MARKS`]. Of a spare: 1 while it is in use.
    pub outer: AtomicU64,
    /// [`Key`](leaktap_ledger::Key) of the block that the last call inside another one has
    /// returned, 0 if that one is over: it may be handed on.
    pub handed: AtomicU64,
    /// Which one this is: whose counters are its own.
    pub index: AtomicU32,
    /// Calls that have not returned, but the one of `outer`.
    pub unreturned: Unreturned,
    /// What calls that reallocate have taken out of the ledger: [`Moving`](crate::moving::Moving).
    pub moving: [[AtomicU64; MOVING_WORDS]; MOVING],
    /// Where a function was called that a user has told of: stack pointer at its entry, 0 if none
    /// is running, and return address there. What it maps is its own. Written by the tracer.
    pub pool: [AtomicU64; 2],
    /// What is known of the thread's stack.
    pub stack: Known,
    /// What its stacks have allocated.
    pub tally: Tally,
    /// Calls that were part of the one of `outer`.
    pub nested: Nested<NESTED>,
    /// Frames of the walk at hand.
    pub frames: [Frame; MAX_DEPTH],
    /// Areas of the heap, by number.
    pub nears: [Near; NEARS],
    /// Pairs that it has told, by their hash.
    pub pairs: [[AtomicU64; 2]; PAIRS_TOLD],
    /// What was read without trust.
    pub window: Window,
    /// Where in the ledger's tree the last new stack was.
    pub trail: Trail<{ MAX_DEPTH + 1 }>,
    /// Rules by pc.
    pub rules: [Remembered; CACHED_RULES],
    /// Walks.
    pub walks: Memo<MEMO_SETS, MEMO_QUADS>,
}

/// Marks a call of [`Unreturned`] that a walk has not met: it was left by longjmp(3), most likely.
pub const MAYBE_OVER: u64 = 1;

/// Calls that had not returned when another one began in the thread: in a signal handler, on
/// another stack, or after longjmp(3), which most often means that they never will. With
/// [`Thread::outer`], the record of all return addresses that the agent has put on stacks.
#[repr(C)]
pub struct Unreturned {
    /// How many of `calls` are not 0.
    pub len: AtomicU32,
    /// 1 once there was no place for one more.
    pub is_incomplete: AtomicU32,
    /// Stack pointers at their entries, or 0; with [`MAYBE_OVER`].
    pub calls: [AtomicU64; UNRETURNED],
}

impl Thread {
    /// Bytes of a thread's state that [`Thread::running`] looks at, from its beginning.
    pub const HEAD_LEN: usize = offset_of!(Thread, moving);

    /// Stack pointers at the entries of all calls that may return to the agent, from the first
    /// bytes of a thread's state as they were read; false behind them if there may be more.
    pub fn running(head: &[u8; Thread::HEAD_LEN]) -> (impl Iterator<Item = u64> + '_, bool) {
        const CALLS: usize = offset_of!(Thread, unreturned) + offset_of!(Unreturned, calls);
        const INCOMPLETE: usize =
            offset_of!(Thread, unreturned) + offset_of!(Unreturned, is_incomplete);
        let word = |bytes: &[u8]| {
            bytes
                .first_chunk()
                .map_or(0, |word| u64::from_le_bytes(*word))
        };
        let outer = head.get(offset_of!(Thread, outer)..).map_or(0, word);
        let calls = head.get(CALLS..).unwrap_or_default().chunks_exact(8);
        let calls = calls.map(move |bytes| word(bytes) & !MAYBE_OVER);
        let all = core::iter::once(outer & !MARKS).chain(calls);
        let complete = head.get(INCOMPLETE..INCOMPLETE + 4) == Some(&[0; 4]);
        (all.filter(|sp| *sp != 0), complete)
    }
}

/// What a thread has read of memory that might not have been there.
#[repr(C)]
pub struct Window {
    /// What was copied last, of another stack or of this one.
    pub words: [Cell<u64>; WINDOW],
    /// The end of the stack, and [`Live::ranges`], that `open` is of.
    pub of: [Cell<u64>; 2],
    /// A bit for each page of that stack that was found readable, from its end down.
    pub open: [Cell<u64>; OPEN],
}

impl Window {
    /// The word with the bit of the page at `at`, and the bit; nothing if there is none, or `at` is
    /// not below `end`.
    #[inline]
    pub fn page(&self, at: u64, end: u64) -> Option<(&Cell<u64>, u64)> {
        let last = end.checked_sub(1)? >> PAGE_BITS;
        let page = last.checked_sub(at >> PAGE_BITS)?;
        let word = self.open.get(page as usize / 64)?;
        Some((word, 1 << (page % 64)))
    }
}

/// The thread's own stack, where the thread was on that the last time: from `low` to `high`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The first byte.
    pub low: u64,
    /// Behind the last byte.
    pub high: u64,
    /// [`Live::ranges`] when this was found out. (As wide as the others, so that a copy is made
    /// of whole words.)
    pub ranges: u64,
}

impl Known {
    /// The thread was on another one.
    pub const NOTHING: Known = Known {
        low: 0,
        high: 0,
        ranges: 0,
    };
}

/// What a stub tells the agent of its probe; lies behind the stub's code.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The displaced instructions of the probed function.
    pub original: u64,
    /// What to call in its place: the same, or those of a twin that does not throw.
    pub call: u64,
    /// What a call does.
    pub action: Action,
    /// What the ledger keeps of who allocated: see [`kind`].
    pub kind: u16,
    /// Which heap the function is of.
    pub family: FamilyId,
}

impl Descriptor {
    /// The words as they lie in memory.
    pub fn to_bytes(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let words = [
            self.original,
            self.call,
            u64::from(self.action.bits())
                | u64::from(self.kind) << 32
                | (self.family.number() as u64) << 48,
        ];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// For [`Call::moving`]: none.
pub const NOT_MOVING: u64 = u64::MAX;

/// Arguments of a call that are kept.
pub const ARGUMENTS: u32 = 3;

/// A call of a probed function whose original is called: lies right below its return address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Which of [`Thread::moving`] is its own, if it reallocates, or [`NOT_MOVING`]. If it maps,
    /// which note was next when it began; of brk(2), where the heap segment ended.
    pub moving: u64,
    /// Address of the thread's [`Thread`].
    pub thread: u64,
    /// [`Thread::outer`] to put back when the call returns.
    pub before: u64,
    /// rdi, rsi, rdx.
    pub arguments: [u64; ARGUMENTS as usize],
    /// Address of its [`Descriptor`].
    pub descriptor: u64,
}

impl Call {
    /// Bytes from a call to the return address behind it.
    pub const LEN: usize = size_of::<Call>();

    /// Where the original's return address to the agent is, for a call that was entered with its
    /// own at `entry_sp`.
    pub const fn return_slot(entry_sp: u64) -> u64 {
        entry_sp.wrapping_sub(Call::LEN as u64 + 8)
    }
}
