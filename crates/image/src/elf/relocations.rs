use object::elf::{self, RelocationType};

use super::dynamic::Dynamic;
use super::header::Header;
use super::source::Source;
use super::symbols::hash;
use super::words::{short_string_at, string_at, u32_at, u64_at};
use leaktap_memory::Svma;

/// Bytes of a relocation in the file (`Elf64_Rela`).
const RELA_SIZE: usize = 24;

/// A word that the dynamic linker fills with the address of a function: a relocation of type
/// JUMP_SLOT, GLOB_DAT or 64 (psABI x86-64, section 4.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where the word is.
    pub svma: Svma,
    /// JUMP_SLOT: it may point back at its PLT entry until the first call.
    pub lazy: bool,
}

/// The relocations that tell which code an IFUNC has chosen.
#[derive(Debug, Default)]
pub(crate) struct Relocations {
    named: Vec<Named>,
    irelative: Vec<(Svma, Svma)>,
}

#[derive(Debug)]
struct Named {
    hash: u32,
    name: u32,
    slot: Slot,
}

impl Relocations {
    /// Reads them by the dynamic section, or by section headers in a static program.
    pub(crate) fn read(
        header: &Header,
        dynamic: Option<&Dynamic>,
        strings: &[u8],
        source: &Source,
    ) -> Relocations {
        let mut found = Relocations::default();
        match dynamic {
            Some(dynamic) => {
                let symbols = symbols(header, dynamic, source).unwrap_or_default();
                for (svma, size) in dynamic.relocation_tables() {
                    let bytes = (header.offset_of(svma, size))
                        .and_then(|offset| source.read(offset, size).ok());
                    found.add(&bytes.unwrap_or_default(), &symbols, strings);
                }
            }
            None => {
                let tables = header.sections.iter().filter(|s| s.kind == elf::SHT_RELA);
                for table in tables {
                    let bytes = source.read(table.offset, table.size);
                    found.add(&bytes.unwrap_or_default(), &[], &[]);
                }
            }
        }
        found
    }

    fn add(&mut self, table: &[u8], symbols: &[u8], strings: &[u8]) {
        for rela in table.chunks_exact(RELA_SIZE) {
            let (Some(at), Some(info), Some(addend)) =
                (u64_at(rela, 0), u64_at(rela, 8), u64_at(rela, 16))
            else {
                return;
            };
            let lazy = match RelocationType(info as u32) {
                elf::R_X86_64_IRELATIVE => {
                    self.irelative.push((Svma(at), Svma(addend)));
                    continue;
                }
                elf::R_X86_64_JUMP_SLOT => true,
                elf::R_X86_64_GLOB_DAT | elf::R_X86_64_64 => false,
                _ => continue,
            };
            let slot = Slot {
                svma: Svma(at),
                lazy,
            };
            self.named.extend(named(slot, info >> 32, symbols, strings));
        }
    }

    pub(crate) fn slots(&self, name: &str, strings: &[u8]) -> Vec<Slot> {
        let wanted = hash(name.as_bytes());
        let same = |named: &&Named| {
            named.hash == wanted && string_at(strings, named.name as usize) == Some(name.as_bytes())
        };
        self.named
            .iter()
            .filter(same)
            .map(|named| named.slot)
            .collect()
    }

    pub(crate) fn resolved_by(&self, resolver: Svma) -> Vec<Svma> {
        let slots = self.irelative.iter().filter(|(_, by)| *by == resolver);
        slots.map(|(slot, _)| *slot).collect()
    }
}

fn symbols(header: &Header, dynamic: &Dynamic, source: &Source) -> Option<Vec<u8>> {
    let size = dynamic.symbol_count(header, source).checked_mul(24)?;
    source
        .read(header.offset_of(dynamic.symbols, size)?, size)
        .ok()
}

fn named(slot: Slot, symbol: u64, symbols: &[u8], strings: &[u8]) -> Option<Named> {
    let name = u32_at(symbols, usize::try_from(symbol).ok()?.checked_mul(24)?)?;
    if name == 0 {
        return None;
    }
    Some(Named {
        hash: hash(short_string_at(strings, name as usize)?),
        name,
        slot,
    })
}
