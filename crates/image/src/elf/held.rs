//! A file that is held without a descriptor: it is mapped.
//!
//! The mapping is never looked into. It is read as memory of another process is, so that a file
//! which has been cut since is an error and no SIGBUS.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// A file, or as much of it as there was when it was mapped.
#[derive(Debug)]
pub(crate) struct Held {
    at: NonNull<c_void>,
    len: NonZeroUsize,
}

// SAFETY: `at` is an address that the kernel is told, and nobody's to read or write.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    /// The `len` bytes that `file` has.
    pub(crate) fn new(file: &File, len: u64) -> io::Result<Held> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let len = NonZeroUsize::new(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: the kernel chooses where. No reference into the mapping is ever made: others may
        // change the file, or cut it.
        let at = unsafe { mmap(None, len, ProtFlags::PROT_READ, flags, file, 0)? };
        Ok(Held { at, len })
    }

    /// How many bytes there were.
    pub(crate) fn len(&self) -> u64 {
        self.len.get() as u64
    }

    /// Fills `buf` from `offset`.
    pub(crate) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let end = offset.checked_add(buf.len());
        if end.is_none_or(|end| end > self.len.get()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let remote = RemoteIoVec {
                base: self.at.addr().get() + offset + done,
                len: rest.len(),
            };
            match process_vm_readv(Pid::this(), &mut [io::IoSliceMut::new(rest)], &[remote])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whole: nothing else refers to it. It cannot fail then.
        let _ = unsafe { munmap(self.at, self.len.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_is_held_is_read_after_its_name_is_gone_and_cut_without_a_signal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let held = Held::new(&file, 20_000).unwrap();
        fs::remove_file(&path).unwrap();
        let mut found = vec![0; 9_000];
        held.read_exact_at(&mut found, 10_990).unwrap();
        assert_eq!(found, bytes[10_990..19_990]);
        assert!(held.read_exact_at(&mut found, 11_001).is_err());
        assert!(held.read_exact_at(&mut found, u64::MAX).is_err());
        file.set_len(4096).unwrap();
        assert!(held.read_exact_at(&mut found, 10_000).is_err());
        held.read_exact_at(&mut found[..96], 4000).unwrap();
        assert_eq!(found[..96], bytes[4000..4096]);
    }
}
