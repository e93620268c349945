use object::LittleEndian as LE;
use object::elf::{self, Dyn64, DynamicTag, FileHeader64};
use object::read::elf::{GnuHashTable, HashTable};

use super::header::Header;
use super::source::Source;
use super::words::records;

/// More entries than any dynamic section has.
const MOST_ENTRIES: u64 = 1 << 16;

/// In DT_FLAGS: as DT_SYMBOLIC.
const DF_SYMBOLIC: u64 = 2;

/// Where the dynamic linker finds its tables: the PT_DYNAMIC segment of the file, gABI chapter 5.
/// The section headers, which a file can do without, are not asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dynamic {
    pub(crate) symbols: u64,
    pub(crate) strings: u64,
    pub(crate) strings_size: u64,
    pub(crate) versions: Option<u64>,
    pub(crate) definitions: Option<u64>,
    /// Versions that the file needs of others (DT_VERNEED).
    pub(crate) needs: Option<u64>,
    /// Where among the strings the names of the libraries it depends on are.
    pub(crate) needed: Vec<u64>,
    /// Names are looked for in the file itself first.
    pub(crate) symbolic: bool,
    /// Where among the strings the library's own name is.
    pub(crate) soname: Option<u64>,
    hash: Option<u64>,
    gnu_hash: Option<u64>,
    relocations: (u64, u64),
    /// How many of those, at the beginning, name no symbol.
    relative: u64,
    plt_relocations: (u64, u64),
}

impl Dynamic {
    /// Nothing for a static program that is not position independent.
    pub(crate) fn read(header: &Header, source: &Source) -> Option<Dynamic> {
        let range = header.dynamic.as_ref()?;
        let size = range.end.checked_sub(range.start)?.min(MOST_ENTRIES * 16);
        let bytes = source
            .read(header.offset_of(range.start, size)?, size)
            .ok()?;
        let mut dynamic = Dynamic::default();
        let entries = records::<Dyn64<LE>>(&bytes).iter();
        let entries = entries.map(|entry| (entry.d_tag.get(LE), entry.d_val.get(LE)));
        for (tag, value) in entries.take_while(|(tag, _)| *tag != elf::DT_NULL) {
            dynamic.set(tag, value);
        }
        Some(dynamic)
    }

    fn set(&mut self, tag: DynamicTag, value: u64) {
        match tag {
            elf::DT_SYMTAB => self.symbols = value,
            elf::DT_STRTAB => self.strings = value,
            elf::DT_STRSZ => self.strings_size = value,
            elf::DT_VERSYM => self.versions = Some(value),
            elf::DT_VERDEF => self.definitions = Some(value),
            elf::DT_VERNEED => self.needs = Some(value),
            elf::DT_NEEDED => self.needed.push(value),
            elf::DT_SYMBOLIC => self.symbolic = true,
            elf::DT_FLAGS => self.symbolic |= value & DF_SYMBOLIC != 0,
            elf::DT_RELACOUNT => self.relative = value,
            elf::DT_SONAME => self.soname = Some(value),
            elf::DT_HASH => self.hash = Some(value),
            elf::DT_GNU_HASH => self.gnu_hash = Some(value),
            elf::DT_RELA => self.relocations.0 = value,
            elf::DT_RELASZ => self.relocations.1 = value,
            elf::DT_JMPREL => self.plt_relocations.0 = value,
            elf::DT_PLTRELSZ => self.plt_relocations.1 = value,
            _ => {}
        }
    }

    /// Addresses and sizes of the tables of Rela entries, without those that come first and name
    /// no symbol.
    pub(crate) fn relocation_tables(&self) -> [(u64, u64); 2] {
        let (at, size) = self.relocations;
        let skipped = self.relative.saturating_mul(24).min(size);
        let named = (at.saturating_add(skipped), size - skipped);
        [named, self.plt_relocations]
    }

    /// How many symbols there are: only the hash tables tell, or the section header.
    pub(crate) fn symbol_count(&self, header: &Header, source: &Source) -> u64 {
        let sections = header.sections.iter();
        let mut tables = sections.filter(|section| section.kind == elf::SHT_DYNSYM);
        tables
            .find(|section| section.svma == self.symbols)
            .map(|section| section.size / 24)
            .or_else(|| self.hashed(header, source).map(u64::from))
            .unwrap_or(0)
    }

    fn hashed(&self, header: &Header, source: &Source) -> Option<u32> {
        if let Some(bytes) = self.hash.and_then(|at| rest_at(at, header, source)) {
            let table = HashTable::<FileHeader64<LE>>::parse(LE, &bytes);
            return Some(table.ok()?.symbol_table_length());
        }
        let bytes = rest_at(self.gnu_hash?, header, source)?;
        let table = GnuHashTable::<FileHeader64<LE>>::parse(LE, &bytes);
        table.ok()?.symbol_table_length(LE)
    }
}

/// The bytes from `svma` to the end of its segment in the file.
pub(crate) fn rest_at(svma: u64, header: &Header, source: &Source) -> Option<Vec<u8>> {
    let segment = header.segment_at(svma)?;
    let into = svma.checked_sub(segment.svma)?;
    let len = segment.file_size.checked_sub(into)?;
    source.read(segment.offset.checked_add(into)?, len).ok()
}
