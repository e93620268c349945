//! The dynamic linker's lists: words in memory that lead to one another.
//!
//! An input is memory from [`BASE`] on. Program headers lie at its beginning, and `r_debug` behind
//! them.

use leaktap_image::RDebug;
use leaktap_memory::{Addr, ReadMemory, Unreadable};

use crate::Random;

/// Address of an input's first byte.
const BASE: u64 = 0x1_0000;

/// Program headers, of 56 bytes each.
const HEADERS: usize = 4;

/// Where the first `r_debug` is.
const R_DEBUG: usize = 56 * HEADERS;

/// Longest input.
const LONGEST: usize = 8 << 10;

struct Memory<'a>(&'a [u8]);

impl ReadMemory for Memory<'_> {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        let len = buf.len();
        let found = at.get().checked_sub(BASE).and_then(|from| {
            let from = usize::try_from(from).ok()?;
            self.0.get(from..from.checked_add(len)?)
        });
        buf.copy_from_slice(found.ok_or(Unreadable { at, len })?);
        Ok(())
    }
}

pub(crate) fn parse(bytes: &[u8]) -> bool {
    let memory = Memory(bytes);
    let found = [
        RDebug::by_program(Addr::new(BASE), HEADERS as u64, &memory),
        RDebug::by_program(Addr::new(BASE), u64::MAX, &memory),
        RDebug::read(Addr::new(BASE + R_DEBUG as u64), &memory),
    ];
    let links = found.into_iter().flatten().map(|it| it.links(&memory));
    links.map(|links| links.len()).sum::<usize>() > 0
}

pub(crate) fn mutate(memory: &mut Vec<u8>, random: &mut Random) {
    if memory.len() < 512 || random.one_in(64) {
        *memory = lists(random);
    }
    let len = memory.len();
    match random.below(8) {
        // A pointer to somewhere else.
        0..4 => {
            let to = BASE + 8 * random.below(len / 8 + 1) as u64;
            let at = 8 * random.below(len / 8);
            memory[at..at + 8].copy_from_slice(&to.to_le_bytes());
        }
        4 | 5 => {
            let at = random.below(len);
            random.put(memory, at);
        }
        _ => random.damage(memory, R_DEBUG..len),
    }
    memory.truncate(LONGEST);
}

/// Lists as the dynamic linker makes them: a program, namespaces, their modules.
fn lists(random: &mut Random) -> Vec<u8> {
    let (namespaces, modules) = (1 + random.below(4), 1 + random.below(20));
    let dynamic_at = R_DEBUG + 48 * namespaces;
    let modules_at = dynamic_at + 64;
    let address = |offset: usize| BASE + offset as u64;
    let mut words = Vec::new();
    // PT_PHDR and PT_DYNAMIC, at offsets 0 and 56: type, offset, address.
    words.extend([6, 0, 0, 0, 0, 0, 0]);
    words.extend([2, 0, dynamic_at as u64, 0, 0, 0, 0]);
    words.resize(R_DEBUG / 8, 0);
    for namespace in 0..namespaces {
        let next = R_DEBUG + 48 * (namespace + 1);
        let is_last = namespace + 1 == namespaces;
        let first = modules_at + 40 * (modules * namespace / namespaces);
        words.extend([2, address(first), BASE, random.below(3) as u64, BASE]);
        words.push(if is_last { 0 } else { address(next) });
    }
    words.extend([1, 1, 21, address(R_DEBUG), 5, 5, 0, 0]);
    for module in 0..modules {
        let [here, next] = [module, module + 1].map(|n| address(modules_at + 40 * n));
        let next = if module + 1 == modules { 0 } else { next };
        words.extend([here, BASE, here, next, 0]);
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
