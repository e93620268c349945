//! The books of a traced process: what it allocated and has not freed, by stack.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use leaktap_agent::Shared;
use leaktap_agent::layout::Loss;
use leaktap_heap::{Held, Key, Region, Regions};
use leaktap_ledger::{Block, Kept, Ledger, STRIPES, StackId, Totals};
use leaktap_memory::Addr;
use leaktap_probe::{FunctionId, Lost, OWN_STRIPE, Recorder, Removed, Stack};
use leaktap_unwind::End;

const _: () = assert!(OWN_STRIPE < STRIPES);

/// What a process did with memory while it was traced.
#[derive(Debug)]
pub(crate) struct Books {
    /// Where the ledger is: in memory shared with the agent, once there is one.
    shared: Shared,
    /// Where it is in the end.
    home: Shared,
    ledger: Ledger,
    injected: bool,
    /// What it mapped itself.
    pub(crate) regions: Regions,
    started: Instant,
    /// Time of the present stop.
    now: Duration,
    /// Calls that were seen, but not what they did.
    lost: u64,
    /// Bytes that live by what breakpoints have told.
    live_bytes: u64,
    peak_bytes: u64,
}

impl Books {
    pub(crate) fn new() -> io::Result<Books> {
        let shared = Shared::private()?;
        Ok(Books {
            shared,
            home: shared,
            ledger: shared.ledger(),
            injected: false,
            regions: Regions::default(),
            started: Instant::now(),
            now: Duration::ZERO,
            lost: 0,
            live_bytes: 0,
            peak_bytes: 0,
        })
    }

    /// The trace begins.
    pub(crate) fn start(&mut self) {
        self.started = Instant::now();
    }

    /// From now on the agent keeps the ledger, which is empty so far.
    pub(crate) fn share(&mut self, shared: Shared) {
        self.shared = shared;
        self.ledger = shared.ledger();
        self.injected = true;
        self.tick();
    }

    /// Memory of our own, for when the target is let go.
    pub(crate) fn home(&self) -> Shared {
        self.home
    }

    /// All that the agent has counted is there now.
    pub(crate) fn is_home(&mut self) {
        self.shared = self.home;
        self.ledger = self.home.ledger();
    }

    /// Whether the agent keeps the ledger.
    pub(crate) fn is_injected(&self) -> bool {
        self.injected
    }

    /// Some time has passed. Returns how long the trace has taken.
    pub(crate) fn tick(&mut self) -> Duration {
        self.now = self.started.elapsed();
        if self.injected {
            self.shared.live().clock.store(self.now_ms(), Relaxed);
        }
        self.now
    }

    /// Looks at what the agent has counted: `peak_bytes` is the most that was seen so.
    pub(crate) fn sample(&mut self) {
        if self.injected {
            let live = live_bytes(&self.totals());
            self.peak_bytes = self.peak_bytes.max(live);
        }
    }

    /// Time since the trace began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sums over all blocks.
    pub(crate) fn totals(&self) -> Totals {
        self.ledger.totals()
    }

    /// The most bytes that were live at a time: as far as was looked, with an agent.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// Calls that were seen and could not be counted.
    pub(crate) fn lost(&self) -> u64 {
        let losses = self.shared.told().losses.iter().enumerate();
        let losses = losses.filter(|(why, _)| *why != Loss::Retried as usize);
        let agent: u64 = losses.map(|(_, loss)| loss.load(Relaxed)).sum();
        self.lost + agent
    }

    /// Calls of operator new that were made again after memory had run out: whether that helped was not seen.
    pub(crate) fn retried(&self) -> u64 {
        let losses = &self.shared.told().losses;
        losses
            .get(Loss::Retried as usize)
            .map_or(0, |loss| loss.load(Relaxed))
    }

    /// All blocks and regions that are held.
    pub(crate) fn held(&self) -> impl Iterator<Item = Held> + '_ {
        let block = |block: Block| Held {
            key: Key {
                stack: block.stack.0,
                mapping: false,
            },
            size: block.size,
            time: block.time,
        };
        let region = |region: &Region| Held {
            key: Key {
                stack: region.stack,
                mapping: true,
            },
            size: region.bytes,
            time: region.time,
        };
        let regions = self.regions.live().map(region);
        self.shared.blocks().map(block).chain(regions)
    }

    /// A stack by its number: raw frames, innermost first, how it ended, and what was called.
    pub(crate) fn stack(&self, id: u32) -> (Vec<u64>, End, FunctionId) {
        let mut frames = Vec::new();
        let kept = self
            .shared
            .ledger()
            .stack(StackId(id), |raw| frames.push(raw));
        let Kept { end, kind } = kept.unwrap_or_default();
        let end = End::try_from(end).unwrap_or(End::Unreadable);
        (frames, end, FunctionId(kind))
    }

    fn now_ms(&self) -> u32 {
        self.now.as_millis() as u32
    }

    /// Nothing if there is no room for more stacks.
    fn intern(&mut self, function: FunctionId, stack: Stack<'_>) -> Option<StackId> {
        let frames: Vec<u64> = stack.frames.iter().map(|frame| frame.raw()).collect();
        let kept = Kept {
            end: stack.end as u8,
            kind: function.0,
        };
        self.ledger.intern(&frames, kept)
    }

    fn grew(&mut self, size: u64, replaced: u64) {
        self.live_bytes = self.live_bytes.saturating_add(size);
        self.live_bytes = self.live_bytes.saturating_sub(replaced);
        if !self.injected {
            self.peak_bytes = self.peak_bytes.max(self.live_bytes);
        }
    }
}

/// Bytes that live, by the sums.
pub(crate) fn live_bytes(totals: &Totals) -> u64 {
    totals.allocated_bytes.saturating_sub(totals.freed_bytes)
}

/// Blocks that live, by the sums.
pub(crate) fn live_blocks(totals: &Totals) -> u64 {
    let matched = totals.frees.saturating_sub(totals.unmatched_frees);
    totals
        .allocations
        .saturating_sub(matched)
        .saturating_sub(totals.missed_frees)
}

impl Recorder for Books {
    fn allocated(&mut self, function: FunctionId, at: Addr, size: u64, stack: Stack<'_>) {
        let time = self.now_ms();
        let entered = self.intern(function, stack).and_then(|stack| {
            let block = Block {
                addr: at.get(),
                size,
                stack,
                time,
            };
            self.ledger.allocated(OWN_STRIPE, &block).ok()
        });
        match entered {
            Some(replaced) => self.grew(size, replaced.unwrap_or(0)),
            None => self.lost += 1,
        }
    }

    fn freed(&mut self, at: Addr) -> Removed {
        match self.ledger.freed(OWN_STRIPE, at.get()) {
            Some(block) => {
                self.live_bytes = self.live_bytes.saturating_sub(block.size);
                Removed::Block(block)
            }
            None => Removed::Unmatched,
        }
    }

    fn unfreed(&mut self, removed: Removed) {
        let block = match removed {
            Removed::Block(block) => Some(block),
            Removed::Unmatched => None,
        };
        match self.ledger.restore(OWN_STRIPE, block) {
            Ok(()) => self.grew(block.map_or(0, |block| block.size), 0),
            Err(_) => self.lost += 1,
        }
    }

    fn mapped(&mut self, function: FunctionId, at: Addr, len: u64, stack: Stack<'_>) {
        let time = self.now_ms();
        let Some(stack) = self.intern(function, stack) else {
            self.lost += 1;
            return;
        };
        let region = Region {
            stack: stack.0,
            time,
            bytes: len,
        };
        self.regions.map(at, len, region);
    }

    fn unmapped(&mut self, at: Addr, len: u64) {
        self.regions.unmap(at, len);
    }

    fn lost(&mut self, why: Lost) {
        match why {
            Lost::ReturnUnprobed => self.lost += 1,
        }
    }
}
