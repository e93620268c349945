//! Finds the debug information that distributions ship apart from a file, as gdb does ("Debugging
//! Information in Separate Files").

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::ElfFile;
use crate::elf::{string_at, u32_at};
use crate::files::open_regular;

/// Most bytes of compressed symbols.
const MOST_SYMBOLS: usize = 256 << 20;

const DEBUG_DIR: &str = "usr/lib/debug";

/// The separate debug file of `file`: by build id, or by the name and checksum in `.gnu_debuglink`;
/// first where the process sees files, then where we do.
pub(crate) fn find(file: &ElfFile) -> Option<ElfFile> {
    let id = file.build_id();
    id.and_then(|id| by_build_id(file, id))
        .or_else(|| by_link(file))
}

/// The file that `debug` shares strings and types with (`.gnu_debugaltlink`, as dwz(1) makes it).
/// `file` is what `debug` was split from.
pub(crate) fn shared(debug: &ElfFile, file: &ElfFile) -> Option<ElfFile> {
    let link = debug.section(".gnu_debugaltlink")?;
    let name = string_at(&link, 0)?;
    let id = link.get(name.len().checked_add(1)?..)?;
    let same = |found: &ElfFile| found.build_id() == Some(id);
    by_build_id(file, id).or_else(|| {
        let beside = debug.path().parent()?.join(OsStr::from_bytes(name));
        open(&beside).filter(same)
    })
}

/// The symbols that a stripped file has compressed in itself (`.gnu_debugdata`, MiniDebugInfo).
pub(crate) fn embedded(file: &ElfFile) -> Option<ElfFile> {
    let compressed = file.section(".gnu_debugdata")?;
    let mut bytes = Limited(Vec::new());
    lzma_rs::xz_decompress(&mut compressed.as_slice(), &mut bytes).ok()?;
    ElfFile::from_bytes(file.path(), bytes.0).ok()
}

/// Bytes, up to as many as symbols may be.
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.len().saturating_add(bytes.len()) {
            0..=MOST_SYMBOLS => self.0.write(bytes),
            _ => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn by_build_id(file: &ElfFile, id: &[u8]) -> Option<ElfFile> {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (directory, name) = hex.split_at_checked(2)?;
    let path = format!("{DEBUG_DIR}/.build-id/{directory}/{name}.debug");
    let mut roots = roots(file).into_iter();
    roots.find_map(|root| open(&root.join(&path)).filter(|found| found.build_id() == Some(id)))
}

fn by_link(file: &ElfFile) -> Option<ElfFile> {
    let link = file.section(".gnu_debuglink")?;
    let name = string_at(&link, 0)?;
    let checksum = u32_at(&link, name.len().checked_add(4)? & !3)?;
    let name = Path::new(OsStr::from_bytes(name)).file_name()?;
    let directory = file.path().parent()?;
    let below_root = directory.strip_prefix("/").unwrap_or(directory);
    let places = [
        below_root.to_path_buf(),
        below_root.join(".debug"),
        Path::new(DEBUG_DIR).join(below_root),
    ];
    let mut candidates = roots(file)
        .into_iter()
        .flat_map(|root| places.clone().map(|place| root.join(place).join(name)));
    candidates.find_map(|path| open(&path).filter(|found| found.checksum() == Some(checksum)))
}

/// The process's root directory, through the descriptor that was opened while it lived, and ours.
pub(crate) fn roots(file: &ElfFile) -> Vec<PathBuf> {
    let own = PathBuf::from("/");
    match file.root() {
        Some(root) => vec![format!("/proc/self/fd/{}", root.as_raw_fd()).into(), own],
        None => vec![own],
    }
}

pub(crate) fn open(path: &Path) -> Option<ElfFile> {
    let file = open_regular(path, |_| true).ok()??;
    ElfFile::new(path, file, None).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::Source;
    use std::fs::{self, File};
    use std::process::Command;
    use std::sync::Arc;

    fn run(command: &mut Command) {
        assert!(command.status().unwrap().success(), "{command:?}");
    }

    /// The process may see other files than we do.
    #[test]
    fn the_root_directory_of_the_process_is_searched_by_build_id() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("program");
        fs::write(root.path().join("a.c"), "int main(void) { return 0; }").unwrap();
        run(Command::new("gcc")
            .args(["-g", "-Wl,--build-id=0xabcdef0123456789", "a.c", "-o"])
            .arg(&path)
            .current_dir(root.path()));
        let directory = root.path().join("usr/lib/debug/.build-id/ab");
        fs::create_dir_all(&directory).unwrap();
        let debug = directory.join("cdef0123456789.debug");
        fs::copy(&path, &debug).unwrap();
        run(Command::new("strip").arg(&path));

        let alone = ElfFile::open(&path).unwrap();
        assert!(find(&alone).is_none());
        let opened = |path: &Path| File::open(path).unwrap();
        let process_root = Some(Arc::new(opened(root.path())));
        let source = Source::of(opened(&path)).unwrap();
        let file = ElfFile::new(&path, source, process_root).unwrap();
        let found = find(&file).unwrap();
        assert_eq!(found.build_id(), file.build_id());
        assert_eq!(found.functions("main").len(), 1);
    }
}
