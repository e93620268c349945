//! What the agent looks up in the shared memory: unwind rows, and tables of modules and of stacks.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use leaktap_agent::layout::{Module, Region};
use leaktap_agent::published::empty;
use leaktap_agent::{ROOM_AT, ROOM_LEN, Shared};
use leaktap_memory::Addr;
use leaktap_unwind::{Built, Table};

use super::stacks::Stacks;

/// Words of the first places of a table.
const FIRST_WORDS: usize = 1 << 10;

/// What has been put into the part of the shared memory that is for rows and tables. Nothing is
/// taken out: a thread may be reading it. But a table is written where an older one was, see
/// [`Published`](leaktap_agent::published::Published).
#[derive(Debug)]
pub(crate) struct Room {
    shared: Arc<Shared>,
    /// Where the shared memory is in the target.
    base: Addr,
    used: u64,
    rows: HashMap<*const Built, (Arc<Built>, u64)>,
    /// The modules published last, lowest first, and the rows of each.
    published: Vec<(Module, *const Built)>,
    modules: Places,
    stacks: Places,
}

/// The two places of a table: offsets in the shared memory, and how many words each has room for.
#[derive(Debug, Default)]
struct Places {
    /// To be written to next.
    next: u64,
    /// Led to.
    last: u64,
    /// Words of the entries there. The target may write whatever it likes where it looks this up.
    len: usize,
    words: usize,
}

impl Room {
    pub(crate) fn new(shared: Arc<Shared>, base: Addr) -> Room {
        Room {
            shared,
            base,
            used: 0,
            rows: HashMap::new(),
            published: Vec::new(),
            modules: Places::default(),
            stacks: Places::default(),
        }
    }

    /// Gives the agent all of `rules`. False if there is no room left for rows, or for so many
    /// modules: it then knows of modules without rows, or of none.
    pub(crate) fn publish(&mut self, rules: &mut Table) -> bool {
        let mut entries = Vec::with_capacity(self.modules.words);
        let mut complete = true;
        let before = std::mem::take(&mut self.published);
        let mut before = before.into_iter().peekable();
        self.published.reserve(before.len() + 1);
        for (range, base, built) in rules.modules() {
            let range = Region {
                start: range.start.get(),
                end: range.end.get(),
            };
            while before
                .next_if(|(known, _)| known.range.start < range.start)
                .is_some()
            {}
            let is_same = |(known, rows): &(Module, *const Built)| {
                let Region { start, end } = known.range;
                (start, end) == (range.start, range.end)
                    && (known.base, *rows) == (base.get(), Arc::as_ptr(built))
            };
            let known = before.next_if(is_same).map(|(known, _)| known);
            let module = known.unwrap_or_else(|| self.module(range, base, built));
            complete &= module.rows != self.base.get();
            entries.extend(module.words());
            self.published.push((module, Arc::as_ptr(built)));
        }
        match self.put_table(|room| &mut room.modules, &entries) {
            Some(at) => self.shared.live().publish_modules(at),
            None => complete = false,
        }
        complete
    }

    /// Takes note of the stacks that are no more, has `change` change `stacks`, and, if that says
    /// that it did, tells the agent of them.
    pub(crate) fn change_stacks(
        &mut self,
        stacks: &mut Stacks,
        change: impl FnOnce(&mut Stacks) -> bool,
    ) {
        let before = (self.stacks.last, self.stacks.len);
        let gone = self.empty_stacks(before);
        for start in &gone {
            stacks.forget(*start);
        }
        if !change(stacks) {
            return;
        }
        let bounds = |range: &Range<Addr>| [range.start.get(), range.end.get()];
        let entries: Vec<_> = stacks.ranges().iter().flat_map(bounds).collect();
        let Some(at) = self.put_table(|room| &mut room.stacks, &entries) else {
            return;
        };
        self.shared.live().stacks.prepare(at);
        // Since they were looked at, and not in the new table.
        let gone_since = self.empty_stacks(before).into_iter();
        for start in gone_since.filter(|start| !gone.contains(start)) {
            if let Some(range) = stacks.forget(start) {
                empty(
                    self.shared.table(self.stacks.last, self.stacks.len),
                    bounds(&range),
                );
            }
        }
        self.shared.live().publish_stacks(at);
    }

    /// Where stacks began that the agent has found to be no more, in the table at an offset, of so
    /// many words.
    fn empty_stacks(&self, (table, len): (u64, usize)) -> Vec<u64> {
        let entries = self.shared.table(table, len);
        let range = |entry: &[AtomicU64]| match entry {
            [start, end] => (start.load(Relaxed), end.load(Relaxed)),
            _ => (0, 1),
        };
        let ranges = entries.chunks_exact(2).map(range);
        ranges
            .filter(|(start, end)| start == end)
            .map(|(start, _)| start)
            .collect()
    }

    /// What the agent is told of the module at `range`.
    fn module(&mut self, range: Region, base: Addr, built: &Arc<Built>) -> Module {
        let rows = self.put_rows(built);
        Module {
            range,
            base: base.get(),
            rows: rows.unwrap_or(self.base.get()), // not null, though there are none
            len: rows.map_or(0, |_| built.rows.len() as u64),
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

    /// The address, in the target, of a table of `entries`; of none, if there is no room for as
    /// many, so that nobody goes by what is not true any more. Nothing if there is no place at all.
    fn put_table(
        &mut self,
        places: impl Fn(&mut Room) -> &mut Places,
        entries: &[u64],
    ) -> Option<u64> {
        let mut table = vec![entries.len() as u64];
        table.extend(entries);
        if table.len() > places(self).words {
            let words = table.len().next_power_of_two().max(FIRST_WORDS);
            let bytes = (words * size_of::<u64>()) as u64;
            match self.take(bytes).zip(self.take(bytes)) {
                Some((next, last)) => {
                    let len = 0;
                    *places(self) = Places {
                        next,
                        last,
                        len,
                        words,
                    };
                }
                None => table = vec![0],
            }
        }
        let places = places(self);
        if places.words == 0 {
            return None;
        }
        std::mem::swap(&mut places.next, &mut places.last);
        let at = places.last;
        places.len = table.len() - 1;
        self.shared.store(at, &table);
        Some(self.base.get() + at)
    }

    /// The offset in the shared memory of `len` bytes that nothing has been put in.
    fn take(&mut self, len: u64) -> Option<u64> {
        let end = self.used.checked_add(len.next_multiple_of(64))?;
        let offset = ROOM_AT + self.used;
        self.used = Some(end).filter(|end| *end <= ROOM_LEN)?;
        Some(offset)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    fn room() -> Room {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create("test", flags).expect("a file");
        let shared = Shared::in_file(file.into()).expect("memory");
        Room::new(Arc::new(shared), Addr::default())
    }

    #[test]
    fn a_table_that_changes_for_ever_uses_nothing_up() {
        let mut room = room();
        let mut put = |entries: usize| {
            let at = room.put_table(|room| &mut room.stacks, &vec![7; entries]);
            (at, room.used)
        };
        let (first, used) = put(FIRST_WORDS - 1);
        let second = put(0);
        assert!(second.0 != first && second.1 == used);
        assert_eq!((put(3), put(FIRST_WORDS - 1)), ((first, used), second));
        // More than there is a place for.
        let (larger, used) = put(FIRST_WORDS);
        assert!(larger > first.max(second.0));
        assert_eq!((put(1).1, put(1)), (used, (larger, used)));
    }

    #[test]
    fn what_there_is_no_room_for_is_not_known() {
        let mut room = room();
        let mut put = |used: u64, entries: usize| {
            room.used = used;
            room.put_table(|room| &mut room.modules, &vec![7; entries])
        };
        assert_eq!(put(ROOM_LEN, 1), None);
        let first = put(0, 5);
        let second = put(ROOM_LEN, FIRST_WORDS);
        assert!(first.is_some() && second.is_some() && first != second);
        assert_eq!((put(ROOM_LEN, 5), room.used), (first, ROOM_LEN));
    }

    /// What the agent finds to be no more is forgotten: before a change, or while it is made.
    #[test]
    fn stacks_that_are_no_more_are_forgotten() {
        let mut room = room();
        let mut stacks = Stacks::default();
        let range = |start: u64| Addr::new(start)..Addr::new(start + 0x1000);
        room.change_stacks(&mut stacks, |stacks| {
            for start in [0x2000, 0x4000, 0x6000] {
                stacks.insert(range(start));
            }
            true
        });
        let table = |room: &Room| (room.stacks.last, room.stacks.len);
        let ((at, len), shared) = (table(&room), Arc::clone(&room.shared));
        empty(shared.table(at, len), [0x2000, 0x3000]);
        room.change_stacks(&mut stacks, |stacks| {
            assert_eq!(stacks.ranges(), [range(0x4000), range(0x6000)]);
            // Another thread's, where the first was.
            stacks.insert(range(0x2000));
            empty(shared.table(at, len), [0x6000, 0x7000]);
            true
        });
        assert_eq!(stacks.ranges(), [range(0x2000), range(0x4000)]);
        let (at, len) = table(&room);
        let table = room.shared.table(at, len);
        let words: Vec<_> = table.iter().map(|word| word.load(Relaxed)).collect();
        assert_eq!(words, [0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x6000]);
        room.change_stacks(&mut stacks, |_| false);
        assert_eq!(stacks.ranges(), [range(0x2000), range(0x4000)]);
    }
}
