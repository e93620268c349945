//! The memory of a ledger: whoever maps it owns it.

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use leaktap_ledger::Ledger;
use leaktap_ledger::reserved;
use leaktap_unwind::Row;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::layout::{Control, Live, Told};
use crate::tally::{Sum, Tally};

const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// A mapping that begins with a [`Control`] and ends with a ledger. It is unmapped, and what is
/// mapped is closed, when this goes; whatever refers into it borrows from it.
///
/// If it is a file that a target maps, too, that may write there at any time.
#[derive(Debug)]
pub(crate) struct LedgerMap {
    base: NonNull<u8>,
    /// Offset of the ledger.
    ledger: usize,
    /// Tables of blocks.
    tables: u32,
    /// What is mapped; nothing if that has no file.
    file: Option<File>,
}

// SAFETY: all that is reached through it is atomic, but for what `write` does, and `room`, which
// nobody else refers into.
unsafe impl Send for LedgerMap {}
// SAFETY: as above.
unsafe impl Sync for LedgerMap {}

impl Drop for LedgerMap {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with that length, and nothing borrows from it any more.
        let unmapped = unsafe { munmap(self.base.cast(), self.len()) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

impl LedgerMap {
    /// Maps `file`, which is that long and stays so; without one, memory that is zeroed. The ledger
    /// is at offset `ledger`, a multiple of 64.
    ///
    /// # Errors
    /// From mmap(2); `InvalidInput` if the ledger lies in the [`Control`].
    pub(crate) fn new(file: Option<File>, ledger: u64, tables: u32) -> io::Result<LedgerMap> {
        let ledger = ledger as usize;
        if ledger < size_of::<Control>() || !ledger.is_multiple_of(64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let len = ledger + reserved(tables);
        let len = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping.
        let base = unsafe {
            match &file {
                Some(file) => mmap(None, len, READ_WRITE, flags | MapFlags::MAP_SHARED, file, 0),
                None => mmap_anonymous(None, len, READ_WRITE, flags | MapFlags::MAP_PRIVATE),
            }
        }?;
        let base = base.cast();
        Ok(LedgerMap {
            base,
            ledger,
            tables,
            file,
        })
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.ledger + reserved(self.tables)
    }

    /// What is mapped; nothing if that has no file.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// The ledger.
    pub(crate) fn ledger(&self) -> Ledger<'_> {
        // SAFETY: zeroed at first; as long as `reserved` says, and mapped as long as `self` is
        // there.
        unsafe { Ledger::at(self.place(self.ledger), self.tables) }
    }

    /// What the tracer changes while the agent runs.
    pub(crate) fn live(&self) -> &Live {
        // SAFETY: all fields are atomic; part of the head, which is always there.
        unsafe { &*self.place(offset_of!(Control, live)).cast() }
    }

    /// What the agent tells.
    pub(crate) fn told(&self) -> &Told {
        // SAFETY: as for `live`.
        unsafe { &*self.place(offset_of!(Control, told)).cast() }
    }

    /// `len` words at `offset`, a multiple of 8; none unless they are all before the ledger.
    pub(crate) fn words(&self, offset: u64, len: usize) -> &[AtomicU64] {
        let bytes = len.saturating_mul(size_of::<u64>());
        match self.before_ledger(offset, bytes) {
            // SAFETY: aligned atomic words within the mapping, which stays as long as `self`.
            Some(place) if offset.is_multiple_of(size_of::<u64>() as u64) => unsafe {
                std::slice::from_raw_parts(place.cast(), len)
            },
            _ => &[],
        }
    }

    /// `len` sums at `offset`, a multiple of 8; none unless they are all before the ledger.
    pub(crate) fn sums(&self, offset: u64, len: usize) -> &[Sum] {
        let bytes = len.saturating_mul(size_of::<Sum>());
        match self.before_ledger(offset, bytes) {
            // SAFETY: as for `words`: a Sum is atomic words.
            Some(place) if offset.is_multiple_of(align_of::<Sum>() as u64) => unsafe {
                std::slice::from_raw_parts(place.cast(), len)
            },
            _ => &[],
        }
    }

    /// The tally at `offset`, if it is before the ledger, and aligned.
    pub(crate) fn tally(&self, offset: u64) -> Option<&Tally> {
        let place = self.before_ledger(offset, size_of::<Tally>())?;
        let is_aligned = offset.is_multiple_of(align_of::<Tally>() as u64);
        // SAFETY: as for `words`: all of a Tally is atomic; the mapping begins with a page.
        is_aligned.then(|| unsafe { &*place.cast() })
    }

    /// The half word at `offset`, a multiple of 4, if it is before the ledger.
    pub(crate) fn half_word(&self, offset: u64) -> Option<&AtomicU32> {
        let place = self.before_ledger(offset, size_of::<u32>())?;
        let is_aligned = offset.is_multiple_of(size_of::<u32>() as u64);
        // SAFETY: as for `words`.
        is_aligned.then(|| unsafe { &*place.cast() })
    }

    /// Writes where no thread looks yet, and nothing outside what comes before the ledger.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        if let Some(place) = self.before_ledger(offset, bytes.len()) {
            // SAFETY: within the mapping, and before the ledger.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        }
    }

    /// The same for rows.
    pub(crate) fn write_rows(&self, offset: u64, rows: &[Row]) {
        // SAFETY: a Row is 16 bytes of plain integers, without padding.
        let bytes = unsafe {
            std::slice::from_raw_parts(rows.as_ptr().cast::<u8>(), std::mem::size_of_val(rows))
        };
        self.write(offset, bytes);
    }

    /// `len` bytes at `offset`, if they are there.
    pub(crate) fn room(&mut self, offset: u64, len: u64) -> Option<&mut [u8]> {
        offset
            .checked_add(len)
            .filter(|end| *end <= self.len() as u64)?;
        // SAFETY: within the mapping, as has just been looked at; nothing else refers into it.
        let room =
            unsafe { std::slice::from_raw_parts_mut(self.place(offset as usize), len as usize) };
        Some(room)
    }

    fn before_ledger(&self, offset: u64, len: usize) -> Option<*mut u8> {
        let end = offset.checked_add(len as u64)?;
        (end <= self.ledger as u64).then(|| self.place(offset as usize))
    }

    fn place(&self, offset: usize) -> *mut u8 {
        self.base.as_ptr().wrapping_add(offset)
    }
}
