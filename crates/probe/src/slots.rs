//! Scratch space for displaced instructions: bytes of executable mappings that no code uses.
//!
//! A segment rarely ends where its last page does. What is behind it in that page is mapped,
//! executable, and never run; and it is near enough to the module's code for rip-relative
//! operands. So nothing has to be injected. A slot is needed only while a thread is inside it,
//! and is used for another instruction afterwards; the bytes are put back at the end.
//!
//! A module that is unloaded takes its bytes with it, and its linker frees memory before it says so. So an instruction is moved
//! within its own module, or to one that stays as long as the program does.

use std::collections::HashMap;
use std::ops::Range;

use leaktap_image::{Image, Module};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::Memory;

use crate::breakpoints::NoSlot;
use crate::relocate::{OutOfLine, out_of_line};

/// Bytes of a slot: enough for any instruction that can be moved, and the jump back.
const SLOT_LEN: usize = 32;

/// A slot, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SlotId(usize);

/// Where in the program a thread inside a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its instruction.
    pub(crate) ip: Addr,
    /// Bytes to take off its stack: a moved `call` that has pushed and not yet jumped.
    pub(crate) pop: i64,
}

#[derive(Debug)]
struct Slot {
    at: Addr,
    saved: Option<[u8; SLOT_LEN]>,
    holds: Option<(Addr, OutOfLine)>,
    threads: usize,
    last_use: u64,
}

/// The unused bytes at the end of a mapping.
#[derive(Debug)]
struct Pool {
    range: Range<Addr>,
    /// Where the module is.
    module: Range<Addr>,
    /// That is never unloaded.
    stays: bool,
    /// Its slots, by index.
    slots: Range<usize>,
}

/// The slots of a process.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    pools: Vec<Pool>,
    slots: Vec<Slot>,
    by_site: HashMap<Addr, SlotId>,
    uses: u64,
}

impl Slots {
    /// Adds the unused bytes of modules that are new. Those in `staying` ranges are never unloaded.
    pub(crate) fn set_modules(&mut self, image: &Image, staying: &[Range<Addr>]) {
        let modules = image.modules().iter().filter(|m| !m.is_vdso());
        for (module, range) in modules.flat_map(|m| unused(m).into_iter().map(|r| (m.range(), r))) {
            let stays = staying.contains(&module);
            if let Some(pool) = self.pools.iter_mut().find(|pool| pool.range == range) {
                pool.stays = stays;
                continue;
            }
            let first = self.slots.len();
            let end = range.end.wrapping_offset(-(SLOT_LEN as i64));
            let mut at = range.start;
            while at <= end {
                self.slots.push(Slot {
                    at,
                    saved: None,
                    holds: None,
                    threads: 0,
                    last_use: 0,
                });
                at = at.wrapping_offset(SLOT_LEN as i64);
            }
            let slots = first..self.slots.len();
            self.pools.push(Pool {
                range,
                module,
                stays,
                slots,
            });
        }
    }

    /// The length of the instruction at `site`, if it can be moved to some slot.
    pub(crate) fn displaced(&self, site: Addr, bytes: &[u8]) -> Option<usize> {
        let moved = |slot: &Slot| out_of_line(bytes, site, slot.at, SLOT_LEN).ok();
        self.nearest_first(site)
            .find_map(|(_, slot)| Some(moved(slot)?.displaced))
    }

    /// A slot with the instruction `bytes` of `site` for one more thread, and its address.
    pub(crate) fn acquire(
        &mut self,
        site: Addr,
        bytes: &[u8],
        memory: &Memory,
    ) -> Result<(SlotId, Addr), NoSlot> {
        self.uses += 1;
        let id = match self.by_site.get(&site) {
            Some(&id) => id,
            None => self.fill(site, bytes, memory)?,
        };
        let slot = self.slots.get_mut(id.0).ok_or(NoSlot)?;
        slot.threads += 1;
        slot.last_use = self.uses;
        Ok((id, slot.at))
    }

    /// One thread fewer is inside.
    pub(crate) fn release(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(id.0) {
            slot.threads = slot.threads.saturating_sub(1);
        }
    }

    /// Where a thread at `ip` is, if that is inside slot `id`, which it entered for `site`.
    pub(crate) fn original(&self, id: SlotId, site: Addr, ip: Addr) -> Option<Place> {
        let slot = self.slots.get(id.0)?;
        let (_, moved) = slot.holds.as_ref().filter(|(at, _)| *at == site)?;
        let offset = usize::try_from(ip.offset_from(slot.at)?).ok()?;
        if offset >= moved.code.len() {
            return None;
        }
        Some(match moved.original(offset) {
            Some(original) => Place {
                ip: site.wrapping_offset(original as i64),
                pop: 0,
            },
            // Between the push and the jump that stand for a call: as if it had not begun.
            None if moved.code.first() == Some(&0x68) => Place { ip: site, pop: 8 },
            None => Place { ip: site, pop: 0 },
        })
    }

    /// What was in `range` is no longer mapped.
    pub(crate) fn forget(&mut self, range: &Range<Addr>) {
        self.pools.retain(|pool| !range.contains(&pool.range.start));
        for slot in self
            .slots
            .iter_mut()
            .filter(|slot| range.contains(&slot.at))
        {
            // Never chosen again: kept so that ids stay what they are.
            *slot = Slot {
                at: Addr::default(),
                saved: None,
                holds: None,
                threads: 1,
                last_use: 0,
            };
        }
        let slots = &self.slots;
        let stays = |id: &SlotId| slots.get(id.0).is_some_and(|slot| slot.holds.is_some());
        self.by_site
            .retain(|site, id| !range.contains(site) && stays(id));
    }

    /// Puts back what was in the slots, where they are still ours: memory unmapped since then is somebody else's.
    pub(crate) fn restore(&self, memory: &Memory) {
        for slot in &self.slots {
            let (Some(saved), Some((_, moved))) = (&slot.saved, &slot.holds) else {
                continue;
            };
            let mut now = vec![0; moved.code.len()];
            if memory.read(slot.at, &mut now).is_ok() && now[..] == moved.code[..] {
                // A failure means that the memory has just gone, with the whole process.
                let _ = memory.write(slot.at, saved);
            }
        }
    }

    fn nearest_first(&self, site: Addr) -> impl Iterator<Item = (SlotId, &Slot)> {
        let lasts = |pool: &&Pool| pool.stays || pool.module.contains(&site);
        let mut pools: Vec<_> = self.pools.iter().filter(lasts).collect();
        pools.sort_by_key(|pool| pool.range.start.get().abs_diff(site.get()));
        pools.into_iter().flat_map(|pool| {
            let slots = self.slots.get(pool.slots.clone()).unwrap_or_default();
            let mut slots: Vec<_> = pool.slots.clone().map(SlotId).zip(slots).collect();
            slots.sort_by_key(|(_, slot)| slot.last_use);
            slots
        })
    }

    /// Moves the instruction of `site` to the nearest slot that no thread is in.
    fn fill(&mut self, site: Addr, bytes: &[u8], memory: &Memory) -> Result<SlotId, NoSlot> {
        let free = |(_, slot): &(SlotId, &Slot)| slot.threads == 0;
        let fits = |(id, slot): (SlotId, &Slot)| {
            Some((id, out_of_line(bytes, site, slot.at, SLOT_LEN).ok()?))
        };
        let (id, moved) = self
            .nearest_first(site)
            .filter(free)
            .find_map(fits)
            .ok_or(NoSlot)?;
        let slot = self.slots.get_mut(id.0).ok_or(NoSlot)?;
        if slot.saved.is_none() {
            let mut saved = [0; SLOT_LEN];
            memory.read(slot.at, &mut saved).map_err(|_| NoSlot)?;
            slot.saved = Some(saved);
        }
        memory.write(slot.at, &moved.code).map_err(|_| NoSlot)?;
        if let Some((old, _)) = slot.holds.replace((site, moved)) {
            self.by_site.remove(&old);
        }
        self.by_site.insert(site, id);
        Ok(id)
    }
}

/// The bytes of a module's executable mappings behind the segments that they map.
fn unused(module: &Module) -> Vec<Range<Addr>> {
    let end_of_code = |mapping: &Range<Addr>| {
        let ends = module.file().segments().iter().map(|segment| {
            let len = segment.file_size.max(segment.mem_size);
            module.addr(leaktap_memory::Svma(segment.svma.wrapping_add(len)))
        });
        ends.filter(|end| mapping.start < *end && *end <= mapping.end)
            .max()
    };
    let align = |at: Addr| Addr::new(at.get().next_multiple_of(16));
    let behind = |mapping: &Range<Addr>| Some(align(end_of_code(mapping)?)..mapping.end);
    module
        .executable()
        .iter()
        .filter_map(behind)
        .filter(|r| r.start < r.end)
        .collect()
}
