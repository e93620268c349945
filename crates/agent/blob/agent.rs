//! What the agent finds through the header page.

use core::arch::{asm, global_asm};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, compiler_fence};

use crate::frees::Freeing;
use crate::kernel;
use crate::layout::{
    Control, Header, KEYS, Loss, SPARES, TAKEN, Thread, key_of_number, set_of_keys, shared_key,
};
use leaktap_ledger::{FamilyId, Freed, Key, Ledger};

// The first page of the image, see `blob.ld`.
global_asm!(
    ".pushsection .header, \"aw\", @nobits",
    ".globl leaktap_header",
    ".hidden leaktap_header",
    "leaktap_header: .zero 4096",
    ".popsection",
);

/// The header page of the code region that this runs in. By hand, because a `static` that is
/// defined elsewhere would be looked up in a global offset table.
#[inline]
fn header() -> &'static Header {
    let header: *const Header;
    // SAFETY: the page before the code is mapped, and all zeroes or filled by the tracer.
    unsafe {
        asm!(
            "lea {}, [rip + leaktap_header]",
            out(reg) header,
            options(pure, nomem, nostack, preserves_flags),
        );
        &*header
    }
}

/// The agent of an armed process.
#[derive(Clone, Copy)]
pub(crate) struct Agent {
    pub(crate) control: &'static Control,
}

impl Agent {
    /// Nothing in a process that is not, or no longer, traced: a forked child.
    #[inline]
    pub(crate) fn present() -> Option<Agent> {
        let control = header().control.load(Relaxed) as *const Control;
        // SAFETY: the tracer writes the address of a mapped Control, which stays mapped while any
        // thread is in the agent, or 0.
        let control = unsafe { control.as_ref()? };
        Some(Agent { control })
    }

    /// The state of the thread with `fs` as its fs base, which is this one, if no traced call is
    /// running in it and it has just entered one of `family` that is the program's own. Nothing if
    /// that takes a closer look.
    #[inline(always)]
    pub(crate) fn idle_thread(self, fs: u64, family: FamilyId, sp: u64) -> Option<*mut Thread> {
        let (set, [first, ..]) = self.keys(fs);
        if first.load(Relaxed) != fs || fs == 0 || self.is_from_allocator(family, sp) {
            return None;
        }
        let thread = self.thread_at(set * KEYS);
        (outer(thread) == 0).then_some(thread)
    }

    /// True if the call of a function of `family` that was entered with its return address at `sp`
    /// is that glibc's malloc.o's.
    #[inline(always)]
    pub(crate) fn is_from_allocator(self, family: FamilyId, sp: u64) -> bool {
        // SAFETY: the call instruction has just written the return address there.
        let caller = unsafe { *(sp as *const u64) };
        let code = self.control.allocators.get(family.number());
        code.is_some_and(|code| code.contains(caller))
    }

    /// The keys among which `fs` is to be found, and which set of them that is.
    #[inline(always)]
    fn keys(self, fs: u64) -> (usize, &'static [AtomicU64; KEYS]) {
        let set = set_of_keys(fs, self.control.key_bits);
        // SAFETY: there are `1 << key_bits` sets of keys, and `set` is below that.
        let keys = unsafe { &*(self.control.keys as *const [AtomicU64; KEYS]).add(set) };
        (set, keys)
    }

    /// The state of the thread with `fs` as its fs base, which is this one.
    ///
    /// Several threads may be after the same free key: the exchange decides. The state behind a
    /// key was zeroed before the key was.
    pub(crate) fn thread(self, fs: u64) -> Option<*mut Thread> {
        if fs == 0 {
            return None;
        }
        let (set, keys) = self.keys(fs);
        let shared = shared_key(fs);
        if fs != shared && keys.iter().any(|key| key.load(Relaxed) == shared) {
            return self.thread_by_number();
        }
        let mine = |key: &AtomicU64| key.load(Relaxed) == fs;
        let take = |key: &AtomicU64| key.compare_exchange(0, fs, Acquire, Relaxed).is_ok();
        let way = keys
            .iter()
            .position(mine)
            .or_else(|| keys.iter().position(take))?;
        Some(self.numbered(set * KEYS + way))
    }

    /// The state of this thread, whose fs base others have, too. Nothing where system calls are not
    /// allowed.
    #[cold]
    fn thread_by_number(self) -> Option<*mut Thread> {
        let is_allowed = self.control.live.kernel.load(Relaxed) == 1;
        is_allowed.then(|| self.thread(key_of_number(kernel::number())))?
    }

    /// A state that now knows its number.
    fn numbered(self, index: usize) -> *mut Thread {
        let thread = self.thread_at(index);
        // SAFETY: it exists, and is this thread's.
        unsafe { (*thread).index.store(index as u32, Relaxed) };
        thread
    }

    /// The ledger.
    #[inline]
    pub(crate) fn ledger(self) -> Ledger<'static> {
        // SAFETY: the tracer maps as many tables there before it arms the first probe, and keeps
        // them mapped while any thread is in the agent.
        unsafe { Ledger::at(self.control.ledger as *mut u8, self.control.tables) }
    }

    /// A state that nobody else uses: the thread's own, unless a signal handler has interrupted
    /// the agent at work on it. To be given back by [`Agent::done`]; nothing if there is none.
    pub(crate) fn state(self, thread: *mut Thread, before: u64) -> Option<*mut Thread> {
        if before & TAKEN == 0 {
            Some(thread)
        } else {
            self.spare()
        }
    }

    /// The work on `state` is done.
    pub(crate) fn done(self, state: *mut Thread, before: u64) {
        if before & TAKEN != 0 {
            give_back(state);
        }
    }

    /// Takes a block out of the ledger, before it is really freed. Nothing if that could not be
    /// done.
    pub(crate) fn freed(self, thread: *mut Thread, before: u64, free: &Freeing) -> Option<Freed> {
        let state = self.state(thread, before)?;
        let freed = self.freed_closely(state, free);
        self.remember_near(state, free.key);
        self.done(state, before);
        Some(freed)
    }

    #[cold]
    fn spare(self) -> Option<*mut Thread> {
        let first = KEYS << self.control.key_bits;
        // SAFETY: spares exist; `outer` is atomic.
        let take = |index: &usize| unsafe {
            let outer = &(*self.thread_at(*index)).outer;
            outer.compare_exchange(0, 1, Acquire, Relaxed).is_ok()
        };
        let Some(index) = (first..first + SPARES).find(take) else {
            self.lose(Loss::NoSpare);
            return None;
        };
        Some(self.numbered(index))
    }

    #[inline]
    fn thread_at(self, index: usize) -> *mut Thread {
        (self.control.threads as *mut Thread).wrapping_add(index)
    }

    /// Counts a call that will not be in the ledger.
    #[cold]
    pub(crate) fn lose(self, why: Loss) {
        if let Some(count) = self.control.told.losses.get(why as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// True of an address in the agent's own code.
    pub(crate) fn owns(self, ip: u64) -> bool {
        let regions = self
            .control
            .regions
            .iter()
            .take(self.control.region_count as usize);
        regions
            .into_iter()
            .any(|region| region.start <= ip && ip < region.end)
    }
}

/// A spare state is free again.
#[cold]
fn give_back(spare: *mut Thread) {
    // SAFETY: a spare exists while the agent is present.
    unsafe { (*spare).outer.store(0, Release) };
}

/// Says in the thread's state what it is doing.
///
/// Only this thread writes there, and the signal handlers that interrupt it: a plain store does,
/// as long as the compiler does not move work across it.
#[inline]
pub(crate) fn set_outer(thread: *mut Thread, outer: u64) {
    compiler_fence(core::sync::atomic::Ordering::SeqCst);
    // SAFETY: `thread` is the state of this thread, which exists while the agent is present.
    unsafe { (*thread).outer.store(outer, Relaxed) };
    compiler_fence(core::sync::atomic::Ordering::SeqCst);
}

/// What the thread is doing.
#[inline]
pub(crate) fn outer(thread: *mut Thread) -> u64 {
    // SAFETY: as for `set_outer`.
    unsafe { (*thread).outer.load(Relaxed) }
}

/// The block that a call inside the one that is returning has returned, if there was such a call.
#[inline(always)]
pub(crate) fn handed(thread: *mut Thread) -> Option<Key> {
    // SAFETY: as for `set_outer`.
    let handed = unsafe { (*thread).handed.load(Relaxed) };
    (handed != 0).then_some(Key::from_bits(handed))
}

/// A call has returned the block of `key`, inside the one that was running `before`.
pub(crate) fn hand(thread: *mut Thread, key: Key, before: u64) {
    let handed = if before & !TAKEN == 0 { 0 } else { key.bits() };
    // SAFETY: as for `set_outer`.
    unsafe { (*thread).handed.store(handed, Relaxed) };
}

/// Which counters are the thread's.
#[inline]
pub(crate) fn stripe(thread: *mut Thread) -> usize {
    // SAFETY: as for `set_outer`.
    unsafe { (*thread).index.load(Relaxed) as usize }
}
