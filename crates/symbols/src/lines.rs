use std::fmt;
use std::sync::Arc;

use addr2line::{Context, Frame};
use gimli::{Dwarf, EndianArcSlice, LittleEndian, SectionId};
use leaktap_image::ElfFile;
use leaktap_memory::Svma;

use crate::demangle::{ada, demangle};
use crate::split::Split;
use crate::{Name, scopes};

pub(crate) type Reader = EndianArcSlice<LittleEndian>;

/// The DWARF of one file.
pub(crate) struct Lines {
    context: Context<Reader>,
    split: Split,
    scopes: scopes::Known,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl Lines {
    /// What `debug` has, or nothing if it has no DWARF or none that can be read. `file` is what it
    /// belongs to: the file itself, or the one that it was split from.
    pub(crate) fn of(debug: &ElfFile, file: &ElfFile) -> Option<Lines> {
        debug.section(".debug_info")?;
        let mut dwarf = load(debug);
        if let Some(shared) = debug.shared_debug_file(file) {
            dwarf.set_sup(load(&shared));
        }
        // Otherwise the tables are parsed again for every unit that shares them.
        dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
        Some(Lines {
            context: Context::from_dwarf(dwarf).ok()?,
            split: Split::of(debug, file),
            scopes: scopes::Known::new(),
        })
    }

    /// The functions at `at`, innermost first. Damaged DWARF gives fewer, or none. `symbol` is what
    /// a symbol table has there.
    pub(crate) fn names(&mut self, at: Svma, symbol: impl Fn() -> Option<String>) -> Vec<Name> {
        let mut names = Vec::new();
        // addr2line 0.27 asks for the range up to the next address, unchecked.
        if at.0 == u64::MAX {
            return names;
        }
        let Ok(mut frames) = self.split.complete(self.context.find_frames(at.0)) else {
            return names;
        };
        let unit = self.split.complete(self.context.find_dwarf_and_unit(at.0));
        let mut next = frames.next();
        while let Ok(Some(frame)) = next {
            next = frames.next();
            let is_inlined = matches!(next, Ok(Some(_)));
            let mut name = name(&frame);
            name.inlined = is_inlined;
            let own = name.function.as_deref().filter(|_| name.symbol.is_none());
            if let Some(own) = own.filter(|_| may_be_in_scopes(&frame)) {
                let scopes = &mut self.scopes;
                let full = unit.zip(frame.dw_die_offset);
                let full = full.and_then(|(unit, at)| scopes::qualified(unit, at, scopes));
                if full.is_some() {
                    name.function = full;
                } else if !is_inlined && let Some((full, symbol)) = full_of(symbol(), own) {
                    (name.function, name.symbol) = (Some(full), Some(symbol));
                }
            }
            names.push(name);
        }
        names
    }
}

/// Whether the function is in a language in which names have parts that are not said.
fn may_be_in_scopes(frame: &Frame<'_, Reader>) -> bool {
    const WITHOUT: [gimli::DwLang; 7] = [
        gimli::DW_LANG_C,
        gimli::DW_LANG_C89,
        gimli::DW_LANG_C99,
        gimli::DW_LANG_C11,
        gimli::DW_LANG_C17,
        gimli::DW_LANG_Mips_Assembler,
        gimli::DW_LANG_Go,
    ];
    let language = frame.function.as_ref().and_then(|name| name.language);
    language.is_some_and(|language| !WITHOUT.contains(&language))
}

/// What `symbol` says of a function that its source calls `own`, if that is more. A linker that
/// merges functions leaves symbols of others there.
fn full_of(symbol: Option<String>, own: &str) -> Option<(String, String)> {
    // Copies of a function have its name here.
    let symbol = symbol?.split('.').next()?.to_owned();
    let full = demangle(&symbol)?;
    let own = own.split('<').next().unwrap_or(own);
    // Rust writes `{closure#0}` here and `{{closure}}` there.
    let own = match own.starts_with("{closure") {
        true => "{{closure}}",
        false => own,
    };
    is_of(&full, own).then_some((full, symbol))
}

/// Whether a full name is that of a function that its source calls `own`: not of one whose name
/// begins so, or that has such a parameter.
fn is_of(full: &str, own: &str) -> bool {
    let whole = full.replace("(anonymous namespace)", "");
    let name = match own.starts_with("operator") {
        true => &*whole,
        false => whole.split('(').next().unwrap_or_default(),
    };
    let mut found = name.match_indices(own);
    found.any(|(at, _)| {
        let (before, behind) = (name.get(..at), name.get(at + own.len()..));
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        before.is_some_and(|before| before.ends_with("::"))
            && behind.is_some_and(|behind| !behind.starts_with(is_word))
    })
}

fn name(frame: &Frame<'_, Reader>) -> Name {
    let name = frame.function.as_ref();
    let location = frame.location.as_ref();
    let language = name.and_then(|name| name.language);
    let name = name.and_then(|name| Some(name.raw_name().ok()?.into_owned()));
    let demangled = name.as_deref().and_then(demangle);
    let is_mangled = demangled.is_some();
    let function = match (demangled, &name, language) {
        (None, Some(name), Some(language)) if is_ada(language) => Some(ada(name)),
        (None, name, _) => name.clone(),
        (demangled, ..) => demangled,
    };
    Name {
        symbol: name.filter(|_| is_mangled),
        function,
        file: location
            .and_then(|location| location.file)
            .map(str::to_owned),
        line: location.and_then(|location| location.line),
        inlined: false,
    }
}

fn is_ada(language: gimli::DwLang) -> bool {
    let all = [
        gimli::DW_LANG_Ada83,
        gimli::DW_LANG_Ada95,
        gimli::DW_LANG_Ada2005,
        gimli::DW_LANG_Ada2012,
    ];
    all.contains(&language)
}

fn load(file: &ElfFile) -> Dwarf<Reader> {
    let mut section = |id: SectionId| -> Result<Reader, std::convert::Infallible> {
        Ok(match wanted(id) {
            true => contents(file, id.name()),
            false => Reader::new(Arc::from([]), LittleEndian),
        })
    };
    match Dwarf::load(&mut section) {
        Ok(dwarf) => dwarf,
        Err(never) => match never {},
    }
}

/// A section's bytes, none where it is not there.
pub(crate) fn contents(file: &ElfFile, section: &str) -> Reader {
    let bytes = file.section(section).unwrap_or_default();
    Reader::new(Arc::from(bytes), LittleEndian)
}

/// Locations of variables, macros, types and names are not looked up here.
fn wanted(id: SectionId) -> bool {
    !matches!(
        id,
        SectionId::DebugLoc
            | SectionId::DebugLocLists
            | SectionId::DebugMacinfo
            | SectionId::DebugMacro
            | SectionId::DebugNames
            | SectionId::DebugTypes
    )
}
