use std::collections::HashMap;

use leaktap_memory::Addr;
use procfs::{ProcError, process::Process};

use crate::Error;
use crate::thread::living_thread;

/// The part of the auxiliary vector (getauxval(3)) that says where the program is. Zero: absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Auxv {
    /// AT_PHDR: the main program's program headers.
    pub(crate) program_headers: Addr,
    /// AT_PHNUM.
    pub(crate) program_header_count: u64,
    /// AT_ENTRY: where the main program begins.
    pub(crate) entry: Addr,
    /// AT_BASE: where the program interpreter is loaded.
    pub(crate) interpreter: Addr,
    /// AT_RANDOM: on the first stack, and so nearly always elsewhere when a program is executed
    /// again.
    pub(crate) random: Addr,
}

/// AT_HWCAP2 of process `pid`: what the kernel allows it besides what cpuid says (asm/hwcap2.h).
///
/// # Errors
/// From /proc/PID/auxv: [`Error::NoProcess`], [`Error::Denied`], [`Error::Proc`].
pub fn hwcap2(pid: i32) -> Result<u64, Error> {
    Ok(entries(pid)?.get(&26).copied().unwrap_or(0))
}

fn entries(pid: i32) -> Result<HashMap<u64, u64>, Error> {
    let read = |thread: i32| Process::new(thread).and_then(|process| process.auxv());
    let through_another = || read(living_thread(pid).ok_or(ProcError::NotFound(None))?);
    let entries = match read(pid) {
        Ok(entries) if !entries.is_empty() => Ok(entries),
        other => through_another().or(other),
    };
    entries.map_err(|error| Error::proc(pid, "auxv", error))
}

impl Auxv {
    /// Reads `/proc/PID/auxv`. All zero for a process without memory.
    pub(crate) fn read(pid: i32) -> Result<Auxv, Error> {
        let auxv = entries(pid)?;
        let get = |key: u64| auxv.get(&key).copied().unwrap_or(0);
        Ok(Auxv {
            program_headers: Addr::new(get(3)),
            program_header_count: get(5),
            entry: Addr::new(get(9)),
            interpreter: Addr::new(get(7)),
            random: Addr::new(get(25)),
        })
    }
}
