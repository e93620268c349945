//! The injected agent of a process: detours in the place of breakpoints.
//!
//! [`Plan`] says, while the process runs, which functions can be patched. With all threads stopped,
//! [`Agent::map`] makes memory for the agent; it is filled ([`Agent::fill`]) while they run; with
//! all stopped again, [`Agent::patch`] leads the functions to it. From then on calls of these
//! functions are seen and counted without a stop, in memory that is shared with this process.
//! [`leave`] takes threads out of it again, so that it can be taken away.

mod branched;
mod caller;
mod calls;
mod changes;
mod fill;
mod groups;
mod held;
mod inject;
mod injection;
mod leave;
mod mappings;
mod place;
mod plan;
mod remains;
mod remote;
mod reserved;
mod room;
mod shape;
mod stacks;
mod twin;
mod unled;
mod unwinding;
mod waker;
mod words;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use leaktap_agent::layout::{KEYS, REGIONS, set_of_keys, shared_key};
use leaktap_agent::{KEY_BITS, Shape, Shared};
use leaktap_image::{Glance, mappings};
use leaktap_ledger::FamilyId;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{AllStopped, Memory, Registers};
use leaktap_unwind::Table;

use crate::arch::{JUMP_LEN, Site};
use crate::detour::{Moved, patch};
use crate::glance::Kernel;
use crate::modules::Modules;
use crate::probepoint::Probepoint;
use leaktap_api::{Function, FunctionId};

pub use held::Held;
pub(crate) use inject::refusal;
pub(crate) use injection::Injection;
pub use leave::OWN_STRIPE;
pub(crate) use mappings::Unread;
pub(crate) use plan::{Plan, call_code};
pub use remains::Remains;
pub(crate) use remains::remains;
pub use reserved::is_named as is_agents;

use remote::Regions;
use room::Room;
use stacks::Stacks;
pub(crate) use waker::Waker;
use words::Ranges;
pub(crate) use words::Words;

/// Bytes of a code region: header page, text and constants, stubs.
const CODE_LEN: u64 = 64 << 10;

/// The agent in a process.
#[derive(Debug)]
pub(crate) struct Agent {
    memory: Memory,
    shared: Arc<Shared>,
    regions: Regions,
    room: Room,
    stacks: Stacks,
    detours: Vec<Detour>,
    /// A signal handler may have interrupted its code.
    is_unguarded: bool,
    /// Of its memory, to be unmapped; see [`Regions::parts`].
    parts: Vec<Range<Addr>>,
    /// Descriptors of the shared memory that a killed tracer has left open.
    open: Vec<u64>,
    plan: Plan,
    /// Kilobytes of the process's memory that were locked before.
    locked: Option<i32>,
    /// The first note of a mapping that has not been read.
    unread: u64,
    /// How many changes of modules have been seen.
    seen: u32,
    /// Tells when there are more.
    waker: Option<Waker>,
}

/// A function that jumps to the agent.
#[derive(Clone, Debug)]
struct Detour {
    function: FunctionId,
    family: FamilyId,
    known: Function,
    /// Of its first instruction.
    address: Addr,
    site: Site,
    /// What its jump leads to; its descriptor names it in the agent.
    stub: Addr,
    shape: Shape,
    /// The displaced instructions, and where they are.
    moved: Moved,
    moved_at: Addr,
    patched: bool,
}

impl Detour {
    /// Puts the function back as it was, if the jump is there.
    fn restore(&self, memory: &Memory, stopped: &AllStopped<'_>) {
        let mut now = [0; JUMP_LEN];
        if memory.read(self.site.at(), &mut now).is_ok() {
            self.restore_from(now, memory, stopped);
        }
    }

    /// The same where the first bytes are `now`.
    fn restore_from(&self, now: [u8; JUMP_LEN], memory: &Memory, _: &AllStopped<'_>) {
        if !self.is_jump(now) {
            return;
        }
        for write in patch(self.site.at(), self.site.replaced()) {
            // A failure means that the memory has just gone, with the whole process.
            let _ = memory.put(write.at, &write.bytes);
        }
    }

    /// Whether the jump is in `memory`, or a part of it: memory unmapped since it was written is
    /// somebody else's.
    fn is_there(&self, memory: &Memory) -> bool {
        let mut now = [0; JUMP_LEN];
        memory.read(self.site.at(), &mut now).is_ok() && self.is_jump(now)
    }

    /// Whether these bytes are the jump, or a part of it.
    fn is_jump(&self, now: [u8; JUMP_LEN]) -> bool {
        let Ok(jump) = self.site.jump(self.stub) else {
            return false;
        };
        // The first byte is an int3 for a while, and of the others some may have been written.
        let mut each = now
            .iter()
            .zip(jump.iter().zip(self.site.replaced()))
            .skip(1);
        each.all(|(now, (new, old))| now == new || now == old)
    }
}

impl Agent {
    /// The agent that another tracer, now dead, has left in the process of `memory`.
    pub(crate) fn adopt(memory: &Memory, modules: &mut Modules) -> Option<Agent> {
        let agent = remains::adopt(memory, modules.image())?;
        agent.stop_waits();
        agent.insert_rows(modules.rules());
        Some(agent)
    }

    /// What the plan says of a function that stayed a breakpoint.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where a thread that went on would run into the middle of a jump to be written.
    pub(crate) fn replaced(&self) -> Ranges {
        Ranges::new(self.detours.iter().map(|detour| detour.site.inner()))
    }

    /// What it shares with us.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Where its code is: a copy for each group of functions.
    pub(crate) fn codes(&self) -> &[Range<Addr>] {
        &self.regions.codes
    }

    /// Whether there is a detour for `point`.
    pub(crate) fn has(&self, point: &Probepoint) -> bool {
        let mut detours = self.detours.iter();
        detours.any(|detour| (detour.function, detour.address) == (point.function, point.address))
    }

    /// Where the function begins that a thread is about to go on in, if it has asked us before.
    fn gate(&self, registers: &Registers) -> Option<Addr> {
        let moved_at = self.memory.read_u64(registers.sp().wrapping_offset(-8));
        let mut detours = self.detours.iter();
        let gate = detours.find(|detour| Ok(detour.moved_at.get()) == moved_at)?;
        (gate.shape == Shape::Gate).then_some(gate.address)
    }

    /// Forgets detours of functions that are not, or no longer, where they were: those of `points`
    /// stay. Returns their addresses.
    pub(crate) fn keep(&mut self, points: &[Probepoint]) -> Vec<Addr> {
        let is_there = |detour: &Detour| {
            let same =
                |p: &Probepoint| (p.function, p.address) == (detour.function, detour.address);
            points.iter().any(same)
        };
        self.detours.retain(is_there);
        self.detours.iter().map(|detour| detour.address).collect()
    }

    /// Modules have come or gone.
    pub(crate) fn modules_changed(&mut self, rules: &mut Table, gone: &[Range<Addr>]) {
        self.detours
            .retain(|detour| !gone.iter().any(|range| range.contains(&detour.site.at())));
        self.room.publish(rules);
    }

    /// Memory is about to be unmapped: it may have been a stack.
    pub(crate) fn unmapping(&mut self, range: &Range<Addr>) {
        let change = |stacks: &mut Stacks| stacks.remove(range);
        self.room.change_stacks(&mut self.stacks, change);
        self.shared.live().ranges.fetch_add(1, AcqRel);
    }

    /// A thread with `registers` begins; it is stopped.
    pub(crate) fn thread_begins(&mut self, registers: &Registers) {
        let memory = &self.memory;
        self.room.change_stacks(&mut self.stacks, |stacks| {
            if stacks.contains(registers.sp()) {
                return false;
            }
            let mappings = match Kernel(memory).mapping_from(registers.sp()) {
                Some(mapping) => mapping.into_iter().collect(),
                None => mappings(memory.process().get()).unwrap_or_default(),
            };
            stacks.add(registers, &mappings);
            true
        });
    }

    /// Whether the agent may ask the kernel what it does not know otherwise.
    pub(crate) fn allow_system_calls(&self, allow: bool) {
        self.shared.live().kernel.store(u32::from(allow), Relaxed);
    }

    /// Whether the agent sees all calls by which a page that was readable may cease to be.
    pub(crate) fn sees_closing(&self, all: bool) {
        let live = self.shared.live();
        live.sees_closing.store(u32::from(all), Relaxed);
    }

    /// Whether somebody else has written over a jump that leads here: whoever did may have kept a
    /// copy.
    fn is_overwritten(&self) -> bool {
        let mut patched = self.detours.iter().filter(|detour| detour.patched);
        patched.any(|detour| {
            let is_mapped = self
                .memory
                .read(detour.site.at(), &mut [0; JUMP_LEN])
                .is_ok();
            is_mapped && !detour.is_there(&self.memory)
        })
    }

    /// Whether any byte of `range` is part of a jump that leads here.
    pub(crate) fn is_patched_in(&self, range: &Range<Addr>) -> bool {
        let mut patched = self.detours.iter().filter(|detour| detour.patched);
        patched.any(|detour| {
            let end = detour.site.at().wrapping_offset(JUMP_LEN as i64);
            detour.site.at() < range.end && range.start < end
        })
    }

    /// Puts the functions back as they were, in this process's memory or in a copy of it.
    pub(crate) fn restore(&self, memory: &Memory, stopped: &AllStopped<'_>) {
        let patched = self.detours.iter().filter(|detour| detour.patched);
        let patched: Vec<_> = patched.collect();
        let places: Vec<_> = patched.iter().map(|detour| detour.site.at()).collect();
        let bytes = memory.read_each(&places, JUMP_LEN);
        let mut read = bytes.chunks_exact(JUMP_LEN).filter_map(<[u8]>::first_chunk);
        for detour in patched {
            match read.next() {
                Some(now) => detour.restore_from(*now, memory, stopped),
                // One before has been unmapped.
                None => detour.restore(memory, stopped),
            }
        }
    }

    /// The number of the thread with `fs` as its fs base: a new one, if it has none yet.
    pub(crate) fn number(&self, fs: u64) -> Option<usize> {
        let first = set_of_keys(fs, KEY_BITS) * KEYS;
        let keys = self.shared.keys().get(first..first + KEYS)?;
        let mine = |key: &AtomicU64| key.load(Acquire) == fs;
        let take = |key: &AtomicU64| key.compare_exchange(0, fs, AcqRel, Relaxed).is_ok();
        let is_shared = keys.iter().any(|key| key.load(Acquire) == shared_key(fs));
        if fs == 0 || is_shared {
            return None;
        }
        let way = keys
            .iter()
            .position(mine)
            .or_else(|| keys.iter().position(take))?;
        self.shared.number(first + way);
        Some(first + way)
    }

    /// What the thread of that number is in the middle of: the agent's note of it,
    /// [`leaktap_agent::layout::Thread::outer`].
    pub(crate) fn outer(&self, number: usize) -> Option<&AtomicU64> {
        self.shared.outer(number)
    }

    /// See [`Thread::handed`](leaktap_agent::layout::Thread::handed).
    pub(crate) fn handed(&self, number: usize) -> Option<&AtomicU64> {
        self.shared.handed(number)
    }

    /// The function that a user has told of, in which the thread of that number is:
    /// [`leaktap_agent::layout::Thread::pool`].
    pub(crate) fn pool(&self, number: usize) -> Option<&[AtomicU64; 2]> {
        self.shared.pool(number)
    }

    /// Several threads have `fs` as their fs base.
    pub(crate) fn share_state(&self, fs: u64) {
        let first = set_of_keys(fs, KEY_BITS) * KEYS;
        let keys = self.shared.keys().get(first..first + KEYS);
        let keys = keys.unwrap_or_default();
        let has = |what: u64| keys.iter().any(|key| key.load(Acquire) == what);
        if fs == 0 || has(shared_key(fs)) {
            return;
        }
        let replace = |old: u64| {
            let exchange = |key: &AtomicU64| {
                let exchanged = key.compare_exchange(old, shared_key(fs), AcqRel, Relaxed);
                exchanged.is_ok()
            };
            keys.iter().any(exchange)
        };
        // Where there is no place for this key, there is none for theirs.
        let _ = replace(fs) || replace(0);
    }

    /// One thread alone has `fs` as its fs base again.
    pub(crate) fn unshare_state(&self, fs: u64) {
        let mut keys = self.shared.keys().iter();
        let index = keys.position(|key| key.load(Acquire) == shared_key(fs));
        // A call that was under way when it was shared writes to that state when it returns.
        let is_idle = |index: &usize| {
            let outer = self.shared.outer(*index);
            outer.is_some_and(|outer| outer.load(Acquire) == 0)
        };
        if let Some(index) = index.filter(is_idle) {
            self.shared.forget_thread(index);
        }
    }

    /// No thread has `fs` as its fs base any more.
    pub(crate) fn thread_gone(&self, fs: u64) {
        let keys = self.shared.keys();
        let is_its = |key: u64| key == fs || key == shared_key(fs);
        let index = keys.iter().position(|key| is_its(key.load(Acquire)));
        if let Some(index) = index.filter(|_| fs != 0) {
            self.shared.put_back(OWN_STRIPE, index);
            self.shared.forget_thread(index);
        }
    }

    /// No thread will return from the calls that it is in.
    pub(crate) fn all_gone(&self) {
        self.shared.put_all_back(OWN_STRIPE);
    }
}
