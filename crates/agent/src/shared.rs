use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use leaktap_ledger::{Block, Ledger, reserved};
use leaktap_unwind::Row;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use nix::unistd::{Whence, lseek};

use crate::layout::{Control, KEYS, Known, Live, SPARES, Thread, Told};

/// Binary logarithm of the number of sets of keys: 8,192 threads at a time.
pub const KEY_BITS: u32 = 10;

/// Tables of blocks: 170 million of them.
pub const TABLES: u32 = 28;

const KEYS_LEN: usize = KEYS << KEY_BITS;
const THREADS_LEN: usize = KEYS_LEN + SPARES;

/// Offset of the keys of threads; [`Control`] and what the tracer notes for another one come before.
pub const KEYS_AT: u64 = 64 << 10;

/// Offset of what the tracer notes for another one, should it be killed.
pub const REMAINS_AT: u64 = 8 << 10;

/// Bytes of that.
pub const REMAINS_LEN: usize = (KEYS_AT - REMAINS_AT) as usize;

/// Offset of the threads.
pub const THREADS_AT: u64 = KEYS_AT + 8 * KEYS_LEN as u64;

/// Offset of the room for rows and module tables.
pub const ROOM_AT: u64 =
    (THREADS_AT + (THREADS_LEN * size_of::<Thread>()) as u64).next_multiple_of(4096);

/// Bytes of that room: 60 million rows.
pub const ROOM_LEN: u64 = 1 << 30;

/// Offset of the ledger.
pub const LEDGER_AT: u64 = ROOM_AT + ROOM_LEN;

/// Bytes of the whole. Nearly all of it is never touched.
pub const SHARED_LEN: u64 = LEDGER_AT + reserved(TABLES) as u64;

/// The tracer's side of what it shares with the agent; or, where nothing is injected, the ledger alone.
///
/// The mapping is never taken away: handles on it may live as long as the tracer does.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    base: *mut u8,
    /// What is mapped there; nothing if it is the tracer's own. It stays open.
    file: Option<&'static File>,
}

// SAFETY: all that is reached through it is atomic, but for what `write` does.
unsafe impl Send for Shared {}

impl Shared {
    /// In memory of the tracer's own.
    ///
    /// # Errors
    /// From memfd_create(2), ftruncate(2) and mmap(2).
    pub fn private() -> io::Result<Shared> {
        Shared::uncommitted().or_else(|_| Shared::anonymous())
    }

    /// In a file of its own, unless files may not be as long (RLIMIT_FSIZE): where the kernel commits to no more memory than there is
    /// (vm.overcommit_memory, proc_sys_vm(5)), it does so for each page of a file that is touched, but at once for all that is mapped without
    /// one. That not only fails: other programs get no memory while it is tried.
    fn uncommitted() -> io::Result<Shared> {
        let file = memfd_create("leaktap's own", MFdFlags::MFD_CLOEXEC)?;
        Shared::in_file(file.into())
    }

    fn anonymous() -> io::Result<Shared> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping.
        let mapped = unsafe { mmap_anonymous(None, LEN, READ_WRITE, flags) }?;
        Ok(Shared {
            base: mapped.as_ptr().cast(),
            file: None,
        })
    }

    /// In `file`, a memfd as it was created: makes it as long as it has to be.
    ///
    /// # Errors
    /// From ftruncate(2) and mmap(2).
    pub fn in_file(file: File) -> io::Result<Shared> {
        file.set_len(SHARED_LEN)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping. The target could shorten the file, which would end the tracer
        // with SIGBUS; it has no descriptor of it.
        let mapped = unsafe { mmap(None, LEN, READ_WRITE, flags, &file, 0) }?;
        Ok(Shared {
            base: mapped.as_ptr().cast(),
            file: Some(Box::leak(Box::new(file))),
        })
    }

    /// Moves what is in use of `from` here, if that is in a file: some `bytes` of it from `at` on. Nobody uses it any more. What has come
    /// here is a hole there, so that it costs the target nothing to unmap; of the beginning, which says whose it is, a copy stays. Returns
    /// where to go on, nothing if that was all.
    ///
    /// # Errors
    /// From lseek(2) and pread(2).
    pub fn move_here(&self, from: &Shared, at: u64, bytes: u64) -> io::Result<Option<u64>> {
        let Some((file, start)) = from.file.zip(from.seek(at, Whence::SeekData)?) else {
            return Ok(None);
        };
        let most = start.saturating_add(bytes);
        let end = match start {
            0..KEYS_AT => KEYS_AT,
            KEYS_AT..LEDGER_AT => most.min(LEDGER_AT),
            // Where nothing is, reading would make pages here.
            _ => from
                .seek(start, Whence::SeekHole)?
                .unwrap_or(SHARED_LEN)
                .min(most),
        };
        let len = end.saturating_sub(start);
        // Keys, threads and rows are of no use but to the agent.
        if !(KEYS_AT..LEDGER_AT).contains(&start) {
            // SAFETY: within the mapping, by the bounds above; the caller has the only handle that is used.
            let room = unsafe {
                let to = self.base.wrapping_add(start as usize);
                std::slice::from_raw_parts_mut(to, len as usize)
            };
            file.read_exact_at(room, start)?;
        }
        if start >= KEYS_AT {
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            // If that is impossible, the target has more to unmap.
            let _ = fallocate(file, hole, start.cast_signed(), len.cast_signed());
        }
        Ok(Some(end))
    }

    /// Where the next byte in use is, or the next hole, from `at` on; nothing behind the last byte in use (lseek(2)), or if it is in no file.
    fn seek(&self, at: u64, what: Whence) -> io::Result<Option<u64>> {
        let Some(file) = self.file else {
            return Ok(None);
        };
        match lseek(file, at.cast_signed(), what) {
            Ok(found) => Ok(Some(found.cast_unsigned())),
            Err(Errno::ENXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The next piece in use from `at` on. All that is there, where nobody can tell.
    fn next_in_use(&self, at: u64) -> Option<Range<u64>> {
        let rest = (at < SHARED_LEN).then_some(at..SHARED_LEN);
        if self.file.is_none() {
            return rest;
        }
        let Ok(start) = self.seek(at, Whence::SeekData) else {
            return rest;
        };
        let start = start?;
        let end = self.seek(start, Whence::SeekHole).ok().flatten();
        Some(start..end.unwrap_or(SHARED_LEN))
    }

    /// The live blocks. Pages that nobody has used are not looked at, since that would make them.
    pub fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        let (shared, ledger) = (*self, self.ledger());
        let mut at = LEDGER_AT;
        let in_use = std::iter::from_fn(move || {
            let range = shared.next_in_use(at)?;
            at = range.end;
            Some(range)
        });
        in_use.flat_map(move |range| {
            let in_ledger = |offset: u64| offset.saturating_sub(LEDGER_AT) as usize;
            ledger.live_in(in_ledger(range.start)..in_ledger(range.end))
        })
    }

    /// The ledger.
    pub fn ledger(&self) -> Ledger {
        // SAFETY: zeroed at first; as long as `reserved` says, and never unmapped.
        unsafe { Ledger::at(self.base.wrapping_add(LEDGER_AT as usize), TABLES) }
    }

    /// What the tracer changes while the agent runs.
    pub fn live(&self) -> &'static Live {
        self.at(offset_of!(Control, live))
    }

    /// What the agent tells.
    pub fn told(&self) -> &'static Told {
        self.at(offset_of!(Control, told))
    }

    /// The fs bases of threads, or 0, by the number of the thread.
    pub fn keys(&self) -> &'static [AtomicU64; KEYS_LEN] {
        self.at(KEYS_AT as usize)
    }

    /// [`Thread::outer`] of thread `index`, nothing if there is no such thread.
    pub fn outer(&self, index: usize) -> Option<&'static AtomicU64> {
        let thread = THREADS_AT as usize + index * size_of::<Thread>();
        (index < KEYS_LEN).then(|| self.at(thread + offset_of!(Thread, outer)))
    }

    /// Tells thread `index`, whose key has just been taken, its number.
    pub fn number(&self, index: usize) {
        if index < KEYS_LEN {
            let thread = THREADS_AT as usize + index * size_of::<Thread>();
            let number: &AtomicU32 = self.at(thread + offset_of!(Thread, index));
            number.store(index as u32, Relaxed);
        }
    }

    /// Frees the key and the state of thread `index`, which has ended.
    pub fn forget_thread(&self, index: usize) {
        let (Some(outer), Some(key)) = (self.outer(index), self.keys().get(index)) else {
            return;
        };
        outer.store(0, Relaxed);
        let thread = THREADS_AT as usize + index * size_of::<Thread>();
        let stack = (thread + offset_of!(Thread, stack)) as u64;
        self.write(stack, &[0; size_of::<Known>()]);
        key.store(0, Release);
    }

    /// Writes where no thread looks yet: to be published by a store to [`Shared::live`], or by
    /// the first probe. Nothing is written outside the shared memory.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let len = bytes.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > LEDGER_AT) {
            return;
        }
        // SAFETY: within the mapping, as has just been looked at, and before the ledger.
        unsafe {
            let to = self.base.wrapping_add(offset as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// The same for words, where threads may look meanwhile: a table's place, see [`Published`](crate::published::Published). `offset` is a
    /// multiple of 8.
    pub fn store(&self, offset: u64, words: &[u64]) {
        for (index, word) in words.iter().enumerate() {
            let at = offset as usize + index * size_of::<u64>();
            if at < LEDGER_AT as usize {
                let place: &AtomicU64 = self.at(at);
                place.store(*word, Relaxed);
            }
        }
    }

    /// The entries of the table at `offset`: see [`Shared::store`]. None, should it be longer than anything here.
    pub fn table(&self, offset: u64) -> &'static [AtomicU64] {
        let len: &AtomicU64 = self.at(offset.min(LEDGER_AT) as usize);
        let len = len.load(Relaxed) as usize;
        let first = offset as usize + size_of::<u64>();
        let end = len
            .checked_mul(size_of::<u64>())
            .and_then(|bytes| bytes.checked_add(first));
        if end.is_none_or(|end| end > LEDGER_AT as usize) {
            return &[];
        }
        // SAFETY: atomic words within the mapping, which stays.
        unsafe { std::slice::from_raw_parts(self.at::<AtomicU64>(first), len) }
    }

    /// The same for rows.
    pub fn write_rows(&self, offset: u64, rows: &[Row]) {
        // SAFETY: a Row is 16 bytes of plain integers, without padding.
        let bytes = unsafe {
            std::slice::from_raw_parts(rows.as_ptr().cast::<u8>(), std::mem::size_of_val(rows))
        };
        self.write(offset, bytes);
    }

    fn at<T>(&self, offset: usize) -> &'static T {
        // SAFETY: only of types all of whose fields are atomic integers; offsets are those of
        // the layout, which aligns them, within the mapping, which stays.
        unsafe { &*self.base.wrapping_add(offset).cast::<T>() }
    }
}

const LEN: NonZeroUsize = NonZeroUsize::new(SHARED_LEN as usize).expect("not empty");
const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_are_aligned() {
        const {
            assert!(size_of::<Control>() <= 4096 && KEYS_AT.is_multiple_of(64));
            assert!(THREADS_AT.is_multiple_of(align_of::<Thread>() as u64));
            assert!(LEDGER_AT.is_multiple_of(4096) && SHARED_LEN.is_multiple_of(4096));
        }
    }

    #[test]
    fn what_is_written_is_there_and_nothing_else_is_touched() {
        for shared in [Shared::anonymous(), Shared::uncommitted()] {
            let shared = shared.expect("memory");
            let at = offset_of!(Control, live) + offset_of!(Live, clock);
            shared.write(at as u64, &7_u32.to_le_bytes());
            assert_eq!(shared.live().clock.load(Relaxed), 7);
            shared.write(LEDGER_AT - 1, &[1, 2]);
            shared.write(u64::MAX, &[1]);
            assert!(shared.blocks().next().is_none());
            assert!(shared.outer(KEYS_LEN).is_none());
        }
    }
}
