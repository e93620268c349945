use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use object::read::{ReadCache, ReadCacheOps, ReadRef};

/// Most bytes taken from a file in one piece (1 GiB): a sparse file of the target costs no more.
const LARGEST: u64 = 1 << 30;

/// Where an ELF file's bytes come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file, held open: it can be read after its name, or the process, has gone.
    File(File),
    /// A copy of memory: the vdso.
    Bytes(Vec<u8>),
}

impl Source {
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
            Source::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Source::File(file) => file.read_exact_at(buf, offset),
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
