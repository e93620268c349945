use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use object::LittleEndian;
use object::elf;
use object::read::ReadCache;
use object::read::elf::{FileHeader as _, NoteIterator, ProgramHeader as _, SectionHeader as _};

use super::source::{Bounded, Cursor, Source};
use super::words::{string_at, u16_at};
use crate::Error;

type FileHeader = elf::FileHeader64<LittleEndian>;
type ProgramHeader = elf::ProgramHeader64<LittleEndian>;

const LE: LittleEndian = LittleEndian;

/// More sections than any linked file has.
const MOST_SECTIONS: usize = 1 << 16;

/// A part of the file that is loaded: a PT_LOAD program header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address, as linked.
    pub svma: u64,
    /// Bytes in memory.
    pub mem_size: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// Bytes in the file; memory beyond them is zero at first.
    pub file_size: u64,
    /// Loaded readable.
    pub read: bool,
    /// Loaded writable.
    pub write: bool,
    /// Loaded executable.
    pub exec: bool,
}

/// A section, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) struct SectionInfo {
    pub(crate) name: String,
    pub(crate) kind: elf::SectionType,
    pub(crate) svma: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) link: u32,
    pub(crate) compressed: bool,
    /// It is code.
    pub(crate) exec: bool,
}

/// A build id, and where in the file the notes with it are.
#[derive(Clone, Debug)]
pub(crate) struct BuildId {
    pub(crate) bytes: Vec<u8>,
    pub(crate) notes: Range<u64>,
}

/// What the ELF header, the program headers and the section headers say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Header {
    /// ET_DYN: a shared library or a position-independent executable.
    pub(crate) relocatable: bool,
    pub(crate) entry: u64,
    pub(crate) segments: Vec<Segment>,
    pub(crate) interpreter: Option<PathBuf>,
    pub(crate) dynamic: Option<Range<u64>>,
    pub(crate) eh_frame_hdr: Option<Range<u64>>,
    pub(crate) build_id: Option<BuildId>,
    pub(crate) sections: Vec<SectionInfo>,
}

impl Header {
    /// Reads it all. Only a bad ELF header or bad program headers are errors: without sections a
    /// file can still be loaded and unwound.
    pub(crate) fn read(path: &Path, source: &Source) -> Result<Header, Error> {
        check(path, source)?;
        let cache = ReadCache::new(Cursor::new(source));
        let data = Bounded(&cache);
        let bad = |error: object::read::Error| Error::NotElf {
            path: path.to_path_buf(),
            why: reason(&error),
        };
        let header = FileHeader::parse(data).map_err(bad)?;
        let programs = header.program_headers(LE, data).map_err(bad)?;
        let mut found = Header {
            relocatable: header.e_type(LE) == elf::ET_DYN,
            entry: header.e_entry(LE),
            sections: sections(header, data).unwrap_or_default(),
            ..Header::default()
        };
        for program in programs {
            found.add(program, data);
        }
        found.segments.sort_by_key(|segment| segment.svma);
        if found.build_id.is_none() {
            found.build_id = found.build_id_section(source);
        }
        Ok(found)
    }

    fn add(&mut self, program: &ProgramHeader, data: Bounded<'_>) {
        let vaddr = program.p_vaddr(LE);
        let range = vaddr..vaddr.saturating_add(program.p_memsz(LE));
        match program.p_type(LE) {
            elf::PT_LOAD => self.segments.push(Segment::new(program)),
            elf::PT_DYNAMIC => self.dynamic = Some(range),
            elf::PT_GNU_EH_FRAME => self.eh_frame_hdr = Some(range),
            elf::PT_INTERP => {
                let path = program.interpreter(LE, data).ok().flatten();
                self.interpreter = path.map(|path| PathBuf::from(OsStr::from_bytes(path)));
            }
            elf::PT_NOTE if self.build_id.is_none() => {
                if let Ok(bytes) = program.data(LE, data) {
                    self.build_id = build_id(bytes, program.p_align(LE), program.p_offset(LE));
                }
            }
            _ => {}
        }
    }

    /// A separate debug file's program headers point at nothing; its note section is real.
    fn build_id_section(&self, source: &Source) -> Option<BuildId> {
        let section = self.section(".note.gnu.build-id")?;
        let bytes = source.read(section.offset, section.size).ok()?;
        build_id(&bytes, 4, section.offset)
    }

    /// The section of that name, unless it has no bytes in the file.
    pub(crate) fn section(&self, name: &str) -> Option<&SectionInfo> {
        self.sections_named(name).next()
    }

    /// All sections of that name that have bytes in the file.
    pub(crate) fn sections_named(&self, name: &str) -> impl Iterator<Item = &SectionInfo> {
        let has_bytes = |section: &&SectionInfo| section.kind != elf::SHT_NOBITS;
        let sections = self.sections.iter().filter(has_bytes);
        sections.filter(move |section| section.name == name)
    }

    /// Where in the file `len` bytes at `svma` are.
    pub(crate) fn offset_of(&self, svma: u64, len: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let into = svma.checked_sub(segment.svma)?;
            let end = into.checked_add(len)?;
            (end <= segment.file_size)
                .then(|| segment.offset.checked_add(into))
                .flatten()
        })
    }

    /// Where in the file what is mapped at `svma` is, behind the last byte of a segment all of
    /// whose memory is in the file.
    pub(crate) fn tail_offset_of(&self, svma: u64) -> Option<u64> {
        let is_before = |segment: &&Segment| {
            let into = svma.checked_sub(segment.svma);
            let is_in_file = segment.mem_size <= segment.file_size;
            is_in_file && into.is_some_and(|into| segment.file_size <= into)
        };
        let nearest = self
            .segments
            .iter()
            .filter(is_before)
            .max_by_key(|segment| segment.svma)?;
        nearest.offset.checked_add(svma.checked_sub(nearest.svma)?)
    }

    /// The segment that has `svma` in memory.
    pub(crate) fn segment_at(&self, svma: u64) -> Option<&Segment> {
        let mut segments = self.segments.iter();
        segments.find(|segment| svma.wrapping_sub(segment.svma) < segment.mem_size)
    }
}

impl Segment {
    fn new(program: &ProgramHeader) -> Segment {
        let flags = program.p_flags(LE);
        Segment {
            svma: program.p_vaddr(LE),
            mem_size: program.p_memsz(LE),
            offset: program.p_offset(LE),
            file_size: program.p_filesz(LE),
            read: flags.contains(elf::PF_R),
            write: flags.contains(elf::PF_W),
            exec: flags.contains(elf::PF_X),
        }
    }
}

/// Class, byte order and machine, before anything of another layout is read.
fn check(path: &Path, source: &Source) -> Result<(), Error> {
    let not_elf = |why| Error::NotElf {
        path: path.to_path_buf(),
        why,
    };
    let foreign = |what: &str| Error::Foreign {
        path: path.to_path_buf(),
        what: what.to_owned(),
    };
    let ident = source.read(0, 20).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => not_elf("it is too short"),
        _ => Error::io(path, error),
    })?;
    if !ident.starts_with(&elf::ELFMAG) {
        return Err(not_elf("it does not begin with \\x7fELF"));
    }
    match (ident.get(4), ident.get(5), u16_at(&ident, 18)) {
        (Some(2), Some(1), Some(machine)) if machine == elf::EM_X86_64.0 => Ok(()),
        (Some(2), Some(1), Some(machine)) => Err(foreign(&format!("machine {machine}"))),
        (Some(1), ..) => Err(foreign("a 32-bit file")),
        (_, Some(2), _) => Err(foreign("a big-endian file")),
        _ => Err(not_elf("its class or byte order is unknown")),
    }
}

fn reason(error: &object::read::Error) -> &'static str {
    match error.to_string().contains("program header") {
        true => "its program headers are outside the file",
        false => "its header is damaged",
    }
}

fn sections(header: &FileHeader, data: Bounded<'_>) -> Option<Vec<SectionInfo>> {
    let headers = header.section_headers(LE, data).ok()?;
    let names = header
        .section_strings_index(LE, data)
        .ok()
        .and_then(|index| headers.get(index.0))
        .and_then(|section| section.data(LE, data).ok())
        .unwrap_or_default();
    let info = |section: &elf::SectionHeader64<LittleEndian>| SectionInfo {
        name: section_name(names, section.sh_name(LE)),
        kind: section.sh_type(LE),
        svma: section.sh_addr(LE),
        offset: section.sh_offset(LE),
        size: section.sh_size(LE),
        link: section.sh_link(LE),
        compressed: section.sh_flags(LE).contains(elf::SHF_COMPRESSED),
        exec: section.sh_flags(LE).contains(elf::SHF_EXECINSTR),
    };
    Some(headers.iter().take(MOST_SECTIONS).map(info).collect())
}

/// Names longer than any that is looked for are cut.
fn section_name(names: &[u8], at: u32) -> String {
    let rest = usize::try_from(at).ok().and_then(|at| names.get(at..));
    let rest = rest.unwrap_or_default();
    let name = string_at(rest.get(..64).unwrap_or(rest), 0).unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// The NT_GNU_BUILD_ID note among `notes`, which begin at `offset` of the file.
fn build_id(notes: &[u8], align: u64, offset: u64) -> Option<BuildId> {
    let notes_left = NoteIterator::<FileHeader>::new(LE, align, notes).ok()?;
    let note = notes_left
        .map_while(Result::ok)
        .find(|note| note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID)?;
    Some(BuildId {
        bytes: note.desc().to_vec(),
        notes: offset..offset.checked_add(notes.len() as u64)?,
    })
}
