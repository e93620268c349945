//! The int3s of a process, and how a thread gets past one without lifting it.
//!
//! A thread that has hit an int3 goes on in a *slot*: the displaced instruction, moved, and a jump
//! back. So the int3 stays for the other threads, and nothing is single-stepped.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::ops::Range;

use leaktap_arch::{BREAKPOINT, LONGEST};
use leaktap_image::{Image, Module};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{AllStopped, Memory, Registers};

use crate::journal::{Change, Journal};
use crate::slots::{SlotId, Slots};
use crate::unpatched::Unpatched;
use leaktap_api::FunctionId;

/// What a breakpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The first instruction of a probed function.
    Entry(FunctionId),
    /// The instruction that this function returns to.
    Result(FunctionId),
    /// sigaction(2), pthread_sigmask(3).
    Signals,
}

/// What the breakpoint at an address is for: it may be for several things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Purposes {
    pub(crate) entry: Option<FunctionId>,
    /// The function that returned here last.
    pub(crate) result: Option<FunctionId>,
}

#[derive(Debug)]
struct Site {
    /// What was at the address, without our int3s.
    original: [u8; LONGEST],
    len: usize,
    purposes: Purposes,
    /// In memory that no file backs: code that a compiler may rewrite. Such an int3 goes as soon
    /// as no call waits for it.
    volatile: bool,
    one_byte: bool,
    /// Calls that are to return here.
    waiting: usize,
}

/// No slot is free: each is held by a thread that may be inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoSlot;

/// The breakpoint cannot be set: the memory is gone, or the instruction cannot be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// The slot that a thread was last sent to, which it may still be inside of.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<(SlotId, Addr)>);

impl Held {
    pub(crate) fn any(&self) -> bool {
        self.0.is_some()
    }
}

#[derive(Debug)]
pub(crate) struct Breakpoints {
    memory: Memory,
    sites: HashMap<Addr, Site>,
    slots: Slots,
    files: Vec<Range<Addr>>,
    /// Where volatile ones were: another thread may have hit one that is gone when we hear of it.
    removed: HashSet<Addr>,
    journal: Journal,
}

impl Breakpoints {
    pub(crate) fn new(memory: Memory) -> Breakpoints {
        Breakpoints {
            memory,
            sites: HashMap::new(),
            slots: Slots::default(),
            files: Vec::new(),
            removed: HashSet::new(),
            journal: Journal::default(),
        }
    }

    /// Notes in `file` from now on which bytes are replaced.
    pub(crate) fn set_journal(&mut self, file: Option<File>) {
        self.journal = Journal(file);
    }

    /// Tells where modules are: their unused bytes become slots. Those in `staying` ranges are
    /// never unloaded.
    pub(crate) fn set_modules(&mut self, image: &Image, staying: &[Range<Addr>]) {
        let executable = image
            .modules()
            .iter()
            .flat_map(|module| module.executable());
        self.files = executable.cloned().collect();
        self.slots.set_modules(image, staying);
    }

    /// Tells of modules that are new, as [`Breakpoints::set_modules`] of all.
    pub(crate) fn add_modules(&mut self, added: &[Module], staying: &[Range<Addr>]) {
        let executable = added.iter().flat_map(Module::executable);
        self.files.extend(executable.cloned());
        self.slots.add_modules(added, staying);
    }

    /// Sets a breakpoint at `at`, or adds a purpose to the one there. That is one byte: threads may
    /// run meanwhile, and run into it or not.
    pub(crate) fn insert(&mut self, at: Addr, purpose: Purpose) -> Result<(), Refused> {
        if !self.sites.contains_key(&at) {
            let site = self.new_site(at)?;
            let original = site.original[0];
            self.journal.note(Change::Set {
                at,
                original,
                written: BREAKPOINT,
            });
            self.memory.write(at, &[BREAKPOINT]).map_err(|_| Refused)?;
            self.sites.insert(at, site);
        }
        if let Some(site) = self.sites.get_mut(&at) {
            match purpose {
                Purpose::Entry(function) => site.purposes.entry = Some(function),
                Purpose::Result(function) => {
                    site.purposes.result = Some(function);
                    site.waiting += 1;
                }
                Purpose::Signals => {}
            }
        }
        Ok(())
    }

    /// What we write at these places, in code of our own, comes over `original`, or goes.
    pub(crate) fn note_own(
        &mut self,
        places: impl Iterator<Item = Addr>,
        original: u8,
        written: u8,
        come: bool,
    ) {
        for at in places {
            self.journal.note(match come {
                true => Change::Set {
                    at,
                    original,
                    written,
                },
                false => Change::Lifted { at },
            });
        }
    }

    /// Whether there is any that sees calls.
    pub(crate) fn see_calls(&self) -> bool {
        let mut sites = self.sites.values();
        sites.any(|site| site.purposes != Purposes::default())
    }

    /// What is 0 at `at` when the tracer has gone is an int3's byte, or not any longer.
    pub(crate) fn note_presence(&mut self, at: Addr, come: bool) {
        self.note_own(std::iter::once(at), 0, BREAKPOINT, come);
    }

    /// Takes the breakpoint at `at` away. A thread that ran might have hit it, and not said so yet.
    pub(crate) fn lift(&mut self, at: Addr, _: &AllStopped<'_>) {
        if let Some(site) = self.sites.remove(&at) {
            restore_site(&self.memory, at, &site);
            self.journal.note(Change::Lifted { at });
        }
    }

    /// Whether somebody else has written over one of these int3s, and may have kept a copy of it.
    pub(crate) fn is_overwritten(&self) -> bool {
        let mut fixed = self.sites.iter().filter(|(_, site)| !site.volatile);
        fixed.any(|(&at, _)| {
            let mut now = [BREAKPOINT];
            self.memory.read(at, &mut now).is_ok() && now != [BREAKPOINT]
        })
    }

    /// Memory as it is without breakpoints.
    pub(crate) fn unpatched(&self) -> Unpatched<'_> {
        let sites = self.sites.iter();
        let originals = sites.map(|(&at, site)| (at, vec![site.original[0]]));
        Unpatched::new(&self.memory, originals.collect())
    }

    /// Whether there is a breakpoint in `range`, but for those in code that may be rewritten at any
    /// time.
    pub(crate) fn is_set_in(&self, range: &Range<Addr>) -> bool {
        let mut fixed = self.sites.iter().filter(|(_, site)| !site.volatile);
        fixed.any(|(at, _)| range.contains(at))
    }

    /// What the breakpoint at `at` is for, if there is one.
    pub(crate) fn purposes(&self, at: Addr) -> Option<Purposes> {
        self.sites.get(&at).map(|site| site.purposes)
    }

    /// True if a thread with its ip behind the first byte of `at` may have got there without an
    /// int3: the instruction there is one byte long. Also where there is no breakpoint.
    pub(crate) fn is_ambiguous(&self, at: Addr) -> bool {
        self.sites.get(&at).is_none_or(|site| site.one_byte)
    }

    /// Where a thread at the breakpoint `at` has to go on. It holds that slot until it is seen
    /// elsewhere.
    pub(crate) fn step_over(&mut self, at: Addr, held: &mut Held) -> Result<Addr, NoSlot> {
        self.release(held);
        let Some(site) = self.sites.get(&at) else {
            return Ok(at);
        };
        let bytes = &site.original[..site.len];
        let (id, slot) = self.slots.acquire(at, bytes, &self.memory)?;
        *held = Held(Some((id, at)));
        Ok(slot)
    }

    /// If the thread of `registers` is inside the slot it holds, moves it to where in the program
    /// this is, and returns true. It holds no slot afterwards.
    pub(crate) fn leave(&mut self, held: &mut Held, registers: &mut Registers) -> bool {
        let Some((id, at)) = held.0 else {
            return false;
        };
        let moved = match self.slots.original(id, at, registers.ip()) {
            None => false,
            Some(place) => {
                registers.set_ip(place.ip);
                registers.set_sp(registers.sp().wrapping_offset(place.pop));
                true
            }
        };
        self.release(held);
        moved
    }

    /// The thread that held a slot is elsewhere, or gone.
    pub(crate) fn release(&mut self, held: &mut Held) {
        if let Some((id, _)) = held.0.take() {
            self.slots.release(id);
        }
    }

    /// One of the calls that are to return to `at` has returned. A volatile breakpoint goes while
    /// others run: one that has hit it is told apart by [`Breakpoints::was_here`].
    pub(crate) fn returned(&mut self, at: Addr) {
        let Some(site) = self.sites.get_mut(&at) else {
            return;
        };
        site.waiting = site.waiting.saturating_sub(1);
        if site.volatile && site.waiting == 0 && site.purposes.entry.is_none() {
            restore_site(&self.memory, at, site);
            self.journal.note(Change::Lifted { at });
            self.sites.remove(&at);
            self.removed.insert(at);
        }
    }

    /// True if a thread that reports an int3 at `at` has hit one of ours that is gone by now.
    pub(crate) fn was_here(&self, at: Addr) -> bool {
        let mut now = [BREAKPOINT];
        self.removed.contains(&at) && self.memory.read(at, &mut now).is_ok() && now[0] != BREAKPOINT
    }

    /// What was in `range` is no longer mapped.
    pub(crate) fn forget(&mut self, range: &Range<Addr>) {
        for &at in self.sites.keys().filter(|at| range.contains(at)) {
            self.journal.note(Change::Lifted { at });
        }
        self.sites.retain(|at, _| !range.contains(at));
        self.files.retain(|file| !range.contains(&file.start));
        self.slots.forget(range);
    }

    /// Takes every int3 and every slot out of `memory`: this process's, or a copy's, where all are
    /// stopped.
    pub(crate) fn restore(&self, memory: &Memory, stopped: &AllStopped<'_>) {
        for (&at, site) in &self.sites {
            restore_site(memory, at, site);
        }
        self.slots.restore(memory, stopped);
    }

    fn new_site(&self, at: Addr) -> Result<Site, Refused> {
        let mut original = [0; LONGEST];
        let len = self.memory.read_partial(at, &mut original);
        if len == 0 {
            return Err(Refused);
        }
        for (offset, byte) in (0i64..).zip(&mut original[..len]) {
            if let Some(other) = self.sites.get(&at.wrapping_offset(offset)) {
                *byte = other.original[0];
            }
        }
        let displaced = self.slots.displaced(at, &original[..len]).ok_or(Refused)?;
        let volatile = !self.files.iter().any(|range| range.contains(&at));
        let purposes = Purposes::default();
        Ok(Site {
            original,
            len,
            purposes,
            volatile,
            one_byte: displaced == 1,
            waiting: 0,
        })
    }
}

/// Puts the byte back if the int3 is still there: memory unmapped since then is somebody else's.
fn restore_site(memory: &Memory, at: Addr, site: &Site) {
    let mut now = [0];
    if memory.read(at, &mut now).is_ok() && now[0] == BREAKPOINT {
        // A failure means that the memory has just gone, with the whole process.
        let _ = memory.write(at, &site.original[..1]);
    }
}
