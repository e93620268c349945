//! The system calls that make the agent's memory in a process, and unmake it.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;

use leaktap_agent::{HEADER_LEN, SHARED_LEN, Shared};
use leaktap_arch::system_calls::{CLOSE, MADVISE, MEMFD_CREATE, MMAP, MPROTECT, MUNLOCK, MUNMAP};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{CallError, Memory, RemoteCalls, Tid};

use super::{remains, reserved, unled};
use crate::refusal::Refusal;

// Arguments as in mmap(2), madvise(2), memfd_create(2).
const NONE: u64 = 0;
const READ: u64 = 1;
const WRITE: u64 = 2;
const EXEC: u64 = 4;
const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_NORESERVE: u64 = 0x4000;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
const DONTFORK: u64 = 10;
const DONTDUMP: u64 = 16;
/// Where shared memory is made of huge pages (shmem_enabled), each that is touched would be 2 MiB.
const NOHUGEPAGE: u64 = 15;
const WIPEONFORK: u64 = 18;
const MFD_CLOEXEC: u64 = 1;
const MFD_ALLOW_SEALING: u64 = 2;

/// The agent's memory in a process.
#[derive(Debug)]
pub(crate) struct Regions {
    /// Header page, code, stubs: one for each group of functions.
    pub(crate) codes: Vec<Range<Addr>>,
    /// What is shared.
    pub(crate) shared: Range<Addr>,
}

impl Regions {
    /// What has to be unmapped, the last one first: all code, then the rest.
    pub(crate) fn parts(&self) -> Vec<Range<Addr>> {
        let shared = std::iter::once(&self.shared).filter(|shared| !shared.is_empty());
        shared.chain(&self.codes).cloned().collect()
    }

    /// The code region that `at` is in.
    pub(crate) fn code_of(&self, at: Addr) -> Option<&Range<Addr>> {
        self.codes.iter().find(|code| code.contains(&at))
    }

    /// Whether `at` is in one of them.
    pub(crate) fn is_code(&self, at: Addr) -> bool {
        self.code_of(at).is_some()
    }
}

/// Makes the agent's memory, its code regions at `at`. What was made is unmade if something fails.
///
/// All of it begins as a reservation that has our name ([`reserved`]). Code takes its place when a
/// note says where it is: whenever we are killed, another leaktap knows what is ours.
pub(crate) fn map(
    calls: &mut RemoteCalls<'_>,
    tid: Tid,
    memory: &Memory,
    at: &[Addr],
    len: u64,
) -> Result<(Regions, Shared), Refusal> {
    let fd = create(calls, memory)?;
    let mut codes = Vec::new();
    let mut each = at.iter();
    let reserved = each.try_for_each(|at| reserve(calls, fd, *at, len, &mut codes));
    let shared = reserved.and_then(|()| share(calls, tid, fd, &codes));
    close(calls, fd);
    let (shared, own) = match shared {
        Ok(shared) => shared,
        Err(refusal) => {
            for code in &codes {
                let _ = unmap(calls, code); // killed, or stopped for long: it says so before
            }
            return Err(refusal);
        }
    };
    let regions = Regions { codes, shared };
    let mut codes = regions.codes.iter();
    let made = codes.try_for_each(|code| make_code(calls, code));
    match made.and_then(|()| open_up(calls, &regions.shared)) {
        Ok(()) => Ok((regions, own)),
        Err(refusal) => {
            unmake(calls, memory, &own, &regions);
            Err(refusal)
        }
    }
}

/// Takes away what has been made; nothing is led there.
fn unmake(calls: &mut RemoteCalls<'_>, memory: &Memory, own: &Shared, regions: &Regions) {
    let mut left = &regions.codes[..];
    while let [others @ .., code] = left {
        // As when it is withdrawn: the note names nothing that may be gone.
        unled::mark(memory, code.start);
        remains::note_first(own, regions.shared.start, others);
        let _ = unmap(calls, code); // as in `map`
        left = others;
    }
    let _ = unmap(calls, &regions.shared); // as in `map`
}

/// Makes the file that is shared. Its name is read from the thread's stack.
fn create(calls: &mut RemoteCalls<'_>, memory: &Memory) -> Result<u64, Refusal> {
    let name = reserved::name();
    let at = calls.scratch().map_err(|_| Refusal::InjectionForbidden)?;
    let mut before = vec![0; name.len()];
    let is_read = memory.read(at, &mut before).is_ok();
    if !is_read || memory.write(at, &name).is_err() {
        return Err(Refusal::InjectionForbidden); // no stack is there
    }
    let flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    let fd = calls.call(MEMFD_CREATE, [at.get(), flags, 0, 0, 0, 0]);
    let _ = memory.write(at, &before); // killed meanwhile
    fd.map_err(refused)
}

/// Reserves a code region at `at`. What there is to be unmade is among `made`, even if something
/// fails.
fn reserve(
    calls: &mut RemoteCalls<'_>,
    fd: u64,
    at: Addr,
    len: u64,
    made: &mut Vec<Range<Addr>>,
) -> Result<(), Refusal> {
    let flags = MAP_PRIVATE | MAP_FIXED_NOREPLACE;
    let mapped = calls.call(MMAP, [at.get(), len, NONE, flags, fd, 0]);
    let mapped = Addr::new(mapped.map_err(refused)?);
    made.push(mapped..mapped.wrapping_offset(len.cast_signed()));
    match mapped == at {
        true => Ok(()),
        false => Err(Refusal::NoMemoryInReach), // the kernel does not know the flag
    }
}

/// Makes a code region of what is reserved: its header page can be written to, and is wiped in a
/// forked child.
fn make_code(calls: &mut RemoteCalls<'_>, code: &Range<Addr>) -> Result<(), Refusal> {
    let page = code.start.get();
    let len = code.end.offset_from(code.start).unwrap_or(0);
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    let (text, rest) = (page + HEADER_LEN, len - HEADER_LEN);
    let text = [text, rest, READ | EXEC, flags, u64::MAX, 0];
    let header = [page, HEADER_LEN, READ | WRITE, flags, u64::MAX, 0];
    for mapping in [text, header] {
        calls.call(MMAP, mapping).map_err(refused)?;
    }
    unlock(calls, code)?;
    let wipe = [page, HEADER_LEN, WIPEONFORK, 0, 0, 0];
    calls.call(MADVISE, wipe).map(drop).map_err(refused)
}

/// Takes a region away.
pub(crate) fn unmap(calls: &mut RemoteCalls<'_>, range: &Range<Addr>) -> Result<(), Refusal> {
    let len = range.end.offset_from(range.start).unwrap_or(0);
    let unmapped = calls.call(MUNMAP, [range.start.get(), len, 0, 0, 0, 0]);
    unmapped.map(drop).map_err(refused)
}

/// With mlockall(2) in force (`MCL_FUTURE`), a mapping is locked from the start: all of it would be
/// filled with pages as soon as they may be touched.
fn unlock(calls: &mut RemoteCalls<'_>, range: &Range<Addr>) -> Result<(), Refusal> {
    let len = range.end.offset_from(range.start).unwrap_or(0);
    let unlocked = calls.call(MUNLOCK, [range.start.get(), len, 0, 0, 0, 0]);
    unlocked.map(drop).map_err(refused)
}

/// Closes a descriptor of the shared memory.
pub(crate) fn close(calls: &mut RemoteCalls<'_>, fd: u64) {
    let _ = calls.call(CLOSE, [fd, 0, 0, 0, 0, 0]); // killed, or stopped for long
}

/// Maps the file `fd`, and notes for another leaktap where it is as soon as it is there, with
/// `codes`.
fn share(
    calls: &mut RemoteCalls<'_>,
    tid: Tid,
    fd: u64,
    codes: &[Range<Addr>],
) -> Result<(Range<Addr>, Shared), Refusal> {
    let file = open(tid, fd).map_err(|error| own_limit(&error))?;
    let own = Shared::in_file(file).map_err(|error| own_limit(&error))?;
    let map = [0, SHARED_LEN, NONE, MAP_SHARED | MAP_NORESERVE, fd, 0];
    let at = calls.call(MMAP, map).map_err(refused)?;
    let range = Addr::new(at)..Addr::new(at.wrapping_add(SHARED_LEN));
    remains::note_first(&own, range.start, codes);
    Ok((range, own))
}

/// Lets the target read and write what it shares, which no page is in yet.
fn open_up(calls: &mut RemoteCalls<'_>, range: &Range<Addr>) -> Result<(), Refusal> {
    let at = range.start.get();
    // Refused by a kernel that has no such pages.
    let _ = calls.call(MADVISE, [at, SHARED_LEN, NOHUGEPAGE, 0, 0, 0]);
    for advice in [DONTFORK, DONTDUMP] {
        let advised = calls.call(MADVISE, [at, SHARED_LEN, advice, 0, 0, 0]);
        advised.map_err(refused)?;
    }
    // No page could be touched until now.
    unlock(calls, range)?;
    let rights = [at, SHARED_LEN, READ | WRITE, 0, 0, 0];
    calls.call(MPROTECT, rights).map(drop).map_err(refused)
}

/// A descriptor of the target's, opened again.
fn open(tid: Tid, fd: u64) -> io::Result<File> {
    let path = format!("/proc/{tid}/fd/{fd}");
    OpenOptions::new().read(true).write(true).open(path)
}

/// What kept leaktap itself from having the memory, too.
fn own_limit(error: &io::Error) -> Refusal {
    // ENFILE, EMFILE, EFBIG and ENOMEM of errno(3).
    match error.raw_os_error() {
        Some(23 | 24) => Refusal::TracerDescriptors,
        Some(27) => Refusal::TracerFileSize,
        Some(12) => Refusal::TracerAddresses,
        _ => Refusal::InjectionForbidden,
    }
}

fn refused(error: CallError) -> Refusal {
    match error {
        // EAGAIN, ENOMEM and EEXIST of errno(3).
        CallError::Failed { source, .. } => match source.raw_os_error() {
            Some(11) => Refusal::MemoryLocked,
            Some(12 | 17) => Refusal::NoMemoryInReach,
            _ => Refusal::InjectionForbidden,
        },
        CallError::Stuck { .. } => Refusal::ThreadAsleep,
        _ => Refusal::InjectionForbidden,
    }
}
