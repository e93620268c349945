//! The file that the agent's memory begins with, and what is reserved by it.
//!
//! A tracer may be killed after any of its system calls in a process. So whatever it makes there
//! has a name from the first moment, which nobody else gives to a file: this build's checksum is
//! part of it. Memory that is reserved has this name and no rights: nothing was ever written or led
//! there.

use std::fs;
use std::ops::Range;

use leaktap_agent::SHARED_LEN;
use leaktap_image::{Mapping, Perms};
use leaktap_memory::Addr;
use leaktap_tracee::Tid;

use super::CODE_LEN;

/// How the kernel shows names of such files of any build.
const ANY: &str = "/memfd:leaktap";

const NO_RIGHTS: Perms = Perms {
    read: false,
    write: false,
    exec: false,
    shared: false,
};

/// The file's name, as memfd_create(2) takes it.
pub(super) fn name() -> Vec<u8> {
    format!("leaktap-{:016x}\0", leaktap_agent::checksum()).into_bytes()
}

/// How the kernel shows it (proc_pid_maps(5)).
fn shown() -> String {
    format!("/memfd:leaktap-{:016x}", leaktap_agent::checksum())
}

/// Whether a mapping's file may be called so by any build.
pub fn is_named(mapping: &Mapping) -> bool {
    let path = mapping.path().and_then(|path| path.to_str());
    path.is_some_and(|path| path.starts_with(ANY))
}

fn is_reserved(mapping: &Mapping, shared: bool) -> bool {
    let path = mapping.path().and_then(|path| path.to_str());
    let perms = Perms {
        shared,
        ..NO_RIGHTS
    };
    mapping.perms == perms && mapping.offset == 0 && path == Some(&shown())
}

/// The code regions that are reserved among `all` mappings. Of each the header is the last to go.
pub(super) fn codes(all: &[Mapping]) -> impl Iterator<Item = Range<Addr>> + '_ {
    let reserved = all.iter().filter(|mapping| is_reserved(mapping, false));
    reserved.map(|mapping| mapping.start..mapping.start.wrapping_offset(CODE_LEN as i64))
}

/// What is reserved for shared memory.
pub(super) fn shared(all: &[Mapping]) -> Option<Range<Addr>> {
    let mut reserved = all.iter().filter(|mapping| is_reserved(mapping, true));
    let shared = reserved.find(|mapping| mapping.len() == SHARED_LEN)?;
    Some(shared.start..shared.end)
}

/// The descriptors of such files in `process`.
pub(super) fn descriptors(process: Tid) -> Vec<u64> {
    opened(process, |_| true)
}

/// Those of files with nothing in them: these need not be mapped anywhere. A leaktap that traces
/// another process has the file open, too, and it has a length by then.
pub(super) fn empty(process: Tid) -> Vec<u64> {
    opened(process, |len| len == 0)
}

fn opened(process: Tid, is_it: impl Fn(u64) -> bool) -> Vec<u64> {
    let shown = shown() + " (deleted)";
    let entries = fs::read_dir(format!("/proc/{process}/fd"));
    let ours = entries.into_iter().flatten().flatten().filter_map(|entry| {
        let is_named = fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == &*shown);
        let is_ours = is_named && is_it(fs::metadata(entry.path()).ok()?.len());
        entry.file_name().to_str()?.parse().ok().filter(|_| is_ours)
    });
    ours.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use leaktap_image::mappings_in;

    #[test]
    fn what_has_the_name_and_no_rights_is_reserved() {
        let (name, len) = (shown(), CODE_LEN);
        let shared_end = 0x1000_0000 + SHARED_LEN;
        let maps = format!(
            "\
10000-{:x} ---p 00000000 00:01 7 {name} (deleted)\n\
40000-41000 ---p 00000000 00:01 7 {name} (deleted)\n\
41000-50000 r-xp 00000000 00:00 0 \n\
60000-70000 ---p 00000000 00:01 7 /memfd:leaktap (deleted)\n\
80000-90000 rw-p 00000000 00:01 7 {name} (deleted)\n\
10000000-{shared_end:x} ---s 00000000 00:01 7 {name} (deleted)\n",
            0x10000 + len
        );
        let mappings = mappings_in(maps.as_bytes()).unwrap();
        let region = |start: u64| Addr::new(start)..Addr::new(start + len);
        let found: Vec<_> = codes(&mappings).collect();
        assert_eq!(found, [region(0x10000), region(0x40000)]);
        let found = shared(&mappings);
        assert_eq!(found, Some(Addr::new(0x1000_0000)..Addr::new(shared_end)));
    }
}
