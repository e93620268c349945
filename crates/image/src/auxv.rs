use leaktap_memory::Addr;
use procfs::process::Process;

use crate::Error;

/// The part of the auxiliary vector (getauxval(3)) that says where the program is. Zero: absent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Auxv {
    /// AT_PHDR: the main program's program headers.
    pub(crate) program_headers: Addr,
    /// AT_PHNUM.
    pub(crate) program_header_count: u64,
    /// AT_ENTRY: where the main program begins.
    pub(crate) entry: Addr,
    /// AT_BASE: where the program interpreter is loaded.
    pub(crate) interpreter: Addr,
}

impl Auxv {
    /// Reads `/proc/PID/auxv`. All zero for a process without memory.
    pub(crate) fn read(pid: i32) -> Result<Auxv, Error> {
        let auxv = Process::new(pid)
            .and_then(|process| process.auxv())
            .map_err(|error| Error::proc(pid, "auxv", error))?;
        let get = |key: u64| auxv.get(&key).copied().unwrap_or(0);
        Ok(Auxv {
            program_headers: Addr::new(get(3)),
            program_header_count: get(5),
            entry: Addr::new(get(9)),
            interpreter: Addr::new(get(7)),
        })
    }
}
