//! Unwind rows in the shared memory.

use std::collections::HashMap;
use std::sync::Arc;

use leaktap_agent::layout::Module;
use leaktap_agent::{ROOM_AT, ROOM_LEN, Shared};
use leaktap_memory::Addr;
use leaktap_unwind::{Built, Table};

use super::stacks::Stacks;

/// What has been put into the part of the shared memory that is for rows and module tables. Nothing is
/// taken out: a thread may be reading it.
#[derive(Debug)]
pub(crate) struct Room {
    shared: Shared,
    /// Where the shared memory is in the target.
    base: Addr,
    used: u64,
    rows: HashMap<*const Built, (Arc<Built>, u64)>,
}

impl Room {
    pub(crate) fn new(shared: Shared, base: Addr) -> Room {
        Room {
            shared,
            base,
            used: 0,
            rows: HashMap::new(),
        }
    }

    /// Gives the agent all of `rules`. False if there is no room left: it goes on with those it has.
    pub(crate) fn publish(&mut self, rules: &mut Table) -> bool {
        let mut modules = Vec::new();
        for (range, base, built) in rules.modules() {
            let Some(rows) = self.put_rows(&built) else {
                return false;
            };
            let fields = [
                range.start.get(),
                range.end.get(),
                base.get(),
                rows,
                built.rows.len() as u64,
            ];
            modules.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        }
        let count = modules.len() / size_of::<Module>();
        let mut table = (count as u64).to_le_bytes().to_vec();
        table.extend(modules);
        let Some(at) = self.put(&table) else {
            return false;
        };
        self.shared.live().exchange_modules(at);
        true
    }

    /// Tells the agent where the stacks of threads are.
    pub(crate) fn publish_stacks(&mut self, stacks: &Stacks) {
        let mut table = (stacks.ranges().len() as u64).to_le_bytes().to_vec();
        for range in stacks.ranges() {
            table.extend(range.start.get().to_le_bytes());
            table.extend(range.end.get().to_le_bytes());
        }
        if let Some(at) = self.put(&table) {
            self.shared.live().exchange_stacks(at);
        }
    }

    /// The address, in the target, of the rows of `built`.
    fn put_rows(&mut self, built: &Arc<Built>) -> Option<u64> {
        if let Some((_, at)) = self.rows.get(&Arc::as_ptr(built)) {
            return Some(*at);
        }
        let offset = self.take(size_of_val(&built.rows[..]) as u64)?;
        self.shared.write_rows(offset, &built.rows);
        let at = self.base.get() + offset;
        let key = Arc::as_ptr(built);
        self.rows.insert(key, (Arc::clone(built), at));
        Some(at)
    }

    /// The address, in the target, of a copy of `bytes`.
    fn put(&mut self, bytes: &[u8]) -> Option<u64> {
        let offset = self.take(bytes.len() as u64)?;
        self.shared.write(offset, bytes);
        Some(self.base.get() + offset)
    }

    /// The offset in the shared memory of `len` bytes that nothing has been put in.
    fn take(&mut self, len: u64) -> Option<u64> {
        let end = self.used.checked_add(len.next_multiple_of(64))?;
        let offset = ROOM_AT + self.used;
        self.used = Some(end).filter(|end| *end <= ROOM_LEN)?;
        Some(offset)
    }
}
