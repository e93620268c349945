use std::collections::HashMap;

use object::LittleEndian as LE;
use object::elf::{self, Sym64, Versym};

use super::dynamic::{Dynamic, rest_at};
use super::header::Header;
use super::source::Source;
use super::versions;
use super::words::{records, string_at};

/// Bytes of a symbol in the file.
const SYMBOL_SIZE: usize = size_of::<Sym64<LE>>();
/// More symbols than any file has.
const MOST_SYMBOLS: u64 = 1 << 24;
/// Set in a version index: not the default version of that name (`name@VER`, not `name@@VER`).
pub(crate) const HIDDEN: u16 = 0x8000;

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Function,
    /// STT_GNU_IFUNC: a function that chooses the function.
    Resolver,
    Object,
    /// STT_NOTYPE, as hand-written assembly has it.
    Untyped,
}

/// A defined symbol, small enough to keep hundreds of thousands of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) svma: u64,
    pub(crate) size: u64,
    hash: u32,
    name: u32,
    pub(crate) section: u16,
    version: u16,
    pub(crate) kind: Type,
    pub(crate) binding: u8,
    /// Hidden, though in the table of the dynamic linker.
    pub(crate) invisible: bool,
}

impl Entry {
    /// Not the default version of its name.
    pub(crate) fn is_hidden(&self) -> bool {
        self.version & HIDDEN != 0
    }

    /// Which version it is.
    pub(crate) fn version_index(&self) -> u16 {
        self.version & !HIDDEN
    }
}

/// The defined symbols of `.dynsym` or `.symtab`, in the file's order.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: Vec<Entry>,
    /// Indices of `entries` by the hash of their names, in the file's order where that is one.
    by_hash: Vec<u32>,
    strings: Vec<u8>,
    versions: HashMap<u16, String>,
    pub(crate) dynamic: bool,
    /// There are versions.
    pub(crate) versioned: bool,
}

impl Table {
    /// The symbols that the dynamic linker sees.
    pub(crate) fn dynamic(header: &Header, dynamic: &Dynamic, source: &Source) -> Table {
        let read = |svma, len| source.read(header.offset_of(svma, len)?, len).ok();
        let count = dynamic.symbol_count(header, source).min(MOST_SYMBOLS);
        let symbols = read(dynamic.symbols, count * SYMBOL_SIZE as u64).unwrap_or_default();
        let strings = terminated(read(dynamic.strings, dynamic.strings_size).unwrap_or_default());
        let versions = dynamic.versions.and_then(|at| read(at, count * 2));
        let rest = |at: Option<u64>| at.and_then(|at| rest_at(at, header, source));
        let definitions = rest(dynamic.definitions).unwrap_or_default();
        let needs = rest(dynamic.needs).unwrap_or_default();
        let versioned = versions.is_some();
        let entries = entries(&symbols, &strings, &versions.unwrap_or_default());
        Table {
            by_hash: by_hash(&entries),
            entries,
            versions: versions::names(&definitions, &needs, &strings),
            strings,
            dynamic: true,
            versioned,
        }
    }

    /// The symbols for debuggers and linkers, empty in a stripped file.
    pub(crate) fn full(header: &Header, source: &Source) -> Table {
        let read = || {
            let mut sections = header.sections.iter();
            let section = sections.find(|section| section.kind == elf::SHT_SYMTAB)?;
            let names = header.sections.get(usize::try_from(section.link).ok()?)?;
            let size = section.size.min(MOST_SYMBOLS * SYMBOL_SIZE as u64);
            let symbols = source.read(section.offset, size).ok()?;
            Some((symbols, source.read(names.offset, names.size).ok()?))
        };
        let (symbols, strings) = read().unwrap_or_default();
        let strings = terminated(strings);
        let entries = entries(&symbols, &strings, &[]);
        Table {
            by_hash: by_hash(&entries),
            entries,
            strings,
            ..Table::default()
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn strings(&self) -> &[u8] {
        &self.strings
    }

    /// The symbols of that name, at any version.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &Entry> {
        let (wanted, name) = (hash(name.as_bytes()), name.as_bytes().to_vec());
        let entry = |index: &u32| self.entries.get(*index as usize);
        let before = |index: &u32| entry(index).is_some_and(|entry| entry.hash < wanted);
        let first = self.by_hash.partition_point(before);
        let rest = self.by_hash.iter().skip(first).filter_map(entry);
        rest.take_while(move |entry| entry.hash == wanted)
            .filter(move |entry| self.name(entry) == name)
    }

    /// The name of the version with that index.
    pub(crate) fn version_name(&self, index: u16) -> Option<&String> {
        self.versions.get(&(index & !HIDDEN))
    }

    /// The name without a version.
    pub(crate) fn name(&self, entry: &Entry) -> &[u8] {
        base_name(string_at(&self.strings, entry.name as usize).unwrap_or_default())
    }

    /// The version, and whether a reference without one would get this symbol.
    pub(crate) fn version(&self, entry: &Entry) -> (Option<String>, bool) {
        if self.dynamic {
            let name = self.version_name(entry.version);
            return (name.cloned(), !entry.is_hidden());
        }
        let full = string_at(&self.strings, entry.name as usize).unwrap_or_default();
        let version = full.get(self.name(entry).len()..).unwrap_or_default();
        let default = version.is_empty() || version.starts_with(b"@@");
        let text = String::from_utf8_lossy(version);
        let text = text.trim_start_matches('@');
        ((!text.is_empty()).then(|| text.to_owned()), default)
    }
}

/// FNV-1a; only compared with itself.
pub(crate) fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// `.symtab` writes versions into the name: `malloc@@GLIBC_2.2.5`.
fn base_name(name: &[u8]) -> &[u8] {
    match name.iter().position(|&byte| byte == b'@') {
        Some(at) if at > 0 => &name[..at],
        _ => name,
    }
}

/// Without what follows the last zero: a string never runs to the end of the table then.
fn terminated(mut strings: Vec<u8>) -> Vec<u8> {
    let end = strings.iter().rposition(|&byte| byte == 0);
    strings.truncate(end.map_or(0, |last| last + 1));
    strings
}

fn by_hash(entries: &[Entry]) -> Vec<u32> {
    let hash = |index: &u32| entries.get(*index as usize).map(|entry| entry.hash);
    let mut indices: Vec<u32> = (0..).take(entries.len()).collect();
    indices.sort_by_key(hash);
    indices
}

/// Names may share their bytes. A file that makes a long string the name of very many symbols
/// gets no more attention than it deserves: several times its length.
fn entries(symbols: &[u8], strings: &[u8], versions: &[u8]) -> Vec<Entry> {
    let mut left = strings.len().saturating_mul(8);
    let mut entries = Vec::new();
    let versions = records::<Versym<LE>>(versions);
    for (index, symbol) in records(symbols).iter().enumerate() {
        let version = versions.get(index);
        let version = version.map_or(0, |version| version.0.get(LE).0);
        let Some((entry, name)) = entry(symbol, strings, version) else {
            continue;
        };
        match left.checked_sub(name) {
            Some(rest) => left = rest,
            None => break,
        }
        entries.push(entry);
    }
    entries.shrink_to_fit();
    entries
}

/// A symbol that is defined and loaded, and how long its name is, version included.
fn entry(symbol: &Sym64<LE>, strings: &[u8], version: u16) -> Option<(Entry, usize)> {
    let (name, section) = (symbol.st_name.get(LE), symbol.st_shndx.get(LE));
    let visibility = symbol.st_visibility();
    let kind = match symbol.st_type() {
        elf::STT_FUNC => Type::Function,
        elf::STT_GNU_IFUNC => Type::Resolver,
        elf::STT_OBJECT => Type::Object,
        elf::STT_NOTYPE => Type::Untyped,
        _ => return None,
    };
    // Undefined, or a constant rather than an address.
    let absent = section == elf::SHN_UNDEF || section == elf::SHN_ABS;
    if absent || name == 0 || visibility == elf::STV_INTERNAL {
        return None;
    }
    let full = string_at(strings, name as usize)?;
    let text = base_name(full);
    let entry = Entry {
        svma: symbol.st_value.get(LE),
        size: symbol.st_size.get(LE),
        hash: hash(text),
        name,
        section: section.0,
        version,
        kind,
        binding: symbol.st_bind().0,
        invisible: visibility == elf::STV_HIDDEN,
    };
    Some((entry, full.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_no_part_of_a_name() {
        assert_eq!(base_name(b"malloc@@GLIBC_2.2.5"), b"malloc");
        assert_eq!(base_name(b"cfree@GLIBC_2.2.5"), b"cfree");
        assert_eq!(base_name(b"@odd"), b"@odd");
    }

    #[test]
    fn many_symbols_of_one_long_name_end_early() {
        let mut strings = vec![b'x'; 1 << 16];
        (strings[0], strings[(1 << 16) - 1]) = (0, 0);
        let mut symbol = [0; SYMBOL_SIZE];
        (symbol[0], symbol[4], symbol[6]) = (1, 0x12, 1);
        let symbols = symbol.repeat(1000);
        assert!(entries(&symbols, &strings, &[]).len() <= 8);
        // Versions are searched through, too.
        strings[2] = b'@';
        assert!(entries(&symbols, &strings, &[]).len() <= 8);
    }
}
