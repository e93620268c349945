//! Reads of the thread's own memory that cannot fault.
//!
//! A stack is contiguous from the stack pointer up. Where the stacks of threads are the tracer says, and
//! for these no system call is made: a filter (seccomp(2)) that the program installs later might kill it for one.
//! What is known to be readable of another one (of a coroutine, of a signal handler) is kept as a
//! range of whole pages, found out page by page, once. Whatever a walk wants outside (where call frame
//! information is missing or wrong, nothing at all) is asked of the kernel each time.
//!
//! *Failure mode*: memory may be unmapped by another thread between the question and the read.
//! Nobody unmaps a stack in use; for what only looks like a stack this window remains.

use core::cell::Cell;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use leaktap_memory::{Addr, ReadMemory, Unreadable};

use crate::agent::Agent;
use crate::kernel;
use crate::layout::{Known, Region};

const PAGE: u64 = 4096;

/// Bytes that the known range grows by at once, to reach what a walk wants.
const LARGEST_STEP: u64 = 256 * PAGE;

/// The memory of this thread.
pub(crate) struct Stack {
    agent: Agent,
    low: Cell<u64>,
    high: Cell<u64>,
    ranges: u64,
}

/// Words from `sp` up that are known to be readable; nothing if that has to be found out.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    sp: *const AtomicU64,
    /// How many.
    pub(crate) len: u64,
}

impl Words {
    #[inline(always)]
    pub(crate) fn known(agent: Agent, known: &Known, sp: u64) -> Option<Words> {
        let ranges: u64 = agent.control.live.ranges.load(Acquire).into();
        let here = sp & 7 == 0 && sp >= known.low && sp < known.high;
        (here && ranges == known.ranges).then(|| Words {
            sp: sp as *const AtomicU64,
            len: (known.high - sp) / 8,
        })
    }

    /// Word `index`.
    ///
    /// # Safety
    /// It is one of them.
    #[inline(always)]
    pub(crate) unsafe fn get(self, index: u64) -> u64 {
        // SAFETY: aligned and readable, says the caller; atomic, because other threads may write there.
        unsafe { (*self.sp.wrapping_add(index as usize)).load(Relaxed) }
    }
}

impl Agent {
    /// Memory is about to be unmapped: what is known of stacks there is known no more.
    pub(crate) fn unmaps(self, start: u64, len: u64) {
        let live = &self.control.live;
        let mut last = start.saturating_add(len).checked_sub(1);
        // Stacks do not overlap: those below the first that does not reach there do not either, but for empty ones.
        while let Some(stack) = last.and_then(|last| stack_below(self, last)) {
            if start < stack.end {
                // SAFETY: as in `stack_below`.
                unsafe { live.stacks.empty([stack.start, stack.end]) };
            }
            last = stack.start.checked_sub(1).filter(|_| start < stack.start);
        }
        live.ranges.fetch_add(1, AcqRel);
    }
}

/// The stack of a thread that begins at `at`, or next below.
pub(crate) fn stack_below(agent: Agent, at: u64) -> Option<Region> {
    // SAFETY: the tracer publishes stacks, in memory that it never unmaps while threads are in the agent.
    let [start, end] = unsafe { agent.control.live.stacks.find(at) }?;
    Some(Region { start, end })
}

impl Stack {
    /// The stack at `sp`, where the processor has just read or written a word; `known` is what
    /// was found out before.
    #[inline]
    pub(crate) fn new(agent: Agent, known: Known, sp: u64) -> Stack {
        let ranges = agent.control.live.ranges.load(Acquire).into();
        let stack = Stack {
            agent,
            low: Cell::new(known.low),
            high: Cell::new(known.high),
            ranges,
        };
        if ranges != known.ranges || sp < known.low || sp >= known.high {
            stack.discover(sp, ranges == known.ranges);
        }
        stack
    }

    /// What is known now, to be kept for the next time.
    #[inline]
    pub(crate) fn known(&self) -> Known {
        Known {
            low: self.low.get(),
            high: self.high.get(),
            ranges: self.ranges,
        }
    }

    #[cold]
    fn discover(&self, sp: u64, still_good: bool) {
        if let Some(stack) = self.known_stack(sp) {
            self.low.set(sp & !(PAGE - 1));
            self.high.set(stack.end);
            return;
        }
        let page = sp & !(PAGE - 1);
        let (low, high) = (self.low.get(), self.high.get());
        let near = still_good && sp < low && low - sp <= LARGEST_STEP;
        let grown = near && self.are_readable(page.wrapping_add(PAGE), low) == low;
        self.low.set(page);
        self.high
            .set(if grown { high } else { page.wrapping_add(PAGE) });
    }

    /// How far the pages from `from` are readable, at most to `to`.
    fn are_readable(&self, from: u64, to: u64) -> u64 {
        let mut page = from;
        while page < to && self.is_readable(page) {
            page = page.wrapping_add(PAGE);
        }
        page
    }

    fn is_readable(&self, at: u64) -> bool {
        let live = &self.agent.control.live;
        self.known_stack(at).is_some() || live.kernel.load(Relaxed) == 1 && kernel::is_readable(at)
    }

    /// The stack of a thread that `at` is in.
    fn known_stack(&self, at: u64) -> Option<Region> {
        stack_below(self.agent, at).filter(|stack| stack.contains(at))
    }

    #[cold]
    fn reach(&self, at: u64) -> bool {
        let high = self.high.get();
        let end = at.wrapping_add(7);
        if at >= self.low.get() && end >= high && end.wrapping_sub(high) < LARGEST_STEP {
            let wanted = (end & !(PAGE - 1)).wrapping_add(PAGE);
            self.high.set(self.are_readable(high, wanted));
            return end < self.high.get();
        }
        end > at && self.is_readable(at)
    }
}

impl ReadMemory for Stack {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        let len = buf.len();
        for (i, byte) in buf.iter_mut().enumerate() {
            let at = at.wrapping_offset(i as i64);
            let word = self.read_u64(at).map_err(|_| Unreadable { at, len })?;
            *byte = word as u8;
        }
        Ok(())
    }

    #[inline]
    fn read_u64(&self, at: Addr) -> Result<u64, Unreadable> {
        let word = at.get();
        let (low, high) = (self.low.get(), self.high.get());
        let inside = word >= low && word.wrapping_add(8) <= high && word < u64::MAX - 8;
        if !inside && !self.reach(word) {
            return Err(Unreadable { at, len: 8 });
        }
        // SAFETY: all eight bytes are readable; what they hold is only a number.
        Ok(unsafe { (word as *const u64).read_unaligned() })
    }
}
