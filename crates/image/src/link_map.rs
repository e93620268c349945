//! The dynamic linker's own list of what it has loaded (`<link.h>`, the debugger interface).

use std::collections::HashSet;

use leaktap_memory::{Addr, ReadMemory};

use crate::elf::{u32_at, u64_at};

/// Bytes of an entry, up to `l_next`.
pub(crate) const LINK_LEN: usize = 32;
/// Most entries followed: a list of the target may be as long as its memory.
const MOST_MODULES: usize = 1 << 16;
/// Most namespaces; glibc has 16.
const MOST_NAMESPACES: usize = 64;
const MOST_PROGRAM_HEADERS: u64 = 1 << 12;
const MOST_DYNAMIC_ENTRIES: u64 = 1 << 12;
const PT_DYNAMIC: u32 = 2;
const PT_PHDR: u32 = 6;
const DT_NULL: u64 = 0;
const DT_DEBUG: u64 = 21;

/// `struct r_debug`: how the dynamic linker talks to debuggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RDebug {
    /// Where the structure is.
    pub at: Addr,
    /// `r_version`; from 2 on there may be further namespaces (dlmopen(3)).
    pub version: u32,
    /// What the linker is doing: of the first namespace that is changing, if one is.
    pub state: LinkState,
    /// A function that the linker calls before and after it changes the list.
    pub r_brk: Addr,
    /// Where the linker itself is loaded.
    pub ldbase: Addr,
    map: Addr,
}

/// `r_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// RT_CONSISTENT: the list is complete.
    Consistent,
    /// RT_ADD: modules are being added.
    Add,
    /// RT_DELETE: modules are being removed.
    Delete,
    /// A number that link.h does not have.
    Unknown(u32),
}

/// `struct link_map`, as far as it is public and used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Where the entry itself is.
    pub at: Addr,
    /// The dynamic section of the module (`l_ld`).
    pub dynamic: Addr,
    /// Which list it is in: 0 for that of the program, others for those of dlmopen(3).
    pub namespace: usize,
}

impl LinkState {
    fn new(state: u32) -> LinkState {
        match state {
            0 => LinkState::Consistent,
            1 => LinkState::Add,
            2 => LinkState::Delete,
            other => LinkState::Unknown(other),
        }
    }
}

impl RDebug {
    /// The structure at `at`, or nothing if the linker has not filled it yet.
    pub fn read(at: Addr, memory: &dyn ReadMemory) -> Option<RDebug> {
        let first = RDebug::one(at, memory)?;
        let changing = first
            .namespaces(memory)
            .into_iter()
            .find(|namespace| namespace.state != LinkState::Consistent);
        Some(RDebug {
            state: changing.map_or(first.state, |namespace| namespace.state),
            ..first
        })
    }

    fn one(at: Addr, memory: &dyn ReadMemory) -> Option<RDebug> {
        let mut bytes = [0; 40];
        memory.read(at, &mut bytes).ok()?;
        let version = u32_at(&bytes, 0).filter(|version| *version > 0)?;
        Some(RDebug {
            at,
            version,
            state: LinkState::new(u32_at(&bytes, 24)?),
            r_brk: Addr::new(u64_at(&bytes, 16)?),
            ldbase: Addr::new(u64_at(&bytes, 32)?),
            map: Addr::new(u64_at(&bytes, 8)?),
        })
    }

    /// This one, and from version 2 on those that follow it (`r_next`).
    fn namespaces(self, memory: &dyn ReadMemory) -> Vec<RDebug> {
        let mut found = vec![self];
        let mut last = self;
        while last.version >= 2 && found.len() < MOST_NAMESPACES {
            let next = (last.at.checked_add(40)).and_then(|at| memory.read_u64(at).ok());
            let next = next.map(Addr::new).filter(|next| !next.is_null());
            match next.and_then(|next| RDebug::one(next, memory)) {
                Some(next) => last = next,
                None => break,
            }
            found.push(last);
        }
        found
    }

    /// The modules of all namespaces, in the order of the lists. A list that is unreadable ends
    /// there, and so does one that leads back to itself.
    pub fn links(self, memory: &dyn ReadMemory) -> Vec<Link> {
        let mut seen = HashSet::new();
        self.links_by(memory, |at| {
            let mut bytes = [0; LINK_LEN];
            let is_read = seen.insert(at) && memory.read(at, &mut bytes).is_ok();
            is_read.then_some(bytes)
        })
    }

    /// As [`RDebug::links`], of entries that `read` reads: nothing ends the list, which an entry
    /// that has been read before has to do.
    pub(crate) fn links_by(
        self,
        memory: &dyn ReadMemory,
        mut read: impl FnMut(Addr) -> Option<[u8; LINK_LEN]>,
    ) -> Vec<Link> {
        let mut links = Vec::new();
        for (namespace, debug) in self.namespaces(memory).into_iter().enumerate() {
            let mut at = debug.map;
            while !at.is_null() && links.len() < MOST_MODULES {
                let Some(bytes) = read(at) else {
                    break;
                };
                let word = |offset| u64_at(&bytes, offset).unwrap_or(0);
                links.push(Link {
                    at,
                    dynamic: Addr::new(word(16)),
                    namespace,
                });
                at = Addr::new(word(24));
            }
        }
        links
    }

    /// The structure that the main program's DT_DEBUG leads to; its `count` program headers are at
    /// `headers`. Read from memory alone: the program's file may be out of reach.
    pub fn by_program(headers: Addr, count: u64, memory: &dyn ReadMemory) -> Option<RDebug> {
        let dynamic = dynamic_section(headers, count, memory)?;
        RDebug::read(debug_entry(dynamic, memory)?, memory)
    }
}

/// Where the dynamic section is, says a program's PT_DYNAMIC.
fn dynamic_section(headers: Addr, count: u64, memory: &dyn ReadMemory) -> Option<Addr> {
    let count = count.min(MOST_PROGRAM_HEADERS);
    let len = usize::try_from(count.checked_mul(56)?).ok()?;
    let mut bytes = vec![0; len];
    memory.read(headers, &mut bytes).ok()?;
    let vaddr = |kind: u32| {
        let mut all = bytes.chunks_exact(56);
        let header = all.find(|header| u32_at(header, 0) == Some(kind))?;
        u64_at(header, 16)
    };
    let bias = vaddr(PT_PHDR).map(|at| headers.get().wrapping_sub(at));
    Some(Addr::new(vaddr(PT_DYNAMIC)?.wrapping_add(bias?)))
}

/// DT_DEBUG of the dynamic section at `dynamic`.
pub(crate) fn debug_entry(dynamic: Addr, memory: &dyn ReadMemory) -> Option<Addr> {
    let mut read = 0;
    while read < MOST_DYNAMIC_ENTRIES {
        let (bytes, count) = entries_at(dynamic.checked_add(read * 16)?, memory)?;
        for entry in bytes.chunks_exact(16).take(count) {
            match u64_at(entry, 0)? {
                DT_NULL => return None,
                DT_DEBUG => return u64_at(entry, 8).map(Addr::new).filter(|at| !at.is_null()),
                _ => {}
            }
        }
        read += count as u64;
    }
    None
}

/// Entries of a dynamic section from `at` on, and how many: one, if behind it is nothing to be
/// read.
fn entries_at(at: Addr, memory: &dyn ReadMemory) -> Option<([u8; 512], usize)> {
    let mut bytes = [0; 512];
    match memory.read(at, &mut bytes) {
        Ok(()) => Some((bytes, 32)),
        Err(_) => {
            memory.read(at, bytes.first_chunk_mut::<16>()?).ok()?;
            Some((bytes, 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use leaktap_memory::Unreadable;

    use super::*;

    /// Words from address 0x1000 on.
    struct Words(Vec<u64>);

    impl ReadMemory for Words {
        fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
            let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
            let (from, len) = (at.get().wrapping_sub(0x1000) as usize, buf.len());
            let end = from.checked_add(len);
            let found = end.and_then(|end| bytes.get(from..end));
            buf.copy_from_slice(found.ok_or(Unreadable { at, len })?);
            Ok(())
        }
    }

    /// 65,536 entries were read of it, at each look at the target.
    #[test]
    fn a_list_that_is_a_ring_is_followed_once() {
        // r_debug: version, map, brk, state, base, next; then entries: l_addr, l_name, l_ld,
        // l_next.
        let mut words = vec![2, 0x1030, 0, 0, 0, 0x1000];
        words.extend([0, 0, 7, 0x1050, 0, 0, 8, 0x1030]);
        let memory = Words(words);
        let first = RDebug::read(Addr::new(0x1000), &memory).unwrap();
        let links = [(0x1030, 7), (0x1050, 8)].map(|(at, dynamic)| Link {
            at: Addr::new(at),
            dynamic: Addr::new(dynamic),
            namespace: 0,
        });
        assert_eq!(first.links(&memory), links);
    }
}
