use std::ffi::OsStr;
use std::io::Read;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use leaktap_memory::Addr;
use procfs::process::{MMPermissions, MemoryMap, MemoryMaps, Process};
use procfs::{FromBufRead, ProcError, ProcResult};

use crate::Error;
use crate::thread::living_thread;

/// One line of `/proc/PID/maps` (proc_pid_maps(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First byte.
    pub start: Addr,
    /// First byte after it.
    pub end: Addr,
    /// What may be done with it.
    pub perms: Perms,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Major and minor number of the file's device; zero without a file.
    pub dev: (u32, u32),
    /// The file's inode; zero without a file.
    pub inode: u64,
    /// What is mapped.
    pub kind: Kind,
}

/// Permissions of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perms {
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub exec: bool,
    /// Shared with other processes rather than copied on write.
    pub shared: bool,
}

/// What is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File {
        /// As the kernel prints it, without the mark of a deleted file.
        path: PathBuf,
        /// The name was gone when the mapping was listed.
        deleted: bool,
    },
    /// Nothing but memory.
    Anonymous,
    /// What brk(2) moves.
    Heap,
    /// A stack that the kernel knows.
    Stack,
    /// The kernel's code in user space, vdso(7).
    Vdso,
    /// The vdso's data.
    Vvar,
    /// The vsyscall page.
    Vsyscall,
    /// Anything else that has a name: `[anon:x]`, System V shared memory.
    Named(String),
}

impl Mapping {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.end.offset_from(self.start).unwrap_or(0)
    }

    /// True of a mapping without a byte, which the kernel never lists.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if `at` lies inside.
    pub fn contains(&self, at: Addr) -> bool {
        self.start <= at && at < self.end
    }

    /// The path of the file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.kind {
            Kind::File { path, .. } => Some(path),
            _ => None,
        }
    }

    /// True of a file that had no name any more when the mapping was listed.
    pub fn deleted(&self) -> bool {
        matches!(self.kind, Kind::File { deleted: true, .. })
    }

    /// True if both map the same file.
    pub(crate) fn same_file(&self, other: &Mapping) -> bool {
        self.inode == other.inode && self.dev == other.dev && self.path() == other.path()
    }

    fn new(map: &MemoryMap, name: &[u8]) -> Mapping {
        Mapping {
            start: Addr::new(map.address.0),
            end: Addr::new(map.address.1),
            perms: Perms {
                read: map.perms.contains(MMPermissions::READ),
                write: map.perms.contains(MMPermissions::WRITE),
                exec: map.perms.contains(MMPermissions::EXECUTE),
                shared: map.perms.contains(MMPermissions::SHARED),
            },
            offset: map.offset,
            dev: (map.dev.0.cast_unsigned(), map.dev.1.cast_unsigned()),
            inode: map.inode,
            kind: Kind::of(name),
        }
    }
}

impl Kind {
    /// What the kernel calls so.
    pub fn of(name: &[u8]) -> Kind {
        match name {
            b"" => Kind::Anonymous,
            b"[heap]" => Kind::Heap,
            b"[vdso]" => Kind::Vdso,
            b"[vsyscall]" => Kind::Vsyscall,
            _ if name.starts_with(b"[vvar") => Kind::Vvar,
            _ if name.starts_with(b"[stack") => Kind::Stack,
            _ if name.starts_with(b"/") && !name.starts_with(b"/SYSV") => Kind::file(name),
            _ => Kind::Named(String::from_utf8_lossy(name).into_owned()),
        }
    }

    fn file(name: &[u8]) -> Kind {
        let (path, deleted) = match name.strip_suffix(b" (deleted)") {
            Some(path) => (path, true),
            None => (name, false),
        };
        Kind::File {
            path: PathBuf::from(OsStr::from_bytes(path)),
            deleted,
        }
    }
}

/// The mappings of process `pid`, lowest address first.
///
/// # Errors
/// [`Error::NoProcess`], [`Error::Denied`], or [`Error::Proc`] for a line that is not as in
/// proc_pid_maps(5). A process without memory has no mappings; that is not an error.
pub fn mappings(pid: i32) -> Result<Vec<Mapping>, Error> {
    Ok(Maps::read(pid)?.mappings)
}

/// The mappings that `text` lists, in the form of `/proc/PID/maps`.
///
/// # Errors
/// [`Error::Proc`] for a line that is not as in proc_pid_maps(5).
pub fn mappings_in(text: &[u8]) -> Result<Vec<Mapping>, Error> {
    parse(text).map_err(|error| Error::Proc {
        what: PathBuf::from("maps"),
        why: error.to_string(),
    })
}

/// `/proc/PID/maps`, as it was read and what it says.
#[derive(Debug)]
pub(crate) struct Maps {
    text: Vec<u8>,
    pub(crate) mappings: Vec<Mapping>,
}

impl Maps {
    /// # Errors
    /// As [`mappings`].
    pub(crate) fn read(pid: i32) -> Result<Maps, Error> {
        let text = contents(pid, "maps")?;
        let mappings = parse(&text).map_err(|error| Error::proc(pid, "maps", error))?;
        Ok(Maps { text, mappings })
    }

    /// The same again; nothing, and a tenth of the time, if not a letter has changed.
    ///
    /// # Errors
    /// As [`mappings`].
    pub(crate) fn read_again(&self, pid: i32) -> Result<Option<Maps>, Error> {
        let text = contents(pid, "maps")?;
        if text == self.text {
            return Ok(None);
        }
        let mappings = parse(&text).map_err(|error| Error::proc(pid, "maps", error))?;
        Ok(Some(Maps { text, mappings }))
    }
}

impl Maps {
    /// Only in `range` has been looked: `now` is what has bytes in common with it, lowest first.
    pub(crate) fn replace(&mut self, range: &Range<Addr>, now: Vec<Mapping>) {
        self.text.clear();
        let first = now
            .first()
            .map_or(range.start, |map| map.start.min(range.start));
        let end = now.last().map_or(range.end, |map| map.end.max(range.end));
        let from = self.mappings.partition_point(|map| map.end <= first);
        let to = self.mappings.partition_point(|map| map.start < end);
        self.mappings.splice(from..to.max(from), now);
    }
}

/// The text of `name`, which tells of the memory of process `pid`, or of its thread if the leader
/// has ended.
pub(crate) fn contents(pid: i32, name: &str) -> Result<Vec<u8>, Error> {
    let read = |thread: i32| -> ProcResult<Vec<u8>> {
        let mut text = Vec::new();
        Process::new(thread)?
            .open_relative(name)?
            .read_to_end(&mut text)?;
        Ok(text)
    };
    let through_another = || read(living_thread(pid).ok_or(ProcError::NotFound(None))?);
    let text = match read(pid) {
        Ok(text) if !text.is_empty() => Ok(text),
        other => through_another().or(other),
    };
    text.map_err(|error| Error::proc(pid, name, error))
}

/// procfs reads the numbers. The names are taken here, as bytes: a file name need not be UTF-8 and
/// may end in spaces, and procfs 0.18 slices one that begins with `/SYSV` without looking.
pub(crate) fn parse(text: &[u8]) -> ProcResult<Vec<Mapping>> {
    let mut numbers = Vec::with_capacity(text.len());
    let mut names = Vec::new();
    for line in text.split(|&byte| byte == b'\n').filter(|l| !l.is_empty()) {
        let (head, name) = split_name(line);
        numbers.extend_from_slice(head);
        numbers.extend_from_slice(b" \n");
        names.push(name);
    }
    let maps = MemoryMaps::from_buf_read(numbers.as_slice())?;
    let mappings = maps.iter().zip(names);
    Ok(mappings
        .map(|(map, name)| Mapping::new(map, name))
        .collect())
}

/// The five fields before the name, and the name without the padding before it.
fn split_name(line: &[u8]) -> (&[u8], &[u8]) {
    let spaces = line.iter().enumerate().filter(|(_, byte)| **byte == b' ');
    match spaces.map(|(at, _)| at).nth(4) {
        Some(at) => {
            let (head, name) = line.split_at(at);
            (head, name.trim_ascii_start())
        }
        None => (line, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &[u8]) -> Vec<Kind> {
        let maps = parse(text).unwrap();
        maps.into_iter().map(|mapping| mapping.kind).collect()
    }

    #[test]
    fn reads_numbers_and_permissions() {
        let line = b"7f12a000-7f12c000 r-xs 00001000 fe:01 1234                  /lib/a b.so\n";
        let expected = Mapping {
            start: Addr::new(0x7f12_a000),
            end: Addr::new(0x7f12_c000),
            perms: Perms {
                read: true,
                write: false,
                exec: true,
                shared: true,
            },
            offset: 0x1000,
            dev: (0xfe, 1),
            inode: 1234,
            kind: Kind::file(b"/lib/a b.so"),
        };
        assert_eq!(parse(line).unwrap(), [expected]);
    }

    #[test]
    fn names_are_bytes() {
        let text = b"1000-2000 r-xp 0 00:00 7    /tmp/\xff \n\
            2000-3000 r-xp 0 00:00 7    /gone (deleted)\n\
            3000-4000 r-xp 0 00:00 7    /SYSVx\n\
            4000-5000 rw-p 0 00:00 0 \n\
            5000-6000 rw-p 0 00:00 0    [stack]\n\
            6000-7000 rw-p 0 00:00 0    [anon:x y]\n";
        let odd = PathBuf::from(OsStr::from_bytes(b"/tmp/\xff "));
        assert_eq!(
            kinds(text),
            [
                Kind::File {
                    path: odd,
                    deleted: false
                },
                Kind::File {
                    path: "/gone".into(),
                    deleted: true
                },
                Kind::Named("/SYSVx".into()),
                Kind::Anonymous,
                Kind::Stack,
                Kind::Named("[anon:x y]".into()),
            ]
        );
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in [&b"x"[..], b"1-2 r-xp", b"1-2 r-xp zz 0:0 1 \n", b"\xff\xfe"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lists_this_process() {
        let here = Addr::new(lists_this_process as *const () as u64);
        let maps = mappings(std::process::id().cast_signed()).unwrap();
        let code = maps.iter().find(|mapping| mapping.contains(here)).unwrap();
        assert!(code.perms.exec && code.path().is_some());
        assert!(maps.is_sorted_by_key(|mapping| mapping.start));
    }
}
