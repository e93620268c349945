//! Code regions that a tracer was making, or unmapping, when it was killed: nothing leads there, and
//! nothing is noted of them yet, or any more.
//!
//! Each has a mark, in its header page, from the moment that it is there until the note is written
//! which another tracer takes out the agent by, and again from before it leaves that note.

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

/// The regions with a mark, among `mappings`, which are in order.
pub(super) fn marked(memory: &Memory, mappings: &[Mapping]) -> Vec<Range<Addr>> {
    let is_marked = |code: &Addr| {
        let mut found = [0; MARK.len()];
        memory.read(place(*code), &mut found).is_ok() && found == MARK
    };
    let begins = headers(mappings).filter(is_marked);
    let regions = begins.map(|start| start..start.wrapping_offset(CODE_LEN as i64));
    regions.collect()
}

/// Where headers may be. While the kernel has not been told that it is wiped in children, a header
/// is one mapping with what lies before it, if that has the same rights.
fn headers(mappings: &[Mapping]) -> impl Iterator<Item = Addr> {
    let is_private = |mapping: &&Mapping| mapping.kind == Kind::Anonymous && !mapping.perms.shared;
    let whole = mappings.iter().filter(is_private);
    let whole = whole.filter(|mapping| mapping.perms.exec).map(|m| m.start);
    let ended = mappings.windows(2).filter_map(move |pair| {
        let [before, code] = pair else { return None };
        let is_code = code.perms.exec && code.start == before.end;
        let may_be = is_code && before.perms.write && is_private(&before);
        may_be.then(|| before.end.wrapping_offset(-(HEADER_LEN as i64)))
    });
    whole.chain(ended)
}

/// Descriptors of shared memory in `process`, where a region is marked.
pub(super) fn descriptors(process: Tid) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{process}/fd"));
    let ours = entries.into_iter().flatten().flatten().filter_map(|entry| {
        let is_named = fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == FILE);
        // Whatever a program calls like that is not as long; ours has no length at first.
        let is_ours = is_named && [0, SHARED_LEN].contains(&fs::metadata(entry.path()).ok()?.len());
        entry.file_name().to_str()?.parse().ok().filter(|_| is_ours)
    });
    ours.collect()
}

fn place(code: Addr) -> Addr {
    code.wrapping_offset(HEADER_LEN as i64 - MARK.len() as i64)
}

#[cfg(test)]
mod tests {
    use super::headers;
    use leaktap_image::mappings_in;

    #[test]
    fn a_header_is_found_where_it_has_grown_together_with_what_lies_before() {
        let maps = "\
10000-20000 rwxp 00000000 00:00 0 \n\
30000-31000 rw-p 00000000 00:00 0 \n\
31000-40000 r-xp 00000000 00:00 0 \n\
50000-71000 rw-p 00000000 00:00 0 \n\
71000-80000 r-xp 00000000 00:00 0 \n\
90000-91000 rw-p 00000000 00:00 0 \n\
92000-93000 r-xp 00000000 00:00 0 \n";
        let mappings = mappings_in(maps.as_bytes()).unwrap();
        let found: Vec<_> = headers(&mappings).map(leaktap_memory::Addr::get).collect();
        assert!(
            [0x10000, 0x30000, 0x70000]
                .iter()
                .all(|at| found.contains(at)),
            "{found:x?}"
        );
        assert!(!found.contains(&0x90000), "{found:x?}");
    }
}
