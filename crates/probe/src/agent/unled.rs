//! Code regions that a tracer was unmapping when it was killed: nothing leads there, and nothing is
//! noted of them any more.
//!
//! Each has a mark, in its header page, from before it leaves the note by which another tracer
//! takes out the agent.

use std::ops::Range;

use leaktap_agent::HEADER_LEN;
use leaktap_image::{Kind, Mapping};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::Memory;

use super::CODE_LEN;

/// No program has this by chance.
const MARK: [u8; 16] = *b"leaktap unfinish";

/// Marks the region at `code`.
pub(super) fn mark(memory: &Memory, code: Addr) {
    let _ = memory.write(place(code), &MARK); // it has gone
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
