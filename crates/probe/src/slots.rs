//! Scratch space for displaced instructions: bytes of executable mappings that no code uses.
//!
//! A segment rarely ends where its last page does. What is behind it in that page is mapped,
//! executable, and never run; and it is near enough to the module's code for rip-relative
//! operands. So nothing has to be injected. A slot is needed only while a thread is inside it,
//! and is used for another instruction afterwards; the bytes are put back at the end.
//!
//! A module that is unloaded takes its bytes with it, and its linker frees memory before it says
//! so. So an instruction is moved within its own module, or to one that stays as long as the
//! program does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use leaktap_arch::{PUSH, RETURN_LEN};
use leaktap_image::{Image, Module};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{AllStopped, Memory};

use crate::arch::{OutOfLine, out_of_line};
use crate::breakpoints::NoSlot;

/// Bytes of a slot: enough for any instruction that can be moved, and the jump back.
pub(crate) const SLOT_LEN: usize = 32;

/// A slot, by number. None has the number of one that was unloaded.
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
    slots: Vec<Slot>,
}

/// The slots of a process.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// By the number of their first slot.
    pools: BTreeMap<usize, Pool>,
    /// Where each begins, and that number.
    by_start: BTreeSet<(Addr, usize)>,
    /// The number of the next slot.
    next: usize,
    by_site: HashMap<Addr, SlotId>,
    uses: u64,
}

impl Pool {
    fn new(range: Range<Addr>, module: Range<Addr>, stays: bool) -> Pool {
        let len = range.end.offset_from(range.start).unwrap_or(0) / SLOT_LEN as u64;
        let slot = |index: u64| Slot {
            at: range
                .start
                .wrapping_offset((index * SLOT_LEN as u64) as i64),
            saved: None,
            holds: None,
            threads: 0,
            last_use: 0,
        };
        let slots = (0..len).map(slot).collect();
        Pool {
            range,
            module,
            stays,
            slots,
        }
    }
}

impl Slots {
    /// Adds the unused bytes of modules that are new. Those in `staying` ranges are never unloaded.
    pub(crate) fn set_modules(&mut self, image: &Image, staying: &[Range<Addr>]) {
        let modules = image.modules().iter().filter(|m| !m.is_vdso());
        for (module, range) in modules.flat_map(|m| unused(m).into_iter().map(|r| (m.range(), r))) {
            let stays = staying.contains(&module);
            match self.pool_at(&range) {
                Some(pool) => pool.stays = stays,
                None => self.add(Pool::new(range, module, stays)),
            }
        }
    }

    /// Adds the unused bytes of modules that are `added`.
    pub(crate) fn add_modules(&mut self, added: &[Module], staying: &[Range<Addr>]) {
        for module in added.iter().filter(|module| !module.is_vdso()) {
            let stays = staying.contains(&module.range());
            for range in unused(module) {
                self.add(Pool::new(range, module.range(), stays));
            }
        }
    }

    fn pool_at(&mut self, range: &Range<Addr>) -> Option<&mut Pool> {
        let there = self
            .by_start
            .range((range.start, 0)..=(range.start, usize::MAX));
        let is_it = |first: &usize| self.pools.get(first).is_some_and(|p| p.range == *range);
        let first = there.map(|(_, first)| *first).find(is_it)?;
        self.pools.get_mut(&first)
    }

    fn add(&mut self, pool: Pool) {
        let first = self.next;
        self.next += pool.slots.len();
        self.by_start.insert((pool.range.start, first));
        self.pools.insert(first, pool);
    }

    fn slot(&self, SlotId(id): SlotId) -> Option<&Slot> {
        let (first, pool) = self.pools.range(..=id).next_back()?;
        pool.slots.get(id - first)
    }

    fn slot_mut(&mut self, SlotId(id): SlotId) -> Option<&mut Slot> {
        let (first, pool) = self.pools.range_mut(..=id).next_back()?;
        pool.slots.get_mut(id - first)
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
        let uses = self.uses;
        let slot = self.slot_mut(id).ok_or(NoSlot)?;
        slot.threads += 1;
        slot.last_use = uses;
        Ok((id, slot.at))
    }

    /// One thread fewer is inside.
    pub(crate) fn release(&mut self, id: SlotId) {
        if let Some(slot) = self.slot_mut(id) {
            slot.threads = slot.threads.saturating_sub(1);
        }
    }

    /// Where a thread at `ip` is, if that is inside slot `id`, which it entered for `site`.
    pub(crate) fn original(&self, id: SlotId, site: Addr, ip: Addr) -> Option<Place> {
        let slot = self.slot(id)?;
        let (_, moved) = slot.holds.as_ref().filter(|(at, _)| *at == site)?;
        place(moved, slot.at, site, ip)
    }

    /// What was in `range` is no longer mapped.
    pub(crate) fn forget(&mut self, range: &Range<Addr>) {
        let gone = (range.start, 0)..(range.end, 0);
        let gone: Vec<_> = self.by_start.range(gone).copied().collect();
        for (start, first) in gone {
            self.by_start.remove(&(start, first));
            self.pools.remove(&first);
        }
        let mut by_site = std::mem::take(&mut self.by_site);
        by_site.retain(|site, id| !range.contains(site) && self.slot(*id).is_some());
        self.by_site = by_site;
    }

    /// Puts back what was in the slots, where they are still ours: memory unmapped since then is
    /// somebody else's.
    pub(crate) fn restore(&self, memory: &Memory, _: &AllStopped<'_>) {
        for slot in self.pools.values().flat_map(|pool| &pool.slots) {
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
        let lasts = |(_, pool): &(&usize, &Pool)| pool.stays || pool.module.contains(&site);
        let mut pools: Vec<_> = self.pools.iter().filter(lasts).collect();
        pools.sort_by_key(|(_, pool)| pool.range.start.get().abs_diff(site.get()));
        pools.into_iter().flat_map(|(first, pool)| {
            let mut slots: Vec<_> = (*first..).map(SlotId).zip(&pool.slots).collect();
            slots.sort_by_key(|(_, slot)| slot.last_use);
            slots
        })
    }

    /// Moves the instruction of `site` to the nearest slot that no thread is in; the program itself
    /// never runs these bytes. So others may run meanwhile.
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
        let slot = self.slot_mut(id).ok_or(NoSlot)?;
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

/// Where a thread at `ip` is, if that is in a slot at `at`, where `moved` is of the instruction at
/// `site`.
pub(crate) fn place(moved: &OutOfLine, at: Addr, site: Addr, ip: Addr) -> Option<Place> {
    let offset = usize::try_from(ip.offset_from(at)?).ok()?;
    if offset >= moved.code.len() {
        return None;
    }
    Some(match moved.original(offset) {
        Some(original) => Place {
            ip: site.wrapping_offset(original as i64),
            pop: 0,
        },
        // Between the push and the jump that stand for a call: as if it had not begun.
        None if moved.code.first() == Some(&PUSH) => Place {
            ip: site,
            pop: RETURN_LEN as i64,
        },
        None => Place { ip: site, pop: 0 },
    })
}

/// The bytes of a module's executable mappings behind the segments that they map.
pub(crate) fn unused(module: &Module) -> Vec<Range<Addr>> {
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
        .filter(|r| r.start.wrapping_offset(SLOT_LEN as i64) <= r.end)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> Range<Addr> {
        Addr::new(start)..Addr::new(end)
    }

    fn is_in(slots: &Slots, site: u64) -> Vec<u64> {
        let slots = slots.nearest_first(Addr::new(site));
        slots.map(|(_, slot)| slot.at.get()).collect()
    }

    #[test]
    fn an_instruction_is_moved_within_its_module_or_to_one_that_stays() {
        let mut slots = Slots::default();
        let library = range(0x1000, 0x3000);
        slots.add(Pool::new(range(0x2fc0, 0x3000), library.clone(), false));
        slots.add(Pool::new(
            range(0x8fd0, 0x9000),
            range(0x7000, 0xa000),
            true,
        ));
        assert_eq!(is_in(&slots, 0x1234), [0x2fc0, 0x2fe0, 0x8fd0]);
        assert_eq!(is_in(&slots, 0x5000), [0x8fd0]);
        let of_library = SlotId(1);
        slots.by_site.insert(Addr::new(0x1234), of_library);
        slots.by_site.insert(Addr::new(0x7234), SlotId(2));
        slots.forget(&library);
        assert_eq!(is_in(&slots, 0x1234), [0x8fd0]);
        assert_eq!(slots.by_site.len(), 1);
        // Another one there has other slots.
        slots.add(Pool::new(range(0x2fc0, 0x3000), library, false));
        assert!(slots.slot(of_library).is_none() && slots.slot(SlotId(4)).is_some());
        assert_eq!(slots.pools.len(), 2);
    }
}
