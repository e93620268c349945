//! `PROCMAP_QUERY` of linux/fs.h: one mapping, without the text of all (Linux 6.11).

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc::{self, c_ulong};

/// `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: c_ulong = 0xc068_6611;

const READABLE: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const EXECUTABLE: u64 = 1 << 2;
const SHARED: u64 = 1 << 3;
const COVERING_OR_NEXT: u64 = 1 << 4;

/// The longest name: PATH_MAX, and the mark of a deleted file.
const NAME_LEN: usize = 4096 + 16;

/// `struct procmap_query`.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    at: u64,
    start: u64,
    end: u64,
    found: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    major: u32,
    minor: u32,
    name_size: u32,
    build_id_size: u32,
    name: u64,
    build_id: u64,
}

const _: () = assert!(size_of::<Query>() == 0x68);

/// A mapping, as one line of /proc/PID/maps has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// Its first byte.
    pub start: u64,
    /// The first byte after it.
    pub end: u64,
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub exec: bool,
    /// Shared rather than copied on write.
    pub shared: bool,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Major and minor number of the file's device.
    pub dev: (u32, u32),
    /// The file's inode; zero without a file.
    pub inode: u64,
    /// Of a file its path, which may have the mark of a deleted one; with the bytes that maps
    /// escapes.
    pub name: Vec<u8>,
}

/// The mapping at `at`, or the next one above; none if there is neither. `maps` is a
/// /proc/PID/maps. Fails with `ENOTTY` before Linux 6.11.
pub(crate) fn area_from(maps: &File, at: u64) -> Result<Option<Area>, Errno> {
    let mut name = vec![0_u8; NAME_LEN];
    let mut query = Query {
        size: size_of::<Query>() as u64,
        flags: COVERING_OR_NEXT,
        at,
        name_size: NAME_LEN as u32,
        name: name.as_mut_ptr() as u64,
        ..Query::default()
    };
    // SAFETY: the kernel reads and writes `query`, of the size that it says, and writes at most
    // `name_size` bytes to `name`; both live through the call.
    let asked = unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY as _, &raw mut query) };
    match Errno::result(asked) {
        Err(Errno::ENOENT) => return Ok(None),
        asked => asked?,
    };
    // With the zero that ends it.
    let len = usize::try_from(query.name_size).unwrap_or(0);
    name.truncate(len.saturating_sub(1));
    let is = |flag: u64| query.found & flag != 0;
    Ok(Some(Area {
        start: query.start,
        end: query.end,
        read: is(READABLE),
        write: is(WRITABLE),
        exec: is(EXECUTABLE),
        shared: is(SHARED),
        offset: query.offset,
        dev: (query.major, query.minor),
        inode: query.inode,
        name,
    }))
}
