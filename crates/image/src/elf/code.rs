use std::ops::Range;

use leaktap_arch::{ENDBR64, START_CONTEXT, addresses_loaded};
use leaktap_memory::Svma;
use object::elf::SHT_NOBITS;

use super::ElfFile;
use super::symbols::Type;

/// glibc's is 656 bytes long.
const MOST_OF_MAKECONTEXT: u64 = 4096;

impl ElfFile {
    /// Where instructions are: in sections of code, or where there are no sections, in executable
    /// segments, which may have other things in them.
    pub fn code_ranges(&self) -> Vec<Range<Svma>> {
        let sections = self.header.sections.iter();
        let code = sections.filter(|section| section.exec && section.kind != SHT_NOBITS);
        let range = |(at, size): (u64, u64)| Svma(at)..Svma(at.saturating_add(size));
        let ranges: Vec<_> = code.map(|code| range((code.svma, code.size))).collect();
        if !ranges.is_empty() {
            return ranges;
        }
        let segments = self.segments().iter().filter(|segment| segment.exec);
        segments
            .map(|segment| range((segment.svma, segment.file_size)))
            .collect()
    }

    /// First bytes of functions, by symbols; not of the parts that compilers have moved elsewhere.
    pub fn function_starts(&self) -> Vec<Svma> {
        let is_function = |kind| matches!(kind, Type::Function | Type::Resolver);
        self.places(|kind, name| is_function(kind) && !is_part(name))
    }

    /// What symbols say are places in the code, and not of what kind.
    pub fn labels(&self) -> Vec<Svma> {
        self.places(|kind, name| kind == Type::Untyped && !is_part(name))
    }

    /// `.debug_frame` of its separate debug file, decompressed.
    pub fn separate_debug_frame(&self) -> Option<Vec<u8>> {
        self.debug_file()?.section(".debug_frame")
    }

    /// The code that functions of contexts return to, which makecontext(3) has called: glibc's
    /// `__start_context`, which is no symbol in most files. Nobody calls it.
    pub fn context_start(&self) -> Option<Svma> {
        *self.context_start.get_or_init(|| {
            let make = self.functions("makecontext").into_iter().next()?;
            let len = make.size.clamp(64, MOST_OF_MAKECONTEXT) as usize;
            let code = self.bytes_at(make.svma, len)?;
            let mut loaded = addresses_loaded(&code, make.svma.0);
            let starts = |at: &u64| {
                let code = self.bytes_at(Svma(*at), START_CONTEXT.len() + ENDBR64.len());
                let code = code.unwrap_or_default();
                let code = code.strip_prefix(&ENDBR64).unwrap_or(&code);
                code.starts_with(&START_CONTEXT)
            };
            loaded.find(starts).map(Svma)
        })
    }

    fn places(&self, wanted: impl Fn(Type, &[u8]) -> bool) -> Vec<Svma> {
        let mut places = Vec::new();
        for table in [self.exported(), self.full()] {
            let entries = table.entries().iter();
            let wanted = entries.filter(|entry| wanted(entry.kind, table.name(entry)));
            places.extend(wanted.map(|entry| Svma(entry.svma)));
        }
        places
    }
}

/// Part of a function that is hardly ever run, as GCC and LLVM name it: nobody calls it.
fn is_part(name: &[u8]) -> bool {
    const COLD: &[u8] = b".cold";
    name.windows(COLD.len()).any(|part| part == COLD)
}
