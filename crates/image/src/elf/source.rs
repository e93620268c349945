use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::fstatfs;
use object::read::{ReadCache, ReadCacheOps, ReadRef};

use super::held::Held;
use crate::patience::within;

/// Most bytes taken from a file in one piece (1 GiB): a sparse file of the target costs no more.
const LARGEST: u64 = 1 << 30;

/// File systems that need nobody else to answer (statfs(2)): ext4, XFS, Btrfs, tmpfs, ramfs,
/// overlayfs, F2FS, EROFS, squashfs, ZFS, ISO 9660.
const LOCAL: [i64; 11] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0x8584_58f6,
    0x794c_7630,
    0xf2f5_2010,
    0xe0f5_e1e2,
    0x7371_7368,
    0x2fc1_2fc1,
    0x9660,
];

/// Largest file that is copied rather than held open where there are many open already.
const COPIED: u64 = 64 << 20;

/// Most descriptors that files are held open by.
const MOST_OPEN: u64 = 400;

/// Where an ELF file's bytes come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file, held open: it can be read after its name, or the process, has gone.
    File(File),
    /// The same where many are open already.
    Held(Held),
    /// The same on a file system that may not answer.
    Remote(Remote),
    /// A copy of memory: the vdso. Or of a file that may not answer, where many are open already.
    Bytes(Vec<u8>),
}

/// A file, read by another thread.
#[derive(Debug)]
pub(crate) struct Remote {
    file: Arc<File>,
    len: u64,
    /// It has not answered once, and is not asked again.
    is_silent: AtomicBool,
}

impl Remote {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.is_silent.load(Relaxed) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (file, len) = (Arc::clone(&self.file), buf.len());
        let read = within(move || {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, offset).map(|()| bytes)
        });
        let is_silent = read
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
        self.is_silent.fetch_or(is_silent, Relaxed);
        buf.copy_from_slice(&read?);
        Ok(())
    }
}

impl Source {
    /// `file`, which has just been opened; may take as long as its file system likes.
    pub(crate) fn of(file: File) -> io::Result<Source> {
        let len = file.metadata()?.len();
        let are_many = is_among_the_last(&file);
        // The type of the number is each C library's own.
        #[allow(clippy::unnecessary_cast, reason = "it is unsigned in musl")]
        let kind = fstatfs(&file)?.filesystem_type().0 as i64;
        if LOCAL.contains(&kind) {
            let held = are_many.then(|| Held::new(&file, len));
            let held = held.and_then(Result::ok).map(Source::Held);
            return Ok(held.unwrap_or(Source::File(file)));
        }
        if are_many && len <= COPIED {
            let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, 0)?;
            return Ok(Source::Bytes(bytes));
        }
        Ok(Source::Remote(Remote {
            file: Arc::new(file),
            len,
            is_silent: AtomicBool::new(false),
        }))
    }

    /// `len` bytes from `offset`, or an error if there are fewer.
    pub(crate) fn read(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let end = offset
            .checked_add(len)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        if len > LARGEST || end > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        match self {
            Source::File(file) => Ok(file.metadata()?.len()),
            Source::Held(held) => Ok(held.len()),
            Source::Remote(remote) => Ok(remote.len),
            Source::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Source::File(file) => file.read_exact_at(buf, offset),
            Source::Held(held) => held.read_exact_at(buf, offset),
            Source::Remote(remote) => remote.read_exact_at(buf, offset),
            Source::Bytes(bytes) => {
                let from = usize::try_from(offset).map_err(io::Error::other)?;
                let found = from
                    .checked_add(buf.len())
                    .and_then(|end| bytes.get(from..end))
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                buf.copy_from_slice(found);
                Ok(())
            }
        }
    }
}

/// True of a descriptor behind [`MOST_OPEN`], or in the last third of those that there may be
/// (RLIMIT_NOFILE, getrlimit(2)).
fn is_among_the_last(file: &File) -> bool {
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let most = MOST_OPEN.min(most - most / 3);
    u64::try_from(file.as_raw_fd()).is_ok_and(|fd| fd >= most)
}

/// A reader for `object`'s cache. Reads by position: the descriptor's own offset, which threads
/// share, is never moved.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    source: &'a Source,
    at: u64,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(source: &'a Source) -> Cursor<'a> {
        Cursor { source, at: 0 }
    }
}

impl ReadCacheOps for Cursor<'_> {
    fn len(&mut self) -> Result<u64, ()> {
        self.source.len().map_err(drop)
    }

    fn seek(&mut self, pos: u64) -> Result<u64, ()> {
        self.at = pos;
        Ok(pos)
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ()> {
        let left = self.source.len().map_err(drop)?.saturating_sub(self.at);
        let len = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        self.read_exact(&mut buf[..len])?;
        Ok(len)
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), ()> {
        self.source.read_exact_at(buf, self.at).map_err(drop)?;
        self.at = self.at.checked_add(buf.len() as u64).ok_or(())?;
        Ok(())
    }
}

/// A cache that refuses pieces larger than [`LARGEST`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounded<'a>(pub(crate) &'a ReadCache<Cursor<'a>>);

impl<'a> ReadRef<'a> for Bounded<'a> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        match size {
            0..=LARGEST => self.0.read_bytes_at(offset, size),
            _ => Err(()),
        }
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each module was open by two descriptors, and 5,000 modules are more than there are.
    #[test]
    fn of_many_files_most_are_held_without_a_descriptor() {
        let own = std::env::current_exe().unwrap();
        let open = || File::open(&own).unwrap();
        let first = Source::of(open()).unwrap();
        assert!(matches!(first, Source::File(_)), "{first:?}");
        let many: Vec<File> = (0..MOST_OPEN).map(|_| open()).collect();
        let held = Source::of(open()).unwrap();
        assert!(matches!(held, Source::Held(_)), "{held:?}");
        drop(many);
        let ends = |source: &Source| {
            let len = source.len().unwrap();
            [0, len - 64].map(|at| source.read(at, 64).unwrap())
        };
        assert_eq!(ends(&held), ends(&first));
        assert!(held.read(held.len().unwrap() - 63, 64).is_err());
    }
}
