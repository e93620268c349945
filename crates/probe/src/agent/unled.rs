//! Code regions that a tracer was making when it was killed: nothing leads there, and nothing is
//! noted of them yet.
//!
//! Each has a mark from the moment that it is there, in its header page, until the note is written
//! which another tracer takes out the agent by.

use std::fs;
use std::ops::Range;

use leaktap_agent::{HEADER_LEN, SHARED_LEN};
use leaktap_image::{Kind, Mapping};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{Memory, Tid};

use super::CODE_LEN;

/// No program has this by chance.
const MARK: [u8; 16] = *b"leaktap unfinish";

/// What a descriptor of the shared memory leads to, in /proc/PID/fd.
const FILE: &str = "/memfd:leaktap (deleted)";

/// Marks the region at `code`; false if that is gone already.
pub(super) fn mark(memory: &Memory, code: Addr) -> bool {
    memory.write(place(code), &MARK).is_ok()
}

/// Takes the mark away: the region is noted elsewhere.
pub(super) fn unmark(memory: &Memory, code: Addr) {
    let _ = memory.write(place(code), &[0; MARK.len()]); // the memory has gone
}

/// The regions with a mark, among `mappings`.
pub(super) fn marked(memory: &Memory, mappings: &[Mapping]) -> Vec<Range<Addr>> {
    let is_marked = |mapping: &&Mapping| {
        let mut found = [0; MARK.len()];
        let is_header = mapping.perms.write && mapping.len() == HEADER_LEN;
        mapping.kind == Kind::Anonymous
            && !mapping.perms.shared
            && (is_header || mapping.perms.exec)
            && memory.read(place(mapping.start), &mut found).is_ok()
            && found == MARK
    };
    let marked = mappings.iter().filter(is_marked);
    let regions = marked.map(|first| first.start..first.start.wrapping_offset(CODE_LEN as i64));
    regions.collect()
}

/// Descriptors of shared memory in `process`, where a region is marked.
pub(super) fn descriptors(process: Tid) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{process}/fd"));
    let ours = entries.into_iter().flatten().flatten().filter_map(|entry| {
        let is_named = fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == FILE);
        // Whatever a program calls like that is not as long.
        let is_ours = is_named && fs::metadata(entry.path()).ok()?.len() == SHARED_LEN;
        entry.file_name().to_str()?.parse().ok().filter(|_| is_ours)
    });
    ours.collect()
}

fn place(code: Addr) -> Addr {
    code.wrapping_offset(HEADER_LEN as i64 - MARK.len() as i64)
}
