use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use leaktap_memory::{Addr, ReadMemory, Unreadable};
use nix::errno::Errno;
use thiserror::Error;

use crate::pieces::Batch;
use crate::{Area, Tid, procfs, sys};

/// So few bytes are read sooner through /proc/PID/mem than by process_vm_readv(2), which pins their
/// pages first.
const FEW: usize = 64;

/// Why bytes of the target could not be changed.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Not mapped, or forbidden.
    #[error("cannot write {len} bytes at {at} of process {process}")]
    Refused {
        /// The process.
        process: Tid,
        /// The first byte.
        at: Addr,
        /// How many bytes.
        len: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Other bytes stood there when they were read back.
    #[error("process {process} does not keep what is written at {at}")]
    NotKept {
        /// The process.
        process: Tid,
        /// The first byte.
        at: Addr,
    },
}

/// The memory of one process, readable and writable whatever its page protections say.
///
/// It is that of one address space: after an exec, open a new one. Clones share the descriptor.
/// The process need not be stopped, but must be traced by the calling thread, or be ours to trace.
#[derive(Clone, Debug)]
pub struct Memory {
    process: Tid,
    /// A thread of it that lived when this was opened.
    thread: Tid,
    /// /proc/PID/mem: also reads pages without `PROT_READ` and outlives the leader thread.
    file: Arc<File>,
    /// Its /proc/PID/maps, once it has been asked for.
    maps: Arc<OnceLock<Option<File>>>,
}

impl Memory {
    /// The memory of `process` as it is now. Its leader may have ended.
    ///
    /// # Errors
    /// From opening /proc/PID/mem (proc_pid_mem(5)).
    pub fn open(process: Tid) -> io::Result<Memory> {
        let thread = procfs::living_thread(process);
        let path = format!("/proc/{thread}/mem");
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Memory {
            process,
            thread,
            file: Arc::new(file),
            maps: Arc::default(),
        })
    }

    /// Its /proc/PID/mem: whoever has it may read and write, also when we are gone.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The process that it was opened for.
    pub fn process(&self) -> Tid {
        self.process
    }

    /// Reads from `at` as many bytes as are mapped in one piece, up to `buf.len()`, in one system
    /// call as long as they are readable pages. Returns how many; 0 if there are none at `at`.
    pub fn read_partial(&self, at: Addr, buf: &mut [u8]) -> usize {
        if buf.len() <= FEW {
            return self.file.read_at(buf, at.get()).unwrap_or(0);
        }
        match sys::read(self.thread.get(), at.get(), buf) {
            Ok(len) if len > 0 => len,
            // Protected pages, or a thread that has ended.
            _ => self.file.read_at(buf, at.get()).unwrap_or(0),
        }
    }

    /// Reads `len` bytes at each of `places`, one behind the other, in few system calls: up to the
    /// first that cannot be read.
    pub fn read_each(&self, places: &[Addr], len: usize) -> Vec<u8> {
        /// So much stays in the processor's cache, and costs no new pages.
        const AT_A_TIME: usize = 64 << 10;
        let mut all = Vec::with_capacity(places.len().saturating_mul(len));
        let mut bytes = vec![0; AT_A_TIME.max(len)];
        let mut rest = places;
        while !rest.is_empty() {
            let batch = Batch::of(rest, len, bytes.len());
            let read = sys::read_ranges(self.thread.get(), &batch.ranges, &mut bytes);
            let read = bytes.get(..read.unwrap_or(0)).unwrap_or_default();
            let pieces = batch.pieces.iter().map(|at| read.get(*at..*at + len));
            pieces
                .map_while(|piece| piece)
                .for_each(|piece| all.extend_from_slice(piece));
            let done = places.len() - rest.len() + batch.pieces.len();
            if all.len() < done * len {
                break;
            }
            rest = places.get(done..).unwrap_or_default();
        }
        all
    }

    /// The mapping at `at`, or the next one above, if there is one.
    ///
    /// # Errors
    /// `ENOTTY` before Linux 6.11; `ESRCH` of a process that has ended, and what open(2) says of
    /// /proc/PID/maps.
    pub fn area_from(&self, at: Addr) -> io::Result<Option<Area>> {
        let open = || File::open(format!("/proc/{}/maps", self.thread)).ok();
        let maps = self.maps.get_or_init(open).as_ref();
        let maps = maps.ok_or(io::ErrorKind::PermissionDenied)?;
        Ok(sys::area_from(maps, at.get())?)
    }

    /// Writes `bytes` at `at`, also to pages that the process itself may only read or execute (a
    /// private copy of them is made first), and reads them back.
    ///
    /// # Errors
    /// [`WriteError`]; some of the bytes may have been written then.
    pub fn write(&self, at: Addr, bytes: &[u8]) -> Result<(), WriteError> {
        self.put(at, bytes)?;
        let process = self.process;
        let mut found = vec![0; bytes.len()];
        match self.read(at, &mut found) {
            Ok(()) if found == bytes => Ok(()),
            _ => Err(WriteError::NotKept { process, at }),
        }
    }

    /// As [`Memory::write`], for what may be lost: it is not read back.
    ///
    /// # Errors
    /// [`WriteError::Refused`].
    pub fn put(&self, at: Addr, bytes: &[u8]) -> Result<(), WriteError> {
        let Err(source) = self.file.write_all_at(bytes, at.get()) else {
            return Ok(());
        };
        // Linux 6.12 can be told to refuse this file, but not ptrace(2) itself.
        self.poke(at, bytes).map_err(|_| WriteError::Refused {
            process: self.process,
            at,
            len: bytes.len(),
            source,
        })
    }

    /// Writes by `PTRACE_POKEDATA` through any thread that is stopped.
    fn poke(&self, at: Addr, bytes: &[u8]) -> Result<(), Errno> {
        let threads = procfs::threads(self.process).map_err(|_| Errno::ESRCH)?;
        let mut last = Errno::ESRCH;
        for thread in threads {
            match poke_through(thread, at, bytes) {
                Err(errno) => last = errno,
                Ok(()) => return Ok(()),
            }
        }
        Err(last)
    }
}

impl ReadMemory for Memory {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let from = at.checked_add(done as u64);
            match from.map(|from| self.read_partial(from, rest)) {
                Some(len) if len > 0 => done += len,
                _ => return Err(Unreadable { at, len: buf.len() }),
            }
        }
        Ok(())
    }
}

/// Whole words only; the ends are filled up with what is there.
fn poke_through(tid: Tid, at: Addr, bytes: &[u8]) -> Result<(), Errno> {
    let mut rest = bytes;
    let mut word_at = at.get() & !7;
    let mut skip = (at.get() & 7) as usize;
    while !rest.is_empty() {
        let mut word = sys::peek(tid.get(), word_at)?.to_le_bytes();
        let (now, later) = rest.split_at(rest.len().min(8 - skip));
        for (byte, new) in word.iter_mut().skip(skip).zip(now) {
            *byte = *new;
        }
        sys::poke(tid.get(), word_at, u64::from_le_bytes(word))?;
        (rest, skip) = (later, 0);
        word_at = word_at.checked_add(8).ok_or(Errno::EFAULT)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::{Options, Tracer};

    #[test]
    fn pokes_parts_of_words_and_leaves_their_neighbours() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Once it answers it is in memory: a thread that waits for its disk does not stop.
        let mut input = child.stdin.take().unwrap();
        let mut output = child.stdout.take().unwrap();
        input.write_all(b"x").unwrap();
        output.read_exact(&mut [0]).unwrap();
        let tid = Tid::new(child.id().cast_signed());
        let mut tracer = Tracer::new();
        let stopped = tracer
            .attach(tid, Options::follow())
            .unwrap()
            .stopped
            .remove(0);
        let memory = Memory::open(tid).unwrap();
        let word = Addr::new(stopped.registers().unwrap().sp().get() & !7);
        for (offset, len) in [(0, 8), (3, 2), (5, 3), (7, 1), (6, 11), (1, 31), (8, 0)] {
            memory.write(word, &[7; 40]).unwrap();
            let bytes: Vec<u8> = (100..100 + len).collect();
            memory.poke(word.wrapping_offset(offset), &bytes).unwrap();
            let mut expected = [7; 40];
            expected[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
            let mut found = [0; 40];
            memory.read(word, &mut found).unwrap();
            assert_eq!(found, expected, "{len} bytes at {offset}");
        }
        stopped.detach().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(memory.poke(word, &[0]).is_err());
    }
}
