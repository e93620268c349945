use object::LittleEndian as LE;
use object::elf::{self, Rela64, Sym64, Versym};

use super::dynamic::Dynamic;
use super::header::Header;
use super::source::Source;
use super::symbols::hash;
use super::words::{records, short_string_at, string_at};
use leaktap_memory::Svma;

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
    /// Index of the version that is asked for.
    version: u16,
    slot: Slot,
}

/// The symbols that relocations name.
#[derive(Default)]
struct Symbols {
    entries: Vec<u8>,
    versions: Vec<u8>,
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
                let symbols = Symbols::read(header, dynamic, source).unwrap_or_default();
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
                    found.add(&bytes.unwrap_or_default(), &Symbols::default(), &[]);
                }
            }
        }
        found.named.sort_by_key(|named| named.hash);
        found
    }

    fn add(&mut self, table: &[u8], symbols: &Symbols, strings: &[u8]) {
        for rela in records::<Rela64<LE>>(table) {
            let at = Svma(rela.r_offset.get(LE));
            let lazy = match rela.r_type(LE, false) {
                elf::R_X86_64_IRELATIVE => {
                    let addend = rela.r_addend.get(LE).cast_unsigned();
                    self.irelative.push((at, Svma(addend)));
                    continue;
                }
                elf::R_X86_64_JUMP_SLOT => true,
                elf::R_X86_64_GLOB_DAT | elf::R_X86_64_64 => false,
                _ => continue,
            };
            let slot = Slot { svma: at, lazy };
            let symbol = rela.r_sym(LE, false);
            self.named.extend(named(slot, symbol, symbols, strings));
        }
    }

    /// The slots for what is called `name`, with the index of the version that each asks for.
    pub(crate) fn slots<'a>(
        &'a self,
        name: &'a str,
        strings: &'a [u8],
    ) -> impl Iterator<Item = (Slot, u16)> + 'a {
        let wanted = hash(name.as_bytes());
        let first = self.named.partition_point(|named| named.hash < wanted);
        let rest = self.named.iter().skip(first);
        let same =
            |named: &&Named| string_at(strings, named.name as usize) == Some(name.as_bytes());
        rest.take_while(move |named| named.hash == wanted)
            .filter(same)
            .map(|named| (named.slot, named.version))
    }

    /// Where among the strings the name is for which the word at `slot` is.
    pub(crate) fn name_at(&self, slot: Svma) -> Option<u32> {
        let mut named = self.named.iter();
        let found = named.find(|named| named.slot.svma == slot);
        found.map(|named| named.name)
    }

    pub(crate) fn resolved_by(&self, resolver: Svma) -> Vec<Svma> {
        let slots = self.irelative.iter().filter(|(_, by)| *by == resolver);
        slots.map(|(slot, _)| *slot).collect()
    }
}

impl Symbols {
    fn read(header: &Header, dynamic: &Dynamic, source: &Source) -> Option<Symbols> {
        let count = dynamic.symbol_count(header, source);
        let read = |at, size: Option<u64>| {
            let size = size?;
            source.read(header.offset_of(at, size)?, size).ok()
        };
        let versions = dynamic.versions;
        Some(Symbols {
            entries: read(dynamic.symbols, count.checked_mul(24))?,
            versions: versions
                .and_then(|at| read(at, count.checked_mul(2)))
                .unwrap_or_default(),
        })
    }
}

fn named(slot: Slot, symbol: u32, symbols: &Symbols, strings: &[u8]) -> Option<Named> {
    let symbol = usize::try_from(symbol).ok()?;
    let name = records::<Sym64<LE>>(&symbols.entries).get(symbol)?;
    let name = name.st_name.get(LE);
    if name == 0 {
        return None;
    }
    Some(Named {
        hash: hash(short_string_at(strings, name as usize)?),
        name,
        version: records::<Versym<LE>>(&symbols.versions)
            .get(symbol)
            .map_or(0, |version| version.0.get(LE).0),
        slot,
    })
}
