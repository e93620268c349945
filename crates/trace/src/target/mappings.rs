//! What is still mapped of what the target has mapped, and may be used: the kernel knows.

use leaktap_image::{Error, Perms, in_use, mappings};
use leaktap_report::{bytes, count};

use super::Target;

impl Target {
    /// Whether it has mappings of its own, as far as is known.
    pub(crate) fn has_mappings(&self) -> bool {
        self.books.regions.mapped().next().is_some()
    }

    /// The same, or it may have made the first since the agent's notes were read.
    pub(crate) fn may_have_mappings(&self) -> bool {
        self.has_mappings() || self.books.is_injected() && self.process.modules().may_map()
    }

    /// Brings the books of its mappings up to date, if it still has any: a program may protect and
    /// unmap them by system calls of its own, and uses again what it has given back without a call.
    pub(crate) fn look_at_mappings(&mut self) {
        self.process.read_mappings(&mut self.books);
        if self.exit.is_none() && self.has_mappings() {
            // Of one that is gone, what was seen of its calls has to do.
            self.books.are_regions_seen = self.see_mappings().is_ok_and(|()| self.has_memory());
        }
    }

    /// See [`Process::read_last_mappings`](leaktap_probe::Process::read_last_mappings).
    pub(super) fn read_last_mappings(&mut self) {
        let has_ended = self.exit.is_some();
        self.process.read_last_mappings(has_ended, &mut self.books);
    }

    fn see_mappings(&mut self) -> Result<(), Error> {
        let pid = self.tid().get();
        let mapped = mappings(pid)?;
        if mapped.is_empty() || !self.has_memory() {
            return Err(Error::NoMemory { pid });
        }
        let is_usable = |perms: Perms| perms.read || perms.write || perms.exec;
        let mapped = mapped.iter().map(|m| (m.start..m.end, is_usable(m.perms)));
        let regions = &mut self.books.regions;
        regions.see(mapped);
        let given_back = regions.given_back();
        if !given_back.is_empty() {
            for range in in_use(pid, &given_back)? {
                let len = range.end.offset_from(range.start).unwrap_or(0);
                regions.use_again(range.start, len);
            }
        }
        Ok(())
    }

    /// Whether it still has the memory that was traced.
    fn has_memory(&self) -> bool {
        !self.is_replaced && self.process.is_current()
    }

    /// What is mapped and is no memory in use; and whether nobody could look.
    pub(crate) fn mapping_notes(&self) -> Vec<String> {
        let books = &self.books;
        let sum = |of: fn(&leaktap_heap::Region) -> u64| {
            let sizes = books.regions.mapped().map(of).filter(|size| *size > 0);
            sizes.fold((0, 0_u64), |(n, sum), size| {
                (n + 1, sum.saturating_add(size))
            })
        };
        let mut notes = Vec::new();
        let mut note = |what: &str, (number, size): (u64, u64), is_not: &str| {
            if number > 0 {
                let mappings = count(number, "mapping");
                notes.push(format!("{what}: {mappings}, {}, {is_not}", bytes(size)));
            }
        };
        note("reserved addresses", sum(|r| r.reserved), "not memory");
        note("given back by madvise", sum(|r| r.given_back), "not in use");
        if !books.are_regions_seen && self.has_mappings() {
            notes.push(
                "the target ended before its mappings could be looked at: what it has done to them \
                 other than by calls of the C library is not known"
                    .to_owned(),
            );
        }
        notes
    }
}
