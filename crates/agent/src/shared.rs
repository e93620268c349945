use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use leaktap_ledger::{Block, Ledger, reserved};
use leaktap_memory::PAGE;
use leaktap_unwind::Row;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Whence, lseek};

use crate::layout::{KEYS, Known, Live, MAPPINGS, SPARES, STACKS, Thread, Told, Unreturned};
use crate::ledger_map::LedgerMap;
use crate::moving::{MOVING, MOVING_WORDS, Moving};
use crate::queue::{Place, Queue};
use crate::tally::{Sum, Tally};

/// Binary logarithm of the number of sets of keys: 8,192 threads at a time.
pub const KEY_BITS: u32 = 10;

/// Tables of blocks: 170 million of them.
pub const TABLES: u32 = 28;

const KEYS_LEN: usize = KEYS << KEY_BITS;
pub(crate) const THREADS_LEN: usize = KEYS_LEN + SPARES;

/// Offset of [`Control`](crate::layout::Control).
pub const CONTROL_AT: u64 = 0;

/// Offset of the keys of threads; [`Control`](crate::layout::Control) and what the tracer notes for
/// another one come before.
pub const KEYS_AT: u64 = 64 << 10;

/// Offset of what the tracer notes for another one, should it be killed.
pub const REMAINS_AT: u64 = 8 << 10;

/// Bytes of that.
pub const REMAINS_LEN: usize = (KEYS_AT - REMAINS_AT) as usize;

/// Offset of the threads.
pub const THREADS_AT: u64 = KEYS_AT + 8 * KEYS_LEN as u64;

/// Offset of the notes of calls that map memory.
pub const MAPPINGS_AT: u64 =
    (THREADS_AT + (THREADS_LEN * size_of::<Thread>()) as u64).next_multiple_of(PAGE);

/// Offset of the room for rows and module tables.
pub const ROOM_AT: u64 = MAPPINGS_AT + (MAPPINGS * size_of::<Place>()) as u64;

/// Bytes of that room: 60 million rows.
pub const ROOM_LEN: u64 = 1 << 30;

/// Offset of the sums of what stacks have allocated.
pub const SUMS_AT: u64 = ROOM_AT + ROOM_LEN;

/// Offset of the ledger.
pub const LEDGER_AT: u64 = (SUMS_AT + (STACKS * size_of::<Sum>()) as u64).next_multiple_of(PAGE);

/// Bytes of the whole. Nearly all of it is never touched.
pub const SHARED_LEN: u64 = LEDGER_AT + reserved(TABLES) as u64;

/// The tracer's side of what it shares with the agent; or, where nothing is injected, the ledger
/// alone.
#[derive(Debug)]
pub struct Shared {
    map: LedgerMap,
    parts: Parts,
}

/// Where the parts are that differ between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    /// Offset of the ledger; keys, threads and room come before, or are not there.
    ledger: u64,
    /// Tables of blocks.
    tables: u32,
}

impl Parts {
    /// What is shared with the agent.
    const SHARED: Parts = Parts {
        ledger: LEDGER_AT,
        tables: TABLES,
    };

    /// A ledger of the tracer's own, with so many tables.
    const fn own(tables: u32) -> Parts {
        Parts {
            ledger: KEYS_AT,
            tables,
        }
    }

    const fn len(self) -> u64 {
        self.ledger + reserved(self.tables) as u64
    }

    /// Where is here what is at offset `at` of `other`: head or ledger, as neither has anything
    /// else in common.
    const fn place_of(self, at: u64, other: Parts) -> u64 {
        if at < other.ledger {
            at
        } else {
            at - other.ledger + self.ledger
        }
    }
}

impl Shared {
    /// In memory of the tracer's own. Where `ulimit -v` leaves it few addresses (getrlimit(2)),
    /// there is room for fewer blocks.
    ///
    /// # Errors
    /// From memfd_create(2), ftruncate(2) and mmap(2).
    pub fn private() -> io::Result<Shared> {
        /// 40 million blocks in 1.2 GiB, ..., 300,000 in some 210 MiB.
        const FEWER: [u32; 4] = [20, 12, 6, 1];
        let mut made = Shared::own(TABLES);
        for tables in FEWER {
            match made {
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                    made = Shared::own(tables);
                }
                made => return made,
            }
        }
        made
    }

    /// In a file of its own, unless files may not be as long (RLIMIT_FSIZE): where the kernel
    /// commits to no more memory than there is (vm.overcommit_memory, proc_sys_vm(5)), it does so
    /// for each page of a file that is touched, but at once for all that is mapped without one.
    /// That not only fails: other programs get no memory while it is tried.
    fn own(tables: u32) -> io::Result<Shared> {
        Shared::uncommitted(tables).or_else(|_| Shared::anonymous(tables))
    }

    fn uncommitted(tables: u32) -> io::Result<Shared> {
        let file = File::from(memfd_create("leaktap's own", MFdFlags::MFD_CLOEXEC)?);
        let parts = Parts::own(tables);
        file.set_len(parts.len())?;
        Shared::new(parts, Some(file))
    }

    fn anonymous(tables: u32) -> io::Result<Shared> {
        Shared::new(Parts::own(tables), None)
    }

    /// In `file`, a memfd as it was created, which may be sealed: makes it as long as it has to be,
    /// for good. The target, whose file it is, could otherwise shorten it, and the tracer would end
    /// by SIGBUS.
    ///
    /// # Errors
    /// From ftruncate(2), fcntl(2) and mmap(2).
    pub fn in_file(file: File) -> io::Result<Shared> {
        file.set_len(SHARED_LEN)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        match file.metadata()?.len() {
            SHARED_LEN => Shared::new(Parts::SHARED, Some(file)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()), // shortened before it was sealed
        }
    }

    /// Maps `file`, which is as long as `parts` are and stays so; without one, memory that is
    /// zeroed.
    fn new(parts: Parts, file: Option<File>) -> io::Result<Shared> {
        let map = LedgerMap::new(file, parts.ledger, parts.tables)?;
        Ok(Shared { map, parts })
    }

    /// Whether there is room here for whatever may be in `other`.
    pub fn holds(&self, other: &Shared) -> bool {
        self.parts.tables >= other.parts.tables
    }

    /// Moves what is in use of `from` here, if that is in a file: some `bytes` of it from `at` on.
    /// Nobody uses it any more. What has come here is a hole there, so that it costs the target
    /// nothing to unmap; of the beginning, which says whose it is, a copy stays. Returns where to
    /// go on, nothing if that was all.
    ///
    /// # Errors
    /// From lseek(2) and pread(2); if it does not [hold](Shared::holds) as much.
    pub fn move_here(&mut self, from: &Shared, at: u64, bytes: u64) -> io::Result<Option<u64>> {
        if !self.holds(from) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let next = from.seek(at, Whence::SeekData)?;
        let Some((file, start)) = from.map.file().zip(next) else {
            return Ok(None);
        };
        let ledger = from.parts.ledger;
        let most = start.saturating_add(bytes);
        let end = match start {
            0..KEYS_AT => KEYS_AT,
            at if at < ledger => most.min(ledger),
            // Where nothing is, reading would make pages here.
            _ => from
                .seek(start, Whence::SeekHole)?
                .unwrap_or(from.parts.len())
                .min(most),
        };
        let end = end.min(from.parts.len());
        // Keys, threads and rows are of no use but to the agent.
        if !(KEYS_AT..ledger).contains(&start) {
            let to = self.parts.place_of(start, from.parts);
            self.fill(to, end.saturating_sub(start), file, start)?;
        }
        if start >= KEYS_AT {
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let len = end.saturating_sub(start);
            // If that is impossible, the target has more to unmap.
            let _ = fallocate(file, hole, start.cast_signed(), len.cast_signed());
        }
        Ok(Some(end))
    }

    /// Reads `len` bytes at offset `from` of `file` to offset `to`.
    fn fill(&mut self, to: u64, len: u64, file: &File, from: u64) -> io::Result<()> {
        let room = self.map.room(to, len);
        let room = room.ok_or(io::ErrorKind::OutOfMemory)?;
        file.read_exact_at(room, from)
    }

    /// Bytes that are in memory; none if it is in no file.
    pub fn resident(&self) -> u64 {
        /// Of a block of stat(2).
        const BLOCK: u64 = 512;
        let metadata = self.map.file().and_then(|file| file.metadata().ok());
        metadata.map_or(0, |metadata| metadata.blocks().saturating_mul(BLOCK))
    }

    /// Where the next byte in use is, or the next hole, from `at` on; nothing behind the last byte
    /// in use (lseek(2)), or if it is in no file.
    fn seek(&self, at: u64, what: Whence) -> io::Result<Option<u64>> {
        let Some(file) = self.map.file() else {
            return Ok(None);
        };
        match lseek(file, at.cast_signed(), what) {
            Ok(found) => Ok(Some(found.cast_unsigned())),
            Err(Errno::ENXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The next piece in use from `at` on. All that is there, where nobody can tell.
    pub(crate) fn next_in_use(&self, at: u64) -> Option<Range<u64>> {
        let len = self.parts.len();
        let rest = (at < len).then_some(at..len);
        if self.map.file().is_none() {
            return rest;
        }
        let Ok(start) = self.seek(at, Whence::SeekData) else {
            return rest;
        };
        let start = start?;
        let end = self.seek(start, Whence::SeekHole).ok().flatten();
        Some(start..end.unwrap_or(len))
    }

    /// The live blocks. Pages that nobody has used are not looked at, since that would make them.
    pub fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        let (ledger, first) = (self.ledger(), self.parts.ledger);
        let mut at = first;
        let in_use = std::iter::from_fn(move || {
            let range = self.next_in_use(at)?;
            at = range.end;
            Some(range)
        });
        in_use.flat_map(move |range| {
            let in_ledger = |offset: u64| offset.saturating_sub(first) as usize;
            ledger.live_in(in_ledger(range.start)..in_ledger(range.end))
        })
    }

    /// Of the sums of stacks, those between two offsets in the file, and the number of the first.
    /// None where nothing is shared.
    pub(crate) fn sums_in(&self, range: &Range<u64>) -> (usize, &[Sum]) {
        let word = |at: u64| at.clamp(SUMS_AT, LEDGER_AT) - SUMS_AT;
        let first = (word(range.start) / size_of::<Sum>() as u64) as usize;
        let end = (word(range.end) / size_of::<Sum>() as u64) as usize;
        (
            first,
            self.map
                .sums(SUMS_AT, STACKS)
                .get(first..end)
                .unwrap_or_default(),
        )
    }

    /// The tally at an offset in the file; nothing where nothing is shared.
    pub(crate) fn tally(&self, at: u64) -> Option<&Tally> {
        self.map.tally(at)
    }

    /// The ledger.
    pub fn ledger(&self) -> Ledger<'_> {
        self.map.ledger()
    }

    /// What the tracer changes while the agent runs.
    pub fn live(&self) -> &Live {
        self.map.live()
    }

    /// What the agent tells.
    pub fn told(&self) -> &Told {
        self.map.told()
    }

    /// What the tracer notes for another one, should it be killed.
    pub fn remains(&self) -> &[AtomicU64] {
        self.map.words(REMAINS_AT, REMAINS_LEN / size_of::<u64>())
    }

    /// The fs bases of threads, or 0, by the number of the thread. None where nothing is shared.
    pub fn keys(&self) -> &[AtomicU64] {
        self.map.words(KEYS_AT, KEYS_LEN)
    }

    /// [`Thread::outer`] of thread `index`, nothing if there is no such thread.
    pub fn outer(&self, index: usize) -> Option<&AtomicU64> {
        let outer = thread_at(index)? + offset_of!(Thread, outer) as u64;
        self.map.words(outer, 1).first()
    }

    /// [`Thread::handed`] of thread `index`, nothing if there is no such thread.
    pub fn handed(&self, index: usize) -> Option<&AtomicU64> {
        let handed = thread_at(index)? + offset_of!(Thread, handed) as u64;
        self.map.words(handed, 1).first()
    }

    /// [`Thread::pool`] of thread `index`, nothing if there is no such thread.
    pub fn pool(&self, index: usize) -> Option<&[AtomicU64; 2]> {
        let pool = thread_at(index)? + offset_of!(Thread, pool) as u64;
        self.map.words(pool, 2).first_chunk()
    }

    /// The calls that map memory, as the agent notes them. No place for any where nothing is
    /// shared.
    pub fn mappings(&self) -> Queue<'_> {
        const WORDS: usize = size_of::<Place>() / size_of::<u64>();
        let (places, _) = self.map.words(MAPPINGS_AT, MAPPINGS * WORDS).as_chunks();
        Queue {
            next: &self.told().noted,
            places,
        }
    }

    /// Tells thread `index`, whose key has just been taken, its number.
    pub fn number(&self, index: usize) {
        let number = |thread| {
            self.map
                .half_word(thread + offset_of!(Thread, index) as u64)
        };
        if let Some(number) = thread_at(index).and_then(number) {
            number.store(index as u32, Relaxed);
        }
    }

    /// What calls of thread `index` have taken out of the ledger goes back: they will not return.
    pub fn put_back(&self, stripe: usize, index: usize) {
        let moving = thread_at(index).map(|thread| thread + offset_of!(Thread, moving) as u64);
        let words = self
            .map
            .words(moving.unwrap_or(u64::MAX), MOVING * MOVING_WORDS);
        let calls = words
            .chunks_exact(MOVING_WORDS)
            .filter_map(|call| call.first_chunk());
        let under_way = calls.map(Moving).filter(|call| call.entry_sp() != 0);
        for freed in under_way.filter_map(|call| call.end(call.entry_sp())) {
            let back = self.ledger().restore(stripe, freed);
            let _ = back; // there is room: it has just been there
        }
    }

    /// The same for all threads.
    pub fn put_all_back(&self, stripe: usize) {
        let keys = self.keys().iter().enumerate();
        let known = keys.filter(|(_, key)| key.load(Acquire) != 0);
        known.for_each(|(index, _)| self.put_back(stripe, index));
    }

    /// Frees the key and the state of thread `index`, which has ended.
    pub fn forget_thread(&self, index: usize) {
        let (Some(outer), Some(key)) = (self.outer(index), self.keys().get(index)) else {
            return;
        };
        outer.store(0, Relaxed);
        if let Some([sp, _]) = self.pool(index) {
            sp.store(0, Relaxed);
        }
        let at = |field: usize| thread_at(index).map_or(u64::MAX, |thread| thread + field as u64);
        let unreturned = at(offset_of!(Thread, unreturned));
        self.write(unreturned, &[0; size_of::<Unreturned>()]);
        self.write(at(offset_of!(Thread, stack)), &[0; size_of::<Known>()]);
        key.store(0, Release);
    }

    /// Writes where no thread looks yet: to be published by a store to [`Shared::live`], or by
    /// the first probe. Nothing is written outside what comes before the ledger.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.map.write(offset, bytes);
    }

    /// The same for words, where threads may look meanwhile: a table's place, see
    /// [`Published`](crate::published::Published). `offset` is a multiple of 8.
    pub fn store(&self, offset: u64, words: &[u64]) {
        for (place, word) in self.map.words(offset, words.len()).iter().zip(words) {
            place.store(*word, Relaxed);
        }
    }

    /// The words of the table at `offset`, of which there are `len`: see [`Shared::store`]. How
    /// many there are is not read here, where the target may write.
    pub fn table(&self, offset: u64, len: usize) -> &[AtomicU64] {
        let first = offset.saturating_add(size_of::<u64>() as u64);
        self.map.words(first, len)
    }

    /// The same for rows.
    pub fn write_rows(&self, offset: u64, rows: &[Row]) {
        self.map.write_rows(offset, rows);
    }
}

/// Offset of the state of thread `index`, nothing if there is no such thread.
fn thread_at(index: usize) -> Option<u64> {
    let at = THREADS_AT + (index * size_of::<Thread>()) as u64;
    (index < KEYS_LEN).then_some(at)
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
