//! One ELF file: what it loads, what it names, what it says about unwinding.

mod by_address;
mod calls;
mod cfi;
mod code;
mod dynamic;
mod header;
#[allow(unsafe_code, reason = "it maps files")]
mod held;
mod linking;
mod relocations;
mod returned;
mod source;
mod symbols;
mod versions;
mod words;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use leaktap_memory::{PAGE, Svma};

use self::by_address::ByAddress;
use self::dynamic::Dynamic;
use self::header::Header;
use self::relocations::Relocations;
use self::symbols::{Entry, Table, Type};
use crate::{Error, debug_file};

pub use self::cfi::{Cfi, Section};
pub use self::header::Segment;
pub use self::linking::Reference;
pub use self::relocations::Slot;
pub(crate) use self::source::Source;
pub(crate) use self::words::{string_at, u32_at, u64_at};

/// A defined symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name, without the version.
    pub name: String,
    /// Its version: `GLIBC_2.2.5`.
    pub version: Option<String>,
    /// A reference without a version gets this one (`name@@VERSION`, or no version at all).
    pub default: bool,
    /// Its address.
    pub svma: Svma,
    /// Bytes it covers; zero where the assembler was not told.
    pub size: u64,
    /// STT_GNU_IFUNC: the address is that of a function that chooses the function.
    pub ifunc: bool,
    /// The dynamic linker sees it.
    pub dynamic: bool,
    /// Known in its object file only.
    pub local: bool,
    /// Gives way to a global one when linked statically.
    pub weak: bool,
}

/// An ELF file of an x86-64 program. It stays open, or mapped, so that all that is read later,
/// symbols above all, can be read after the process, or the file's name, has gone.
#[derive(Debug)]
pub struct ElfFile {
    path: PathBuf,
    source: Source,
    root: Option<Arc<File>>,
    header: Header,
    dynamic: OnceLock<Option<Dynamic>>,
    exported: OnceLock<Table>,
    full: OnceLock<Table>,
    relocations: OnceLock<Relocations>,
    by_address: OnceLock<ByAddress>,
    context_start: OnceLock<Option<Svma>>,
}

impl ElfFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Denied`]; [`Error::NotElf`] and [`Error::Foreign`] for what is
    /// not 64-bit x86 code.
    pub fn open(path: &Path) -> Result<ElfFile, Error> {
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        ElfFile::new(path, Source::File(file), None)
    }

    /// A file that is in memory as it would be on disk.
    ///
    /// # Errors
    /// [`Error::NotElf`] or [`Error::Foreign`].
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<ElfFile, Error> {
        ElfFile::new(path, Source::Bytes(bytes), None)
    }

    /// Takes a file that is open already. `root` is the root directory of the process that has
    /// mapped it, where its debug files are.
    pub(crate) fn new(
        path: &Path,
        source: Source,
        root: Option<Arc<File>>,
    ) -> Result<ElfFile, Error> {
        Ok(ElfFile {
            path: path.to_path_buf(),
            header: Header::read(path, &source)?,
            source,
            root,
            dynamic: OnceLock::new(),
            exported: OnceLock::new(),
            full: OnceLock::new(),
            relocations: OnceLock::new(),
            by_address: OnceLock::new(),
            context_start: OnceLock::new(),
        })
    }

    /// The path it was first found at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root directory of the process that it was opened for.
    pub(crate) fn root(&self) -> Option<&Arc<File>> {
        self.root.as_ref()
    }

    /// The NT_GNU_BUILD_ID note's bytes.
    pub fn build_id(&self) -> Option<&[u8]> {
        let id = self.header.build_id.as_ref()?;
        Some(&id.bytes)
    }

    /// The build id as it is written everywhere, in hexadecimal.
    pub fn build_id_hex(&self) -> Option<String> {
        let bytes = self.build_id()?.iter();
        Some(bytes.map(|byte| format!("{byte:02x}")).collect())
    }

    /// True of a position-independent executable, and of a shared library (ET_DYN).
    pub fn is_pie(&self) -> bool {
        self.header.relocatable
    }

    /// The program interpreter (dynamic linker) that an executable asks for.
    pub fn interpreter(&self) -> Option<&Path> {
        self.header.interpreter.as_deref()
    }

    /// The name that a shared library has given itself: DT_SONAME.
    pub fn soname(&self) -> Option<String> {
        let offset = usize::try_from(self.dynamic()?.soname?).ok()?;
        string_at(self.exported().strings(), offset).map(lossy)
    }

    /// Where execution begins.
    pub fn entry(&self) -> Svma {
        Svma(self.header.entry)
    }

    /// What is loaded, lowest address first.
    pub fn segments(&self) -> &[Segment] {
        &self.header.segments
    }

    /// Lowest address that is loaded, rounded down to a page.
    pub fn base(&self) -> Svma {
        let first = self.header.segments.first();
        Svma(first.map_or(0, |segment| segment.svma & !(PAGE - 1)))
    }

    /// Where the dynamic section is loaded.
    pub(crate) fn dynamic_section(&self) -> Option<Svma> {
        let range = self.header.dynamic.as_ref()?;
        Some(Svma(range.start))
    }

    /// Functions of that name, at any version: those that the dynamic linker sees before those of
    /// `.symtab`, default versions first, global ones before weak and local ones.
    pub fn functions(&self, name: &str) -> Vec<Symbol> {
        self.find(name, |entry| self.is_function(entry))
    }

    fn is_function(&self, entry: &Entry) -> bool {
        match entry.kind {
            Type::Function | Type::Resolver => true,
            Type::Object => false,
            Type::Untyped => {
                let segment = self.header.segment_at(entry.svma);
                segment.is_some_and(|segment| segment.exec)
            }
        }
    }

    /// Variables of that name, in the same order.
    pub fn objects(&self, name: &str) -> Vec<Symbol> {
        self.find(name, |entry| entry.kind == Type::Object)
    }

    fn find(&self, name: &str, wanted: impl Fn(&Entry) -> bool) -> Vec<Symbol> {
        let mut found: Vec<Symbol> = Vec::new();
        for table in [self.exported(), self.full()] {
            for entry in table.named(name).filter(|entry| wanted(entry)) {
                let symbol = symbol(table, entry);
                // .symtab repeats what .dynsym has.
                let same =
                    |old: &Symbol| (old.svma, &old.version) == (symbol.svma, &symbol.version);
                if !found.iter().any(same) {
                    found.push(symbol);
                }
            }
        }
        found.sort_by_key(|found| (!found.dynamic, !found.default, found.local, found.weak));
        found
    }

    /// The function that covers `at`, by its size.
    pub fn symbol_at(&self, at: Svma) -> Option<Symbol> {
        let (in_full, index) = self.by_address().find(at.0)?;
        let table = self.table(in_full);
        Some(symbol(table, table.entries().get(index)?))
    }

    /// Whether functions that sources call by different names of C++ begin at `at`: linkers merge
    /// what has the same code (ICF).
    fn is_merged(&self, at: Svma) -> bool {
        let all = self.by_address().all_at(at.0);
        let names = all.filter_map(|(in_full, index)| {
            let table = self.table(in_full);
            Some(table.name(table.entries().get(index)?))
        });
        let names: Vec<_> = names.collect();
        let is_other = |name: &&[u8]| Some(name) != names.first();
        names.iter().any(|name| name.starts_with(b"_Z")) && names.iter().any(is_other)
    }

    fn by_address(&self) -> &ByAddress {
        let make = || ByAddress::new(&self.header, self.exported(), self.full());
        self.by_address.get_or_init(make)
    }

    fn table(&self, in_full: bool) -> &Table {
        if in_full {
            self.full()
        } else {
            self.exported()
        }
    }

    /// Names of all functions, sorted, each once.
    pub fn function_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for table in [self.exported(), self.full()] {
            let functions = table
                .entries()
                .iter()
                .filter(|entry| matches!(entry.kind, Type::Function | Type::Resolver));
            names.extend(functions.map(|entry| lossy(table.name(entry))));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Words that are filled with what the IFUNC resolver at `resolver` has chosen.
    pub fn ifunc_slots(&self, resolver: Svma) -> Vec<Svma> {
        self.relocations().resolved_by(resolver)
    }

    /// `len` bytes as the file has them for `at`: what is there before anybody patches it.
    pub fn bytes_at(&self, at: Svma, len: usize) -> Option<Vec<u8>> {
        let offset = self.header.offset_of(at.0, len as u64)?;
        self.source.read(offset, len as u64).ok()
    }

    /// Bytes that the file has in its executable segments.
    pub fn code_size(&self) -> u64 {
        let segments = self.segments().iter().filter(|segment| segment.exec);
        let sizes = segments.map(|segment| segment.file_size);
        sizes.fold(0, u64::saturating_add)
    }

    /// What the file has in its executable segments, in pieces of a megabyte, each with where it
    /// begins. A piece has up to `more` bytes of the next one, too: what is searched for may lie
    /// across. What cannot be read is left out.
    pub fn code_in_pieces(&self, more: usize) -> impl Iterator<Item = (Svma, Vec<u8>)> + '_ {
        const PIECE: u64 = 1 << 20;
        let segments = self.segments().iter().filter(|segment| segment.exec);
        segments.flat_map(move |segment| {
            let starts = (0..segment.file_size).step_by(PIECE as usize);
            starts.filter_map(move |start| {
                let left = segment.file_size.saturating_sub(start);
                let len = left.min(PIECE.saturating_add(more as u64));
                let at = Svma(segment.svma.checked_add(start)?);
                Some((at, self.bytes_at(at, usize::try_from(len).ok()?)?))
            })
        })
    }

    /// `len` bytes as they are mapped for `at`, behind a segment's last byte and in its last page:
    /// what comes next in the file, or zeros.
    pub fn tail_at(&self, at: Svma, len: usize) -> Option<Vec<u8>> {
        let offset = self.header.tail_offset_of(at.0)?;
        let there = self.source.len().ok()?.saturating_sub(offset);
        let mut bytes = self.source.read(offset, there.min(len as u64)).ok()?;
        bytes.resize(len, 0);
        Some(bytes)
    }

    /// Call frame information; what is absent or damaged is left out.
    pub fn cfi(&self) -> Cfi {
        Cfi::read(&self.header, self.base(), &self.source)
    }

    /// Whether it has a section of that name, with bytes in the file.
    pub fn has_section(&self, name: &str) -> bool {
        self.header.section(name).is_some()
    }

    /// The contents of a section, decompressed.
    pub fn section(&self, name: &str) -> Option<Vec<u8>> {
        if let Some(section) = self.header.section(name) {
            return cfi::contents(section, &self.source);
        }
        // As GNU tools compressed it before there was a standard.
        let old = format!(".z{}", name.strip_prefix('.')?);
        cfi::old_contents(self.header.section(&old)?, &self.source)
    }

    /// The contents of all sections of that name, one after the other: object files have one for
    /// each group.
    pub fn sections(&self, name: &str) -> Vec<u8> {
        let named = self.header.sections_named(name);
        let contents = named.filter_map(|section| cfi::contents(section, &self.source));
        contents.flatten().collect()
    }

    /// The file that has its debug information apart from it.
    pub fn debug_file(&self) -> Option<ElfFile> {
        debug_file::find(self)
    }

    /// The file that this one, split from `file`, shares debug information with.
    pub fn shared_debug_file(&self, file: &ElfFile) -> Option<ElfFile> {
        debug_file::shared(self, file)
    }

    /// The symbols that it has compressed in itself.
    pub fn embedded_symbols(&self) -> Option<ElfFile> {
        debug_file::embedded(self)
    }

    /// Folders in which its debug files may be found by their paths: the root directory of the
    /// process that it was opened for, and ours.
    pub fn roots(&self) -> Vec<PathBuf> {
        debug_file::roots(self)
    }

    /// The file at `path`, if that is a regular one and its file system answers in time.
    pub fn regular(path: &Path) -> Option<ElfFile> {
        debug_file::open(path)
    }

    /// Parts of the file, as offset and bytes, by which its image in memory can be told from
    /// another file's: the ELF header, and the notes with the build id.
    pub(crate) fn fingerprint(&self) -> Option<Vec<(u64, Vec<u8>)>> {
        let mut parts = vec![(0, self.source.read(0, 64).ok()?)];
        if let Some(id) = &self.header.build_id {
            let len = id.notes.end.checked_sub(id.notes.start)?;
            parts.push((id.notes.start, self.source.read(id.notes.start, len).ok()?));
        }
        Some(parts)
    }

    /// The checksum that `.gnu_debuglink` has of a debug file.
    pub(crate) fn checksum(&self) -> Option<u32> {
        let mut crc = crc32fast::Hasher::new();
        let (mut at, end) = (0, self.source.len().ok()?);
        while at < end {
            let len = (end - at).min(1 << 20);
            crc.update(&self.source.read(at, len).ok()?);
            at += len;
        }
        Some(crc.finalize())
    }

    fn dynamic(&self) -> Option<&Dynamic> {
        let read = || Dynamic::read(&self.header, &self.source);
        self.dynamic.get_or_init(read).as_ref()
    }

    fn exported(&self) -> &Table {
        self.exported.get_or_init(|| match self.dynamic() {
            Some(dynamic) => Table::dynamic(&self.header, dynamic, &self.source),
            None => Table::default(),
        })
    }

    fn full(&self) -> &Table {
        let read = || Table::full(&self.header, &self.source);
        self.full.get_or_init(read)
    }

    fn relocations(&self) -> &Relocations {
        self.relocations.get_or_init(|| {
            let strings = self.exported().strings();
            Relocations::read(&self.header, self.dynamic(), strings, &self.source)
        })
    }
}

fn symbol(table: &Table, entry: &Entry) -> Symbol {
    let (version, default) = table.version(entry);
    Symbol {
        name: lossy(table.name(entry)),
        version,
        default,
        svma: Svma(entry.svma),
        size: entry.size,
        ifunc: entry.kind == Type::Resolver,
        dynamic: table.dynamic,
        local: entry.binding == object::elf::STB_LOCAL.0,
        weak: entry.binding == object::elf::STB_WEAK.0,
    }
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
