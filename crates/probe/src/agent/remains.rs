//! What a tracer that is killed leaves behind, noted in the shared memory so that the next one can
//! undo it.

use std::mem::size_of;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use leaktap_agent::{REMAINS_AT, REMAINS_LEN, STUB_LEN, Shape, Shared};
use leaktap_image::{Image, Mapping, mappings};
use leaktap_ledger::FamilyId;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{Memory, Tid};

use super::remote::Regions;
use super::room::Room;
use super::shape::way;
use super::stacks::Stacks;
use super::{Agent, Detour, Plan, REGIONS, reserved, unled};
use crate::arch::JUMP_LEN;
use crate::probepoint::{Kind, Probepoint};
use crate::unpatched::Unpatched;
use leaktap_api::{Function, FunctionId, Functions};

/// First of the note.
const MAGIC: u64 = u64::from_le_bytes(*b"leaktap4");

/// What the first word of any leaktap's note begins with.
const ANY: &[u8] = b"leaktap";

const WORD: usize = size_of::<u64>();
/// Words before the entries: the magic one, checksum, shared memory, code regions, how many
/// entries.
const HEAD: usize = ENTRIES_AT + 1;
/// Where code regions are: start and end of each, or 0.
const CODES_AT: usize = 3;
const ENTRIES_AT: usize = CODES_AT + 2 * REGIONS;
const ENTRY: usize = 5;

/// How many there is room for.
pub(super) const MOST: usize = (REMAINS_LEN / WORD - HEAD) / ENTRY;

/// Another leaktap's detours in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// None.
    None,
    /// Some, of a leaktap like this one: can be undone.
    Known,
    /// Some, of another build.
    Unknown,
}

/// Notes what has to be undone: all that leads to `codes`. One that is about to be unmapped is not
/// among these: the program may map something of its own in its place.
pub(super) fn note(agent: &Agent, codes: &[Range<Addr>]) {
    let is_there = |detour: &&Detour| codes.iter().any(|code| code.contains(&detour.stub));
    let detours = agent.detours.iter().filter(is_there);
    let detours: Vec<_> = detours.collect();
    let shared = agent.regions.shared.start;
    if agent.regions.shared.is_empty() {
        return; // it was never made
    }
    let words = noted(shared, codes, &detours);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let at = shared.wrapping_offset(REMAINS_AT as i64);
    let _ = agent.memory.write(at, &bytes); // gone, with the whole process
}

/// Notes `codes` in `own`, which has just been mapped at `shared`: nothing leads there.
pub(super) fn note_first(own: &Shared, shared: Addr, codes: &[Range<Addr>]) {
    let words = noted(shared, codes, &[]);
    // The first last: it says that the others are there.
    for (word, value) in own.remains().iter().zip(words).rev() {
        word.store(value, Release);
    }
}

/// The words of a note.
fn noted(shared: Addr, codes: &[Range<Addr>], detours: &[&Detour]) -> Vec<u64> {
    let mut words = vec![MAGIC, leaktap_agent::checksum(), shared.get()];
    words.extend(
        codes
            .iter()
            .flat_map(|code| [code.start.get(), code.end.get()]),
    );
    words.resize(ENTRIES_AT, 0);
    words.push(detours.len() as u64);
    for detour in detours {
        let mut original = [0; WORD];
        for (byte, replaced) in original.iter_mut().zip(detour.site.replaced()) {
            *byte = *replaced;
        }
        words.extend([
            detour.function.0.into(),
            detour.address.get(),
            detour.site.at().get(),
            detour.stub.get(),
            u64::from_le_bytes(original),
        ]);
    }
    words
}

/// Whether another leaktap's detours are in the process of `memory`, one of whose threads is
/// `thread`: of one that has ended, the kernel shows no mappings.
pub(crate) fn remains(memory: &Memory, thread: Tid) -> Remains {
    let all = mappings(thread.get()).unwrap_or_default();
    let found = |mapping: &Mapping| match words(memory, mapping).unwrap_or_default() {
        words if !is_of(&words, mapping) => Remains::None,
        words if is_ours(&words) => Remains::Known,
        _ => Remains::Unknown,
    };
    let mut found = shared(&all).map(found);
    let found = found.find(|remains| *remains != Remains::None);
    found.unwrap_or_else(|| {
        let is_clean = unled::marked(memory, &all).is_empty()
            && reserved::codes(&all).next().is_none()
            && reserved::shared(&all).is_none()
            && reserved::empty(thread).is_empty();
        match is_clean {
            true => Remains::None,
            false => Remains::Known,
        }
    })
}

/// The agent that another leaktap has left.
pub(super) fn adopt(memory: &Memory, image: &Image) -> Option<Agent> {
    let all = mappings(memory.process().get()).ok()?;
    let noted = shared(&all).find_map(|mapping| {
        let is_its = |words: &Vec<u64>| is_ours(words) && is_of(words, mapping);
        Some((mapping, words(memory, mapping).filter(is_its)?))
    });
    let mut codes = match &noted {
        Some((_, words)) => codes(words.get(CODES_AT..ENTRIES_AT)?),
        None => Vec::new(),
    };
    let unled = unled::marked(memory, &all).into_iter();
    let unled = unled.chain(reserved::codes(&all));
    let unled: Vec<_> = unled.filter(|code| !codes.contains(code)).collect();
    codes.extend(unled);
    let led = noted.filter(|(mapping, _)| mapping.perms.write);
    let agent = match led {
        Some((mapping, words)) => {
            let shared = mapping.start..mapping.end;
            led_by(memory, image, Regions { codes, shared }, &words)?
        }
        None => unfinished(memory, image, codes, &all)?,
    };
    let open = match agent.regions.parts().is_empty() {
        true => reserved::empty(memory.process()),
        false => reserved::descriptors(memory.process()),
    };
    Some(Agent { open, ..agent })
}

/// What was to become one. What is reserved for shared memory is but another region: it is the
/// first to go, and the note with it, which cannot be written to.
fn unfinished(
    memory: &Memory,
    image: &Image,
    mut codes: Vec<Range<Addr>>,
    all: &[Mapping],
) -> Option<Agent> {
    for code in &codes {
        unled::mark(memory, code.start);
    }
    codes.extend(reserved::shared(all));
    let plan = Plan::new(memory.process(), image, memory, &[]);
    let shared = Range::default();
    another(memory, plan, Regions { codes, shared })
}

/// One to which functions lead, or may, as `words` say.
fn led_by(memory: &Memory, image: &Image, regions: Regions, words: &[u64]) -> Option<Agent> {
    let count = *words.get(ENTRIES_AT)?;
    let functions = Functions::default();
    let entries = words.get(HEAD..)?.chunks_exact(ENTRY);
    // One that is not known leads to the agent all the same.
    let entries: Option<Vec<Entry>> = entries
        .take(usize::try_from(count).ok()?)
        .map(|words| Entry::new(words, &functions))
        .collect();
    let entries = entries?;
    let originals = entries.iter().map(|entry| {
        let replaced = entry.original.iter().copied().take(JUMP_LEN);
        (entry.jump, replaced.collect())
    });
    let restored = Unpatched::new(memory, originals.collect());
    let points: Vec<_> = entries.iter().map(Entry::point).collect();
    let plan = Plan::new(memory.process(), image, &restored, &points);
    let detours = entries.iter().filter_map(|entry| {
        let site = plan.site(entry.address)?.as_ref().ok()?.clone();
        let moved_at = entry.stub.wrapping_offset(STUB_LEN as i64);
        Some(Detour {
            function: entry.function,
            family: FamilyId::FIRST, // its results stay behind
            known: entry.known.clone(),
            address: entry.address,
            moved: site.moved(moved_at).ok()?,
            site,
            stub: entry.stub,
            shape: entry.shape(memory)?,
            moved_at,
            patched: true,
        })
    });
    let detours: Vec<_> = detours.collect();
    let is_known = detours.len() == entries.len();
    let agent = another(memory, plan, regions)?;
    is_known.then_some(Agent { detours, ..agent })
}

/// Another leaktap's agent, without detours.
fn another(memory: &Memory, plan: Plan, regions: Regions) -> Option<Agent> {
    // Its results stay behind; ours are elsewhere.
    let own = Arc::new(Shared::private().ok()?);
    Some(Agent {
        memory: memory.clone(),
        shared: Arc::clone(&own),
        room: Room::new(own, regions.shared.start),
        regions,
        stacks: Stacks::default(),
        detours: Vec::new(),
        is_unguarded: true,
        parts: Vec::new(),
        open: Vec::new(),
        plan,
        locked: None,
        unread: 0,
        seen: 0,
        waker: None,
    })
}

fn shared(all: &[Mapping]) -> impl Iterator<Item = &Mapping> {
    let is_it = |mapping: &&Mapping| mapping.perms.shared && reserved::is_named(mapping);
    all.iter().filter(is_it)
}

fn words(memory: &Memory, shared: &Mapping) -> Option<Vec<u64>> {
    let mut bytes = vec![0; REMAINS_LEN];
    let at = shared.start.checked_add(REMAINS_AT)?;
    memory.read(at, &mut bytes).ok()?;
    let word = |bytes: &[u8]| bytes.first_chunk().map(|word| u64::from_le_bytes(*word));
    bytes.chunks_exact(WORD).map(word).collect()
}

/// The code regions that are there, as they were noted.
fn codes(words: &[u64]) -> Vec<Range<Addr>> {
    let pairs = words.chunks_exact(2).filter_map(|pair| pair.first_chunk());
    let ranges = pairs.map(|[start, end]| Addr::new(*start)..Addr::new(*end));
    ranges.filter(|range| !range.is_empty()).collect()
}

fn is_ours(words: &[u64]) -> bool {
    words.starts_with(&[MAGIC, leaktap_agent::checksum()])
}

/// Whether the memory in `mapping` is shared with an agent there. A leaktap at work has it
/// elsewhere than its target; what has our name alone, as any file may have, has no such note.
fn is_of(words: &[u64], mapping: &Mapping) -> bool {
    let [magic, _, start, ..] = words else {
        return false;
    };
    magic.to_le_bytes().starts_with(ANY) && *start == mapping.start.get()
}

/// A detour, as it was noted.
#[derive(Clone, Debug)]
struct Entry {
    function: FunctionId,
    known: Function,
    address: Addr,
    /// Where the jump is.
    jump: Addr,
    stub: Addr,
    original: [u8; WORD],
}

impl Entry {
    fn new(words: &[u64], functions: &Functions) -> Option<Entry> {
        let [function, address, jump, stub, original] = *words.first_chunk()?;
        let function = FunctionId(u8::try_from(function).ok()?);
        Some(Entry {
            function,
            known: functions.get(function)?.clone(),
            address: Addr::new(address),
            jump: Addr::new(jump),
            stub: Addr::new(stub),
            original: original.to_le_bytes(),
        })
    }

    /// How calls go, as its stub begins: a full one with a push.
    fn shape(&self, memory: &Memory) -> Option<Shape> {
        let lean = way(&self.known)?;
        let mut first = [0];
        memory.read(self.stub, &mut first).ok()?;
        Some(if first == [0xff] { lean.full() } else { lean })
    }

    fn point(&self) -> Probepoint {
        Probepoint {
            function: self.function,
            known: self.known.clone(),
            family: FamilyId::FIRST,
            is_told: false,
            module: std::path::PathBuf::new(),
            address: self.address,
            kind: Kind::Breakpoint,
            refusal: None,
        }
    }
}
