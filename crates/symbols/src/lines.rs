use std::fmt;
use std::sync::Arc;

use addr2line::{Context, Frame};
use gimli::{Dwarf, EndianArcSlice, LittleEndian, SectionId};
use leaktap_image::ElfFile;
use leaktap_memory::Svma;

use crate::Name;
use crate::demangle::{ada, demangle};

type Reader = EndianArcSlice<LittleEndian>;

/// The DWARF of one file.
pub(crate) struct Lines(Context<Reader>);

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
        Context::from_dwarf(dwarf).ok().map(Lines)
    }

    /// The functions at `at`, innermost first. Damaged DWARF gives fewer, or none.
    pub(crate) fn names(&self, at: Svma) -> Vec<Name> {
        let mut names = Vec::new();
        // addr2line 0.27 asks for the range up to the next address, unchecked.
        if at.0 == u64::MAX {
            return names;
        }
        let Ok(mut frames) = self.0.find_frames(at.0).skip_all_loads() else {
            return names;
        };
        while let Ok(Some(frame)) = frames.next() {
            names.push(name(&frame));
        }
        let inlined = names.len().saturating_sub(1);
        for name in names.iter_mut().take(inlined) {
            name.inlined = true;
        }
        names
    }
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
        let bytes = match wanted(id) {
            true => file.section(id.name()).unwrap_or_default(),
            false => Vec::new(),
        };
        Ok(Reader::new(Arc::from(bytes), LittleEndian))
    };
    match Dwarf::load(&mut section) {
        Ok(dwarf) => dwarf,
        Err(never) => match never {},
    }
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
