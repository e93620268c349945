//! Where the stacks of threads are: what the agent may read without asking the kernel.

use std::ops::Range;

use leaktap_image::{Kind, Mapping};
use leaktap_memory::{Addr, PAGE};
use leaktap_tracee::Registers;

/// Linux maps nothing so near below the main thread's stack (`mmap_base` in arch/x86/mm/mmap.c):
/// whatever of it is used is part of the stack.
const BELOW_MAIN_STACK: u64 = 128 << 20;

/// Stacks of threads, lowest first; no two have bytes in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stacks(Vec<Range<Addr>>);

impl Stacks {
    /// What is known.
    pub(crate) fn ranges(&self) -> &[Range<Addr>] {
        &self.0
    }

    /// Whether `sp` is on a stack that is known.
    pub(crate) fn contains(&self, sp: Addr) -> bool {
        let after = self.0.partition_point(|range| range.start <= sp);
        let before = after.checked_sub(1).and_then(|index| self.0.get(index));
        before.is_some_and(|range| sp < range.end)
    }

    /// Adds the one that the thread of `registers` is on, one of `mappings`, lowest first, if it is
    /// the thread's own: the first thread's, or one behind which are the thread's own data (so
    /// glibc and musl have it), where it ends. A coroutine's is not, nor what the kernel has made
    /// one mapping of with a stack.
    pub(crate) fn add(&mut self, registers: &Registers, mappings: &[Mapping]) {
        self.add_at(registers.sp(), Addr::new(registers.fs_base()), mappings);
    }

    fn add_at(&mut self, sp: Addr, fs: Addr, mappings: &[Mapping]) {
        let after = mappings.partition_point(|mapping| mapping.start <= sp);
        let before = after.checked_sub(1).and_then(|index| mappings.get(index));
        let Some(mapping) = before.filter(|mapping| mapping.contains(sp)) else {
            return;
        };
        if self.contains(sp) || !mapping.perms.read {
            return;
        }
        if mapping.kind == Kind::Stack {
            let start = mapping.end.get().saturating_sub(BELOW_MAIN_STACK);
            self.insert(Addr::new(start)..mapping.end);
        } else if sp < fs && mapping.contains(fs) {
            self.insert(mapping.start..Addr::new(fs.get().next_multiple_of(PAGE)));
        }
    }

    /// Adds one, in the place of those that have bytes in common with it.
    pub(crate) fn insert(&mut self, range: Range<Addr>) {
        self.remove(&range);
        let index = self.0.partition_point(|known| known.start < range.start);
        self.0.insert(index, range);
    }

    /// Forgets the one that begins at `start`, and returns it.
    pub(crate) fn forget(&mut self, start: u64) -> Option<Range<Addr>> {
        let index = self.0.iter().position(|range| range.start.get() == start)?;
        Some(self.0.remove(index))
    }

    /// Forgets those that have bytes in common with `range`. Returns whether there were any.
    pub(crate) fn remove(&mut self, range: &Range<Addr>) -> bool {
        let first = self.0.partition_point(|known| known.end <= range.start);
        let after = self.0.partition_point(|known| known.start < range.end);
        let has_any = first < after;
        if has_any {
            self.0.drain(first..after);
        }
        has_any
    }
}

#[cfg(test)]
mod tests {
    use leaktap_image::Perms;

    use super::*;

    #[test]
    fn a_stack_is_the_mapping_that_a_stack_pointer_is_in() {
        let perms = Perms {
            read: true,
            write: true,
            exec: false,
            shared: false,
        };
        let mapping = |start, end, kind| Mapping {
            start: Addr::new(start),
            end: Addr::new(end),
            perms,
            offset: 0,
            dev: (0, 0),
            inode: 0,
            kind,
        };
        let main = 0x7ffd_0000_0000;
        let all = [
            mapping(0x1000, 0x7000, Kind::Anonymous),
            mapping(0x8000, 0x9000, Kind::Anonymous),
            mapping(0xa000, 0xb000, Kind::Anonymous),
            mapping(main, main + 0x2000, Kind::Stack),
        ];
        let mut stacks = Stacks::default();
        let mut add = |sp, fs| stacks.add_at(Addr::new(sp), Addr::new(fs), &all);
        add(main + 8, 0x7000);
        add(0x2000, 0x4010);
        add(0x2008, 0);
        add(0x7000, 0);
        // Its data are below it, or in another mapping: a coroutine's, perhaps.
        add(0x8800, 0x8010);
        add(0xa800, main);
        assert_eq!(stacks.ranges().len(), 2);
        assert!(stacks.contains(Addr::new(main - 0x10_0000)));
        assert!(!stacks.contains(Addr::new(0x5000)));
        assert!(!stacks.remove(&(Addr::new(0x5000)..Addr::new(0x6000))));
        assert!(stacks.remove(&(Addr::new(0x4fff)..Addr::new(0x6000))));
        assert_eq!(stacks.ranges().len(), 1);
    }
}
