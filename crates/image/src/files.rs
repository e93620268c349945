use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leaktap_memory::ReadMemory;
use nix::libc;
use nix::sys::stat::{major, minor};

use crate::elf::Source;
use crate::maps::Mapping;
use crate::patience::within;
use crate::thread::living_thread;
use crate::{ElfFile, Error};

/// Files that are open already, shared by modules and by processes. Some 400 of them have
/// descriptors, others are mapped.
///
/// An entry is found by device, inode and path together: on btrfs and overlayfs two files can have
/// the first two in common. As long as a file is open here its inode cannot be given to another.
#[derive(Debug, Default)]
pub struct FileCache {
    files: HashMap<Key, Arc<ElfFile>>,
    /// Root directories of the processes that they were opened for.
    roots: Vec<Arc<File>>,
    /// Devices that have not answered once: their files are not asked for again.
    silent: HashSet<(u32, u32)>,
}

type Key = ((u32, u32), u64, PathBuf);

impl FileCache {
    /// An empty cache.
    pub fn new() -> FileCache {
        FileCache::default()
    }

    /// Closes those that `is_used` is false of, unless somebody else holds them.
    pub fn retain(&mut self, is_used: impl Fn(&Arc<ElfFile>) -> bool) {
        self.files.retain(|_, file| is_used(file));
    }

    /// The file of `mapping`, opened at most once.
    pub(crate) fn open(
        &mut self,
        mapping: &Mapping,
        path: &Path,
        opener: &Opener<'_>,
    ) -> Result<Arc<ElfFile>, Error> {
        let key = (mapping.dev, mapping.inode, path.to_path_buf());
        if let Some(file) = self.files.get(&key) {
            return Ok(Arc::clone(file));
        }
        let opened = match self.silent.contains(&mapping.dev) {
            true => Err(Error::io(path, io::ErrorKind::TimedOut.into())),
            false => opener.open(mapping, path, self.root(opener)),
        };
        if let Err(Error::Read { source, .. }) = &opened
            && source.kind() == io::ErrorKind::TimedOut
        {
            self.silent.insert(mapping.dev);
        }
        let file = Arc::new(opened?);
        self.files.insert(key, Arc::clone(&file));
        Ok(file)
    }

    /// The root directory of the process of `opener`, opened once.
    fn root(&mut self, opener: &Opener<'_>) -> Option<Arc<File>> {
        let new = opener.open_root()?;
        let identity = |root: &File| root.metadata().map(|found| identity(&found)).ok();
        let is_it = |root: &&Arc<File>| identity(root) == identity(&new);
        if let Some(known) = self.roots.iter().find(is_it) {
            return Some(Arc::clone(known));
        }
        self.roots.retain(|root| Arc::strong_count(root) > 1);
        let root = Arc::new(new);
        self.roots.push(Arc::clone(&root));
        Some(root)
    }
}

/// Opens the files that one process has mapped.
pub(crate) struct Opener<'a> {
    pid: i32,
    pub(crate) memory: &'a dyn ReadMemory,
    pub(crate) maps: &'a [Mapping],
    /// A mapping of the main program.
    program: Option<&'a Mapping>,
    /// A thread of it that lives.
    thread: OnceCell<i32>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(
        pid: i32,
        memory: &'a dyn ReadMemory,
        maps: &'a [Mapping],
        program: Option<&'a Mapping>,
    ) -> Opener<'a> {
        Opener {
            pid,
            memory,
            maps,
            program,
            thread: OnceCell::new(),
        }
    }

    fn thread(&self) -> i32 {
        let find = || living_thread(self.pid).unwrap_or(self.pid);
        *self.thread.get_or_init(find)
    }

    fn open_root(&self) -> Option<File> {
        let root = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(format!("/proc/{}/root", self.thread()));
        root.ok()
    }

    /// First by name, in the process's own mount namespace and in ours (the kernel prints paths
    /// relative to the reader's root), if device and inode are those of the mapping. Then through
    /// `/proc/PID/map_files`, which needs a capability. Last by name again, if the image in memory
    /// shows that it is the file: overlayfs prints other numbers in maps than stat(2) gives.
    fn open(
        &self,
        mapping: &Mapping,
        path: &Path,
        root: Option<Arc<File>>,
    ) -> Result<ElfFile, Error> {
        let named = self.named(mapping, path);
        let mut denied = None;
        for candidate in &named {
            let mapped = (mapping.dev, mapping.inode);
            match open_regular(candidate, move |file| identity(file) == mapped) {
                Ok(Some(file)) => return ElfFile::new(path, file, root),
                Ok(None) => {}
                // Nothing else would be better: that is said of leaktap itself, or of the file
                // system.
                Err(error) if is_final(&error) => return Err(Error::io(candidate, error)),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    denied = denied.or(Some(Error::io(candidate, error)));
                }
                Err(_) => {}
            }
        }
        if let Ok(Some(file)) = open_regular(&self.map_file(mapping), |_| true) {
            return ElfFile::new(path, file, root);
        }
        for candidate in &named {
            if let Ok(Some(file)) = open_regular(candidate, |_| true)
                && let Ok(elf) = ElfFile::new(path, file, root.clone())
                && self.is_mapped(&elf, mapping)
            {
                return Ok(elf);
            }
        }
        Err(denied.unwrap_or_else(|| Error::Replaced {
            path: path.to_path_buf(),
        }))
    }

    /// Where the file may have its name.
    fn named(&self, mapping: &Mapping, path: &Path) -> Vec<PathBuf> {
        let mut names = Vec::new();
        let thread = self.thread();
        if self
            .program
            .is_some_and(|program| program.same_file(mapping))
        {
            names.push(PathBuf::from(format!("/proc/{thread}/exe")));
        }
        if !mapping.deleted() {
            let below_root = path.strip_prefix("/").unwrap_or(path);
            names.push(Path::new(&format!("/proc/{thread}/root")).join(below_root));
            names.push(path.to_path_buf());
        }
        names
    }

    fn map_file(&self, mapping: &Mapping) -> PathBuf {
        let (start, end) = (mapping.start.get(), mapping.end.get());
        let thread = self.thread();
        PathBuf::from(format!("/proc/{thread}/map_files/{start:x}-{end:x}"))
    }

    /// Compares what no loader changes: the ELF header and the build id.
    fn is_mapped(&self, file: &ElfFile, mapping: &Mapping) -> bool {
        let before = self.maps.iter().filter(|map| map.start <= mapping.start);
        let head = before
            .rev()
            .find(|map| map.offset == 0 && map.same_file(mapping));
        let (Some(head), Some(parts)) = (head, file.fingerprint()) else {
            return false;
        };
        parts.iter().all(|(offset, expected)| {
            let mut found = vec![0; expected.len()];
            let at = head.start.checked_add(*offset);
            at.is_some_and(|at| self.memory.read(at, &mut found).is_ok()) && found == *expected
        })
    }
}

/// Opens a regular file that `wanted` accepts, if its file system answers in time. Anything else is
/// not even opened: a pipe that now has the name of a library would block, a device might do
/// anything.
pub(crate) fn open_regular(
    path: &Path,
    wanted: impl Fn(&fs::Metadata) -> bool + Send + 'static,
) -> io::Result<Option<Source>> {
    let path = path.to_path_buf();
    let accept = move |metadata: &fs::Metadata| metadata.is_file() && wanted(metadata);
    within(move || {
        if !accept(&fs::metadata(&path)?) {
            return Ok(None);
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)?;
        // The name may have been given to another file since.
        match accept(&file.metadata()?) {
            true => Source::of(file).map(Some),
            false => Ok(None),
        }
    })
}

/// True of errors that are no matter of one file: leaktap's own limits, and a file system that does
/// not answer.
fn is_final(error: &io::Error) -> bool {
    const LIMITS: [Option<i32>; 3] = [Some(libc::EMFILE), Some(libc::ENFILE), Some(libc::ENOMEM)];
    error.kind() == io::ErrorKind::TimedOut || LIMITS.contains(&error.raw_os_error())
}

fn identity(metadata: &fs::Metadata) -> ((u32, u32), u64) {
    let number = |part: u64| u32::try_from(part).unwrap_or(u32::MAX);
    let dev = metadata.dev();
    ((number(major(dev)), number(minor(dev))), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::mappings;
    use leaktap_memory::{Addr, Unreadable};
    use std::os::unix::fs::FileExt;

    struct Own(File);

    impl ReadMemory for Own {
        fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
            let read = self.0.read_exact_at(buf, at.get());
            read.map_err(|_| Unreadable { at, len: buf.len() })
        }
    }

    /// As on overlayfs: what maps says is not what stat(2) says, and no map_files help.
    #[test]
    fn a_file_is_known_by_its_image_where_numbers_differ() {
        let pid = std::process::id().cast_signed();
        let memory = Own(File::open("/proc/self/mem").unwrap());
        let mut maps = mappings(pid).unwrap();
        let libc = |map: &Mapping| map.path().is_some_and(|path| path.ends_with("libc.so.6"));
        maps.retain(libc);
        for map in &mut maps {
            map.inode ^= 1 << 40;
        }
        let opener = Opener::new(pid, &memory, &maps, None);
        let mut code = maps.iter().find(|map| map.perms.exec).unwrap().clone();
        code.end = Addr::new(code.end.get() - 1);
        let path = code.path().unwrap().to_path_buf();
        let file = opener.open(&code, &path, None).unwrap();
        assert!(file.functions("malloc").iter().any(|malloc| malloc.dynamic));
        // The right name on another file.
        let other = std::env::current_exe().unwrap();
        let error = opener.open(&code, &other, None).unwrap_err();
        assert!(matches!(error, Error::Replaced { .. }), "{error:?}");
    }
}
