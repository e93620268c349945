//! Reads of the thread's own memory that cannot fault.
//!
//! Of the thread's own stack, what call frame information leads to is read just so: those are the
//! words by which its frames are about to return. Where the stacks of threads are the tracer says.
//! All else (another stack, of a coroutine or of a signal handler, and whatever a frame pointer or
//! a guess leads to) is copied by the kernel, which answers if there is nothing: a program may
//! close any page at any moment. Where system calls are not allowed
//! ([`Live::kernel`](crate::layout::Live)), a walk ends there.
//!
//! Code without call frame information (all of Chromium) has only frame pointers, so each page of
//! the thread's own stack is asked for once, and then again when some page may have been closed.

use core::cell::Cell;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use leaktap_memory::{Addr, ReadMemory, Unreadable};

use crate::agent::Agent;
use crate::kernel;
use crate::layout::{Known, Region, Window};

/// The memory of this thread.
pub(crate) struct Stack<'w> {
    agent: Agent,
    /// The stack pointer: below it is nothing that may be read.
    sp: u64,
    /// The thread's own stack, if `sp` is there.
    known: Known,
    window: Option<&'w Window>,
    /// What was copied last.
    from: Cell<u64>,
    copied: Cell<u64>,
}

/// Words from `sp` up on the thread's own stack.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    sp: *const AtomicU64,
    /// How many.
    pub(crate) len: u64,
}

impl Words {
    /// Nothing if it is not known that `sp` is there.
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
    /// It is one of them, and call frame information has led there.
    #[inline(always)]
    pub(crate) unsafe fn get(self, index: u64) -> u64 {
        // SAFETY: aligned and readable, says the caller; atomic, because other threads may write
        // there.
        unsafe { (*self.sp.wrapping_add(index as usize)).load(Relaxed) }
    }
}

impl Agent {
    /// Memory is about to be unmapped: what is known of stacks there is known no more.
    pub(crate) fn unmaps(self, start: u64, len: u64) {
        let live = &self.control.live;
        let mut last = start.saturating_add(len).checked_sub(1);
        // Stacks do not overlap: those below the first that does not reach there do not either, but
        // for empty ones.
        while let Some(stack) = last.and_then(|last| stack_below(self, last)) {
            if start < stack.end {
                // SAFETY: as in `stack_below`.
                unsafe { live.stacks.empty([stack.start, stack.end]) };
            }
            last = stack.start.checked_sub(1).filter(|_| start < stack.start);
        }
        live.ranges.fetch_add(1, AcqRel);
    }

    /// Copies words from `at` on by a system call, which does not fault. Returns how many; none
    /// where system calls are not allowed.
    pub(crate) fn copy(self, at: u64, words: &[Cell<u64>]) -> usize {
        match self.control.live.kernel.load(Relaxed) {
            1 => kernel::copy(self.control.process, at, words),
            _ => 0,
        }
    }
}

/// The stack of a thread that begins at `at`, or next below.
pub(crate) fn stack_below(agent: Agent, at: u64) -> Option<Region> {
    // SAFETY: the tracer publishes stacks, in memory that it never unmaps while threads are in the
    // agent.
    let [start, end] = unsafe { agent.control.live.stacks.find(at) }?;
    Some(Region { start, end })
}

impl<'w> Stack<'w> {
    /// The memory of a thread whose stack pointer is `sp`, where a call has just written a word;
    /// `known` is what was found out before. `window` is for this alone.
    #[inline]
    pub(crate) fn new(
        agent: Agent,
        known: Known,
        sp: u64,
        window: Option<&'w Window>,
    ) -> Stack<'w> {
        let ranges = agent.control.live.ranges.load(Acquire).into();
        let is_known = ranges == known.ranges && sp >= known.low && sp < known.high;
        Stack {
            agent,
            sp,
            known: if is_known {
                known
            } else {
                discover(agent, sp, ranges)
            },
            window,
            from: Cell::new(0),
            copied: Cell::new(0),
        }
    }

    /// What is known now, to be kept for the next time.
    #[inline]
    pub(crate) fn known(&self) -> Known {
        self.known
    }

    /// Whether the word at `at` is on the thread's own stack.
    #[inline]
    fn is_own(&self, at: u64) -> bool {
        at >= self.sp && at < self.known.high && self.known.high - at >= 8
    }

    /// The place that says whether the page of the word at `at` was found readable, and its bit
    /// there. Nothing if that does not last, or is not known.
    #[inline]
    fn page(&self, at: u64) -> Option<(&'w Cell<u64>, u64)> {
        let window = self.window?;
        let of = [self.known.high, self.known.ranges];
        let is_of = window.of.iter().map(Cell::get).eq(of);
        let lasts = self.agent.control.live.sees_closing.load(Relaxed) == 1;
        let asked = lasts && is_of && at & 7 == 0 && self.is_own(at);
        asked.then(|| window.page(at, self.known.high)).flatten()
    }

    #[inline]
    fn is_open(&self, at: u64) -> bool {
        self.page(at)
            .is_some_and(|(pages, bit)| pages.get() & bit != 0)
    }

    /// The word at `at` could be read.
    fn found_open(&self, at: u64) {
        let of = [self.known.high, self.known.ranges];
        if let Some(window) = self.window
            && window.of.iter().map(Cell::get).ne(of)
        {
            window.open.iter().for_each(|pages| pages.set(0));
            window.of.iter().zip(of).for_each(|(was, is)| was.set(is));
        }
        if let Some((pages, bit)) = self.page(at) {
            pages.set(pages.get() | bit);
        }
    }

    /// The word at `at`, among those that were copied last.
    fn in_window(&self, at: u64) -> Option<u64> {
        let offset = at.wrapping_sub(self.from.get());
        let word = self.window?.words.get(offset as usize / 8)?;
        (offset.is_multiple_of(8) && offset / 8 < self.copied.get()).then(|| word.get())
    }

    #[cold]
    fn copy_u64(&self, at: u64) -> Option<u64> {
        let one = [Cell::new(0)];
        let words = self.window.map_or(&one[..], |window| &window.words);
        let copied = self.agent.copy(at, words);
        if self.window.is_some() {
            self.from.set(at);
            self.copied.set(copied as u64);
        }
        let first = words.first().filter(|_| copied > 0)?.get();
        self.found_open(at);
        Some(first)
    }
}

#[cold]
fn discover(agent: Agent, sp: u64, ranges: u64) -> Known {
    let stack = stack_below(agent, sp).filter(|stack| stack.contains(sp));
    stack.map_or(Known::NOTHING, |Region { start, end }| Known {
        low: start,
        high: end,
        ranges,
    })
}

impl ReadMemory for Stack<'_> {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        let len = buf.len();
        for (i, byte) in buf.iter_mut().enumerate() {
            let at = at.wrapping_offset(i as i64);
            let word = self.guess_u64(at).map_err(|_| Unreadable { at, len })?;
            *byte = word as u8;
        }
        Ok(())
    }

    #[inline]
    fn read_u64(&self, at: Addr) -> Result<u64, Unreadable> {
        let word = at.get();
        if !self.is_own(word) && word != self.sp {
            return self.guess_u64(at);
        }
        // SAFETY: where the call has just written, or a word of the thread's own stack by which a
        // frame returns.
        Ok(unsafe { (word as *const u64).read_unaligned() })
    }

    #[inline]
    fn guess_u64(&self, at: Addr) -> Result<u64, Unreadable> {
        let word = at.get();
        if self.is_open(word) {
            // SAFETY: aligned, and nobody has closed the page since it was read.
            return Ok(unsafe { *(word as *const u64) });
        }
        let found = self.in_window(word).or_else(|| self.copy_u64(word));
        found.ok_or(Unreadable { at, len: 8 })
    }
}
