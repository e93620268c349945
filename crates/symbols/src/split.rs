//! Split DWARF: what a compiler has put beside a program, into `.dwo` files or one `.dwp`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::{LookupContinuation, LookupResult, SplitDwarfLoad};
use gimli::{DebugInfo, Dwarf, DwarfPackage, DwoId, LittleEndian, Section, Unit};
use leaktap_image::ElfFile;

use crate::lines::{Reader, contents};

/// Where the units are that a file's DWARF refers to.
pub(crate) struct Split {
    /// The files beside which they may be: the one with the DWARF, and what it was split from.
    beside: Vec<PathBuf>,
    /// As which process, or sysroot, they are looked for.
    roots: Vec<PathBuf>,
    package: Option<DwarfPackage<Reader>>,
}

impl Split {
    pub(crate) fn of(debug: &ElfFile, file: &ElfFile) -> Split {
        let beside = vec![debug.path().to_path_buf(), file.path().to_path_buf()];
        let mut split = Split {
            beside,
            roots: file.roots(),
            package: None,
        };
        split.package = split.find_package();
        split
    }

    /// `program.dwp` beside `program`.
    fn find_package(&self) -> Option<DwarfPackage<Reader>> {
        self.beside.iter().find_map(|path| {
            let mut name = path.clone().into_os_string();
            name.push(".dwp");
            let file = self.open(Path::new(&name))?;
            let load = |id: gimli::SectionId| -> Result<Reader, gimli::Error> {
                Ok(id
                    .dwo_name()
                    .map_or_else(empty, |name| contents(&file, name)))
            };
            DwarfPackage::load(load, empty()).ok()
        })
    }

    /// The result of a look-up, for which split units are loaded.
    pub(crate) fn complete<L: LookupContinuation<Buf = Reader>>(
        &self,
        mut lookup: LookupResult<L>,
    ) -> L::Output {
        loop {
            match lookup {
                LookupResult::Output(output) => return output,
                LookupResult::Load { load, continuation } => {
                    lookup = continuation.resume(self.load(&load));
                }
            }
        }
    }

    fn load(&self, load: &SplitDwarfLoad<Reader>) -> Option<Arc<Dwarf<Reader>>> {
        let packaged = self.package.as_ref();
        let packaged =
            packaged.and_then(|package| package.find_cu(load.dwo_id, &load.parent).ok()?);
        if let Some(dwarf) = packaged {
            return Some(Arc::new(dwarf));
        }
        let bytes =
            |part: &Option<Reader>| Some(PathBuf::from(OsStr::from_bytes(part.as_deref()?)));
        let path = bytes(&load.path)?;
        let name = path.file_name()?.to_owned();
        let recorded = bytes(&load.comp_dir).unwrap_or_default().join(&path);
        let beside = self.beside.iter().filter_map(|file| file.parent());
        let mut places = std::iter::once(recorded).chain(beside.map(|folder| folder.join(&name)));
        places
            .find_map(|path| self.dwarf(&path, load))
            .map(Arc::new)
    }

    fn dwarf(&self, path: &Path, load: &SplitDwarfLoad<Reader>) -> Option<Dwarf<Reader>> {
        let file = self.open(path)?;
        let section = |id: gimli::SectionId| -> Result<Reader, gimli::Error> {
            let bytes = id.dwo_name().map(|name| file.sections(name));
            Ok(Reader::new(
                Arc::from(bytes.unwrap_or_default()),
                LittleEndian,
            ))
        };
        let mut dwarf = Dwarf::load(section).ok()?;
        from_unit(&mut dwarf, load.dwo_id)?;
        dwarf.make_dwo(&load.parent);
        Some(dwarf)
    }

    fn open(&self, path: &Path) -> Option<ElfFile> {
        let below = path.strip_prefix("/").unwrap_or(path);
        let mut roots = self.roots.iter();
        roots.find_map(|root| ElfFile::regular(&root.join(below)))
    }
}

/// Leaves out the units before the one with this id: types have units of their own.
fn from_unit(dwarf: &mut Dwarf<Reader>, id: DwoId) -> Option<()> {
    let mut headers = dwarf.units();
    while let Some(header) = headers.next().ok()? {
        let start = header.offset().0;
        let unit: Unit<Reader> = dwarf.unit(header).ok()?;
        if unit.dwo_id == Some(id) {
            let rest = dwarf.debug_info.reader().range_from(start..);
            dwarf.debug_info = DebugInfo::from(rest);
            return Some(());
        }
    }
    None
}

fn empty() -> Reader {
    Reader::new(Arc::from([]), LittleEndian)
}
