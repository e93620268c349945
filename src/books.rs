//! The books of a traced process: what it allocated and has not freed, by stack.

use std::time::{Duration, Instant};

use leaktap_heap::{Held, Key, Region, Regions};
use leaktap_ledger::{Block, Ledger, StackId, Totals};
use leaktap_memory::Addr;
use leaktap_probe::{FunctionId, Lost, Recorder, Removed, Stack};
use leaktap_unwind::End;

/// What a process did with memory while it was traced.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) ledger: Ledger,
    /// What it mapped itself.
    pub(crate) regions: Regions,
    started: Instant,
    /// Time of the present stop.
    now: Duration,
    /// Calls that were seen, but not what they did.
    pub(crate) lost: u64,
    /// Bytes that the C library mapped for itself.
    pub(crate) libc_mapped: u64,
}

impl Books {
    pub(crate) fn new() -> Books {
        Books {
            ledger: Ledger::default(),
            regions: Regions::default(),
            started: Instant::now(),
            now: Duration::ZERO,
            lost: 0,
            libc_mapped: 0,
        }
    }

    /// The trace begins.
    pub(crate) fn start(&mut self) {
        self.started = Instant::now();
    }

    /// A thread has stopped.
    pub(crate) fn tick(&mut self) {
        self.now = self.started.elapsed();
    }

    /// Time since the trace began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.ledger.totals()
    }

    /// All blocks and regions that are held.
    pub(crate) fn held(&self) -> impl Iterator<Item = Held> + '_ {
        let block = |b: Block| Held {
            key: Key {
                stack: b.stack.0,
                function: b.kind,
                mapping: false,
            },
            size: b.size,
            time: b.time,
        };
        let region = |r: &Region| Held {
            key: Key {
                stack: r.stack,
                function: r.function,
                mapping: true,
            },
            size: r.bytes,
            time: r.time,
        };
        self.ledger
            .live()
            .map(block)
            .chain(self.regions.live().map(region))
    }

    /// A stack by its number: raw frames, innermost first.
    pub(crate) fn stack(&self, id: u32) -> (Vec<u64>, End) {
        let (frames, end) = self.ledger.stacks().get(StackId(id));
        (frames, End::try_from(end).unwrap_or(End::Unreadable))
    }

    fn now_ms(&self) -> u32 {
        self.now.as_millis() as u32
    }

    fn intern(&mut self, stack: Stack<'_>) -> StackId {
        let frames = stack.frames.iter().map(|frame| frame.raw());
        self.ledger.stacks_mut().intern(frames, stack.end as u8)
    }
}

impl Recorder for Books {
    fn allocated(&mut self, function: FunctionId, at: Addr, size: u64, stack: Stack<'_>) {
        let stack = self.intern(stack);
        let time = self.now_ms();
        self.ledger.allocated(Block {
            addr: at.get(),
            size,
            stack,
            time,
            kind: function.0,
        });
    }

    fn freed(&mut self, at: Addr) -> Removed {
        match self.ledger.freed(at.get()) {
            Some(block) => Removed::Block(block),
            None => Removed::Unmatched,
        }
    }

    fn unfreed(&mut self, removed: Removed) {
        match removed {
            Removed::Block(block) => self.ledger.unfreed(Some(block)),
            Removed::Unmatched => self.ledger.unfreed(None),
        }
    }

    fn mapped(&mut self, function: FunctionId, at: Addr, len: u64, stack: Stack<'_>) {
        let stack = self.intern(stack);
        let time = self.now_ms();
        self.regions.map(
            at,
            len,
            Region {
                stack: stack.0,
                function: function.0,
                time,
                bytes: len,
            },
        );
    }

    fn unmapped(&mut self, at: Addr, len: u64) {
        self.regions.unmap(at, len);
    }

    fn mapped_by_libc(&mut self, len: u64) {
        self.libc_mapped += len;
    }

    fn lost(&mut self, why: Lost) {
        match why {
            Lost::ReturnUnprobed => self.lost += 1,
        }
    }
}
