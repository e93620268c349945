//! The books of a traced process: what it allocated and has not freed, by stack.

mod frees;
mod graded;
mod looks;
mod series;

use std::collections::HashMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use leaktap_agent::layout::{FREE_STACKS, Loss, NO_FUNCTION, function, kind};
use leaktap_agent::{Counts, Shared};
use leaktap_analysis::reach::Blocks;
use leaktap_api::FunctionId;
use leaktap_heap::{Held, Origin, Region, Regions, SiteKey};
use leaktap_ledger::{Block, FamilyId, Kept, Key, Ledger, NoStack, STRIPES, StackId, Totals};
use leaktap_memory::Addr;
use leaktap_probe::{Allocator, Freed, Lost, Mapped, OWN_STRIPE, Recorder, Stack};
use leaktap_unwind::End;

pub(crate) use self::graded::Graded;
pub(crate) use self::looks::Look;
use self::looks::{Looks, MOST_BLOCKS};
pub(crate) use self::series::{Peak, Series};
use crate::cost::processor_time;

const _: () = assert!(OWN_STRIPE < STRIPES);

/// Most pieces of mappings, in half a gigabyte: a target may write into what it shares with us that
/// it has more.
const MOST_PIECES: usize = 1 << 22;

/// Of a stack that has freed.
const FREED: Allocator = Allocator {
    function: FunctionId(NO_FUNCTION),
    family: FamilyId::FIRST,
};

/// What a process did with memory while it was traced.
#[derive(Debug)]
pub(crate) struct Books {
    /// Where the ledger is in the end, and from the start, unless an agent keeps it.
    home: Shared,
    /// Where the agent keeps it.
    shared: Option<Arc<Shared>>,
    /// An agent keeps it, or has kept it.
    injected: bool,
    /// What it mapped itself.
    pub(crate) regions: Regions,
    /// Which blocks can still be reached, once that is known.
    pub(crate) graded: Graded,
    /// The kernel was asked about them at the end of the trace.
    pub(crate) are_regions_seen: bool,
    started: Instant,
    /// Time of the present stop.
    now: Duration,
    /// What is to be known of frees: see [`Live::wanted`](leaktap_agent::layout::Live::wanted).
    wanted: u32,
    /// Blocks count that were allocated in these milliseconds.
    counted: RangeInclusive<u32>,
    /// No block is entered as of an earlier time, in milliseconds.
    earliest: u32,
    /// What stacks have allocated, but for what the agent counts.
    counts: Counts,
    /// What the agent has counted is in there, too.
    has_all_counts: bool,
    /// Calls that were seen, but not what they did.
    lost: u64,
    looks: Looks,
    /// Bytes by call site.
    pub(crate) series: Series,
    /// Of each family, bytes that live by what breakpoints have told.
    live_bytes: [u64; FamilyId::MOST],
    peak_bytes: [u64; FamilyId::MOST],
}

impl Books {
    pub(crate) fn new() -> io::Result<Books> {
        Ok(Books {
            home: Shared::private()?,
            shared: None,
            injected: false,
            regions: Regions::default(),
            graded: Graded::NotYet,
            are_regions_seen: false,
            started: Instant::now(),
            now: Duration::ZERO,
            wanted: 0,
            counted: 0..=u32::MAX,
            earliest: 0,
            counts: Counts::default(),
            has_all_counts: false,
            lost: 0,
            looks: Looks::default(),
            series: Series::default(),
            live_bytes: [0; FamilyId::MOST],
            peak_bytes: [0; FamilyId::MOST],
        })
    }

    /// The trace begins.
    pub(crate) fn start(&mut self) {
        self.started = Instant::now();
    }

    /// From now on the agent keeps the ledger, which is empty so far.
    pub(crate) fn share(&mut self, shared: Arc<Shared>) {
        self.shared = Some(shared);
        self.injected = true;
        self.want(0);
        self.tick();
    }

    /// Memory of our own, for when the target is let go: nothing if it is too small for what the
    /// agent may have counted. What that has counted of stacks is here once this is called: nobody
    /// is in the agent any more.
    pub(crate) fn home(&mut self) -> Option<&mut Shared> {
        let shared = self.shared.as_ref()?;
        let holds = self.home.holds(shared);
        if holds && !self.has_all_counts {
            self.counts.add_all(&shared.counts());
            self.has_all_counts = true;
        }
        holds.then_some(&mut self.home)
    }

    /// What each stack has allocated since the trace began.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = self.counts.clone();
        if let Some(shared) = self.shared.as_ref().filter(|_| !self.has_all_counts) {
            counts.add_all(&shared.counts());
        }
        counts
    }

    /// All that the agent has counted is in our own memory now.
    pub(crate) fn mark_home(&mut self) {
        self.shared = None;
    }

    /// Where the ledger is.
    fn memory(&self) -> &Shared {
        self.shared.as_deref().unwrap_or(&self.home)
    }

    fn ledger(&self) -> Ledger<'_> {
        self.memory().ledger()
    }

    /// Whether the agent keeps the ledger.
    pub(crate) fn is_injected(&self) -> bool {
        self.injected
    }

    /// Some time has passed. Returns how long the trace has taken.
    pub(crate) fn tick(&mut self) -> Duration {
        self.now = self.started.elapsed();
        if self.injected {
            self.memory().live().clock.store(self.now_ms(), Relaxed);
        }
        self.now
    }

    /// Looks at what the agent has counted: `peak_bytes` is the most that was seen so.
    pub(crate) fn sample(&mut self, family: FamilyId) {
        if self.injected {
            let live = live_bytes(&self.totals(family));
            raise(&mut self.peak_bytes, family, live);
        }
    }

    /// Notes how many live blocks stacks have, if it is time to, and that is not too long.
    pub(crate) fn look(&mut self) {
        let now = self.now;
        if !self.looks.is_due(now) {
            return;
        }
        let (live, unmatched) = (
            self.sum(live_blocks),
            self.sum(|totals| totals.unmatched_frees),
        );
        if !self.looks.may_look_at(live) {
            return self.looks.refused();
        }
        let mut looks = std::mem::take(&mut self.looks);
        let counted = |block: &Block| self.counted.contains(&block.time);
        let blocks = self.memory().blocks().filter(counted);
        looks.look(blocks, now, (live, unmatched));
        self.looks = looks;
    }

    /// Of all families, the sum of this.
    fn sum(&self, of: fn(&Totals) -> u64) -> u64 {
        let families = FamilyId::all(FamilyId::MOST);
        let numbers = families.map(|family| of(&self.totals(family)));
        numbers.fold(0, u64::saturating_add)
    }

    /// Sums up the bytes that live by call site, if that is not too much to do now. The peak is
    /// that of `family`.
    pub(crate) fn take_series(&mut self, family: FamilyId) {
        if !self.series.is_due(self.now) {
            return;
        }
        let pieces = self.regions.pieces() as u64;
        if self.sum(live_blocks).saturating_add(pieces) > MOST_BLOCKS as u64 {
            return;
        }
        let begun = processor_time();
        let mut bytes: HashMap<_, u64> = HashMap::new();
        // More only if the target has written nonsense into its ledger.
        for held in self.held().take(2 * MOST_BLOCKS) {
            let bytes = bytes.entry(held.key).or_default();
            *bytes = bytes.saturating_add(held.size);
        }
        let cost = processor_time().saturating_sub(begun);
        self.series.take(self.now, bytes, family, cost);
    }

    /// Bytes of what is shared with the agent that are in memory.
    pub(crate) fn agent_bytes(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.resident())
    }

    /// When a look has first found live blocks of a stack.
    pub(crate) fn first_seen(&self, stack: u32) -> Option<Duration> {
        self.looks.first(stack)
    }

    /// The last looks, in order.
    pub(crate) fn recent_looks(&self) -> impl Iterator<Item = &Look> {
        self.looks.recent()
    }

    /// Time since the trace began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sums over all blocks of a family.
    pub(crate) fn totals(&self, family: FamilyId) -> Totals {
        self.ledger().totals(family)
    }

    /// The most bytes of a family that were live at a time: as far as was looked, with an agent.
    pub(crate) fn peak_bytes(&self, family: FamilyId) -> u64 {
        let peak = self.peak_bytes.get(family.number());
        peak.copied().unwrap_or_default()
    }

    /// Calls that were seen and could not be counted.
    pub(crate) fn lost(&self) -> u64 {
        let losses = self.memory().told().losses.iter().enumerate();
        let losses = losses.filter(|(why, _)| *why != Loss::Retried as usize);
        let counts = losses.map(|(_, loss)| loss.load(Relaxed));
        counts.fold(self.lost, u64::saturating_add)
    }

    /// Calls of operator new that were made again after memory had run out: whether that helped was
    /// not seen.
    pub(crate) fn retried(&self) -> u64 {
        let losses = &self.memory().told().losses;
        losses
            .get(Loss::Retried as usize)
            .map_or(0, |loss| loss.load(Relaxed))
    }

    /// What is there now is left out.
    pub(crate) fn begin_again(&mut self) {
        let last = self.end_period();
        self.counted = last + 1..=*self.counted.end();
        self.looks = Looks::default();
        self.series = Series::default();
    }

    /// What comes from now on is left out.
    pub(crate) fn leave_out_later(&mut self) {
        let last = self.end_period();
        self.counted = *self.counted.start()..=last;
    }

    /// Whether what comes now is left out.
    pub(crate) fn leaves_out_later(&self) -> bool {
        *self.counted.end() != u32::MAX
    }

    /// What comes from now on is later than the time that this returns, in milliseconds.
    fn end_period(&mut self) -> u32 {
        self.tick();
        let last = self.now_ms();
        self.earliest = last + 1;
        self.tick();
        last
    }

    /// How many blocks are left out.
    pub(crate) fn left_out(&self) -> u64 {
        if self.counted == (0..=u32::MAX) {
            return 0;
        }
        let times = self.all_held().map(|held| held.time);
        times.filter(|time| !self.counted.contains(time)).count() as u64
    }

    /// The blocks and regions that are held, and count.
    pub(crate) fn held(&self) -> impl Iterator<Item = Held> + '_ {
        let all = self.all_held();
        all.filter(|held| self.counted.contains(&held.time))
    }

    /// All live blocks, by address.
    pub(crate) fn by_address(&self) -> Blocks {
        let blocks = self.memory().blocks();
        Blocks::new(blocks.map(|block| (block.key.addr(), block.size)))
    }

    fn all_held(&self) -> impl Iterator<Item = Held> + '_ {
        let block = |block: Block| Held {
            key: SiteKey {
                stack: block.stack.0,
                mapping: false,
                family: block.key.family(),
                grade: self.graded.of(&block),
            },
            size: block.size,
            time: block.time,
        };
        let region = |region: &Region| Held {
            key: SiteKey {
                stack: region.stack,
                mapping: true,
                family: FamilyId::FIRST,
                grade: None,
            },
            size: region.bytes,
            time: region.time,
        };
        let regions = self.regions.live().map(region);
        self.memory().blocks().map(block).chain(regions)
    }

    /// A stack by its number: raw frames, innermost first, how it ended, and what was called.
    /// Nothing if there is none with that number.
    pub(crate) fn stack(&self, id: u32) -> Option<(Vec<u64>, End, FunctionId)> {
        let mut frames = Vec::new();
        let kept = self.ledger().stack(StackId(id), |raw| frames.push(raw));
        let Kept { end, kind } = kept?;
        let end = End::try_from(end).unwrap_or(End::Unreadable);
        Some((frames, end, FunctionId(function(kind))))
    }

    /// What called the innermost frame of a stack: see [`Ledger::caller`].
    pub(crate) fn caller(&self, id: u32) -> Result<Option<u32>, NoStack> {
        let caller = self.ledger().caller(StackId(id))?;
        Ok(caller.map(|StackId(caller)| caller))
    }

    fn now_ms(&self) -> u32 {
        self.earliest.max(self.now.as_millis() as u32)
    }

    /// Each change makes two more pieces at most.
    fn change_regions(&mut self, change: impl FnOnce(&mut Regions)) {
        match self.regions.pieces() < MOST_PIECES {
            true => change(&mut self.regions),
            false => self.lost += 1,
        }
    }

    /// The stack of a call of a function that is about something in a heap. Nothing if there is no
    /// room for more stacks.
    fn intern(&mut self, by: Allocator, stack: Stack<'_>) -> Option<StackId> {
        let frames: Vec<u64> = stack.frames.iter().map(|frame| frame.raw()).collect();
        let kept = Kept {
            end: stack.end as u8,
            kind: kind(by.function.0, by.family),
        };
        self.ledger().intern(&frames, kept)
    }

    fn grew(&mut self, family: FamilyId, size: u64, gone: u64) {
        let Some(live) = self.live_bytes.get_mut(family.number()) else {
            return;
        };
        *live = live.saturating_add(size).saturating_sub(gone);
        let live = *live;
        if !self.injected {
            raise(&mut self.peak_bytes, family, live);
        }
    }
}

fn raise(peaks: &mut [u64], family: FamilyId, live: u64) {
    if let Some(peak) = peaks.get_mut(family.number()) {
        *peak = live.max(*peak);
    }
}

fn one_more(StackId(stack): StackId) -> u32 {
    stack.wrapping_add(1)
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
    fn allocated(&mut self, by: Allocator, at: Addr, size: u64, stack: Stack<'_>) {
        let time = self.now_ms();
        let entered = self.intern(by, stack).and_then(|stack| {
            let block = Block {
                key: Key::new(by.family, at.get()),
                size,
                stack,
                time,
            };
            let replaced = self.ledger().allocated(OWN_STRIPE, &block).ok()?;
            self.counts.add(stack.0, (1, size));
            Some(replaced)
        });
        match entered {
            Some(replaced) => self.grew(by.family, size, replaced.unwrap_or(0)),
            None => self.lost += 1,
        }
    }

    fn handed_on(&mut self, by: Allocator, key: Key, stack: Stack<'_>) {
        let of_its_heap = Allocator {
            family: key.family(),
            ..by
        };
        // Without room for one more, it keeps the stack that it has.
        if let Some(stack) = self.intern(of_its_heap, stack)
            && let Some((size, before)) = self.ledger().hand_on(by.family, key, stack)
        {
            let less = (1_u64.wrapping_neg(), size.wrapping_neg());
            self.counts.add(before.0, less);
            self.counts.add(stack.0, (1, size));
        }
    }

    fn keeps_free_stacks(&self) -> bool {
        self.wants(FREE_STACKS)
    }

    fn freed(&mut self, key: Key, ret: Addr, stack: Option<Stack<'_>>) -> Freed {
        if self.ledger().is_passed_on(key) {
            return Freed::PassedOn;
        }
        let stack = stack.and_then(|stack| self.intern(FREED, stack));
        let by = stack.map_or(ret.get() as u32, one_more);
        let block = self.ledger().freed_by(OWN_STRIPE, key, by);
        if let Some(block) = block {
            self.grew(key.family(), 0, block.size);
            self.note_pair(block.stack, ret);
        }
        Freed::new(key.family(), block)
    }

    fn misfreed(&mut self, key: Key, stack: Stack<'_>) {
        let stack = self.intern(FREED, stack);
        self.note_misfree(key, stack);
    }

    fn unfreed(&mut self, freed: Freed) {
        match (self.ledger().restore(OWN_STRIPE, freed), freed.block()) {
            (Ok(()), Some(block)) => self.grew(block.key.family(), block.size, 0),
            (Ok(()), None) => {}
            (Err(_), _) => self.lost += 1,
        }
    }

    fn mapped(&mut self, function: FunctionId, what: Mapped, stack: Stack<'_>) {
        let time = self.now_ms();
        let by = Allocator {
            function,
            family: FamilyId::FIRST,
        };
        match self.intern(by, stack) {
            Some(stack) => self.mapped_by(stack, time, what),
            None => self.lost += 1,
        }
    }

    fn mapped_by(&mut self, stack: StackId, time: u32, what: Mapped) {
        let by = Origin {
            stack: stack.0,
            time,
            moment: what.moment,
        };
        self.change_regions(|regions| regions.map(what.at, what.len, by));
    }

    fn unmapped(&mut self, at: Addr, len: u64, begun: u64) {
        self.change_regions(|regions| regions.unmap(at, len, begun));
    }

    fn protected(&mut self, at: Addr, len: u64, is_usable: bool) {
        self.change_regions(|regions| regions.protect(at, len, is_usable));
    }

    fn given_back(&mut self, at: Addr, len: u64, lazily: bool) {
        self.change_regions(|regions| regions.give_back(at, len, lazily));
    }

    fn lost(&mut self, why: Lost) {
        match why {
            Lost::ReturnUnprobed | Lost::Unfinished => self.lost += 1,
        }
    }
}
