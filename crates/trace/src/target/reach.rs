//! Which blocks can still be reached, when a program is about to end: nobody runs any more, so its
//! memory is that of one moment.

use std::ops::Range;

use leaktap_analysis::reach::{Blocks, Scan, grade};
use leaktap_analysis::threads::Guards;
use leaktap_analysis::{heaps, threads};
use leaktap_arch::Registers;
use leaktap_image::{Error, Kind, Mapping, in_use, mappings};
use leaktap_memory::{Addr, PAGE, ReadMemory, Unreadable};
use leaktap_probe::is_agents;
use leaktap_tracee::{Memory, Tid};

use super::Target;
use crate::books::Grades;
use crate::error::cause;

/// Below rsp, where a function that calls none keeps what it likes (psABI, 3.2.2).
const RED_ZONE: u64 = 128;

/// Of blocks of so many bytes it is asked which of their pages are in use: others are in few.
const LARGE: u64 = 1 << 20;

/// Bytes, of a file's data or a stack, in which an arena or a descriptor is looked for.
const MOST_DATA: u64 = 16 << 20;

impl Target {
    /// Grades all blocks by what its memory holds, which nobody changes any more: it ends, by
    /// `last`, a thread that has these registers.
    pub(crate) fn grade(&mut self, last: Tid, registers: &Registers) {
        if self.books.grades.is_some() || self.is_replaced {
            return;
        }
        let blocks = self.books.by_address();
        match self.reach(&blocks, last, registers) {
            Ok(scan) => {
                let grades = grade(&blocks, &scan);
                self.books.grades = Some(Grades { blocks, grades });
            }
            Err(error) => {
                let why = cause(&error);
                self.notes
                    .push(format!("not graded by reachability: {error}{why}"));
            }
        }
    }

    /// Why its blocks are not graded, of a program that has ended and was to be.
    pub(crate) fn ungraded(&self) -> Option<String> {
        let is_missing = self.how.grades && self.exit.is_some() && self.books.grades.is_none();
        let why = "the program was gone before its memory could be read";
        is_missing.then(|| format!("not graded by reachability: {why}"))
    }

    fn reach(&self, blocks: &Blocks, last: Tid, registers: &Registers) -> Result<Scan, Error> {
        let pid = self.tid().get();
        let mapped = mappings(pid)?;
        if mapped.is_empty() || !self.process.is_current() {
            return Err(Error::NoMemory { pid });
        }
        let memory = Sparse {
            memory: self.process.memory(),
            absent: absent(pid, blocks)?,
        };
        let code: Vec<_> = mapped.iter().filter(|m| m.perms.exec).collect();
        let is_code = |at: u64| {
            let at = Addr::new(at);
            let next = code.partition_point(|mapping| mapping.end <= at);
            code.get(next).is_some_and(|mapping| mapping.contains(at))
        };
        let mut scan = Scan::default();
        scan.root_words(blocks, registers.words());
        let roots = Roots {
            mapped: &mapped,
            blocks,
            memory: &memory,
            sp: registers.sp(),
            guards: guards(&memory, last, registers),
        };
        for root in roots.in_use(pid)? {
            let range = (root.start, root.end - root.start);
            scan.root(blocks, range, &memory, &is_code);
        }
        scan.blocks(blocks, &memory, &is_code);
        Ok(scan)
    }
}

/// What may lead to blocks: all that the program may write to, but for what is left of heaps beside
/// their blocks, for what allocators know of that, and for stacks of threads that have ended.
struct Roots<'a, M> {
    mapped: &'a [Mapping],
    blocks: &'a Blocks,
    memory: &'a M,
    /// Of the thread that ends the program.
    sp: Addr,
    /// Of the process's threads, if their descriptors tell whether they have ended.
    guards: Option<Guards>,
}

impl<M: ReadMemory> Roots<'_, M> {
    /// What of them is in use, by address.
    fn in_use(&self, pid: i32) -> Result<Vec<Range<u64>>, Error> {
        let is_root = |mapping: &&Mapping| {
            let is_memory = mapping.perms.read && mapping.perms.write && !is_agents(mapping);
            is_memory && !self.is_heap(mapping)
        };
        let roots: Vec<_> = self.mapped.iter().filter(is_root).collect();
        let asked: Vec<_> = roots
            .iter()
            .map(|root| (root.start..root.end, false))
            .collect();
        let used = in_use(pid, &asked)?;
        let used = used.iter().map(|used| used.start.get()..used.end.get());
        let used: Vec<_> = used.collect();
        let mut holes = self.ended(&used);
        holes.extend(roots.iter().filter_map(|root| arena(root, self.memory)));
        holes.extend(roots.iter().filter_map(|root| self.left(root)));
        holes.sort_by_key(|hole| hole.start);
        Ok(without(&used, &holes))
    }

    /// What lies below the stack pointer, in the first thread's stack.
    fn left(&self, mapping: &Mapping) -> Option<Range<u64>> {
        let is_it = mapping.kind == Kind::Stack && mapping.contains(self.sp);
        let end = self.sp.get().saturating_sub(RED_ZONE);
        is_it.then(|| mapping.start.get()..end.max(mapping.start.get()))
    }

    /// Stacks of threads that have ended, without their descriptors: glibc keeps them for the next
    /// ones, and what they hold is nobody's.
    fn ended(&self, used: &[Range<u64>]) -> Vec<Range<u64>> {
        let Some(guards) = self.guards else {
            return Vec::new();
        };
        let pairs = self.mapped.iter().zip(self.mapped.iter().skip(1));
        let behind_guards = pairs.filter(|(below, above)| {
            let is_guard = !below.perms.read && !below.perms.write;
            is_guard && below.end == above.start && above.kind == Kind::Anonymous
        });
        let ended = behind_guards.filter_map(|(_, stack)| {
            let (low, high) = (stack.start.get(), stack.end.get());
            let first = used.partition_point(|used| used.start < low);
            let pieces = used.iter().skip(first).take_while(|used| used.start < high);
            let mut descriptors = pieces.filter_map(|used| {
                let words = words(self.memory, used)?;
                threads::descriptor(&words, used.start, guards)
            });
            // Of several stacks without guards between them the lowest.
            let descriptor = descriptors.next()?;
            let has_ended = number(self.memory, descriptor).is_some_and(|number| number <= 0);
            has_ended.then_some(low..descriptor)
        });
        ended.collect()
    }

    /// Whether all that is alive in it is blocks.
    fn is_heap(&self, mapping: &Mapping) -> bool {
        let (start, end) = (mapping.start.get(), mapping.end.get());
        match mapping.kind {
            Kind::Heap => self.blocks.any_in(start..end),
            Kind::Anonymous => {
                let first = self.memory.read_u64(mapping.start).unwrap_or(0);
                heaps::is_heap(start, first) && self.blocks.any_in(start..end)
            }
            _ => false,
        }
    }
}

/// What a thread is protected with; nothing unless its descriptor has its number where it is
/// expected.
fn guards(memory: &impl ReadMemory, thread: Tid, registers: &Registers) -> Option<Guards> {
    let descriptor = registers.fs_base();
    let is_it = number(memory, descriptor) == Some(thread.get());
    let at = descriptor.checked_add(threads::GUARDS_AT)?;
    let guards = words(memory, &(at..at.checked_add(16)?))?;
    Guards::try_from(guards).ok().filter(|_| is_it)
}

/// What the descriptor of a thread says is its number.
fn number(memory: &impl ReadMemory, descriptor: u64) -> Option<i32> {
    let at = Addr::new(descriptor.checked_add(threads::NUMBER_AT)?);
    memory.read_u64(at).ok().map(|word| word as i32)
}

/// The words in `range`, if all can be read, and are not too many.
fn words(memory: &impl ReadMemory, range: &Range<u64>) -> Option<Vec<u64>> {
    let len = range.end.checked_sub(range.start);
    let len = len.filter(|len| *len <= MOST_DATA)?;
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    memory.read(Addr::new(range.start), &mut bytes).ok()?;
    let (words, _) = bytes.as_chunks();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    Some(words.collect())
}

/// The arena in a file's data.
fn arena(mapping: &Mapping, memory: &impl ReadMemory) -> Option<Range<u64>> {
    mapping.path()?;
    let words = words(memory, &(mapping.start.get()..mapping.end.get()))?;
    heaps::arena(&words, mapping.start.get())
}

/// `ranges` without `holes`; both are sorted.
fn without(ranges: &[Range<u64>], holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    for range in ranges {
        let mut from = range.start;
        let first = holes.partition_point(|hole| hole.end <= range.start);
        let within = holes.iter().skip(first);
        for hole in within.take_while(|hole| hole.start < range.end) {
            left.push(from..hole.start.max(from));
            from = from.max(hole.end);
        }
        left.push(from..range.end.max(from));
    }
    left.retain(|range| range.start < range.end);
    left
}

/// Pages of large blocks that were never touched. To read them would make them: of a terabyte that
/// was asked for a page may be in use.
fn absent(pid: i32, blocks: &Blocks) -> Result<Vec<Range<u64>>, Error> {
    let pages = |(start, len): (u64, u64)| {
        start.next_multiple_of(PAGE)..start.saturating_add(len) & !(PAGE - 1)
    };
    let large = blocks.ranges().filter(|(_, len)| *len >= LARGE).map(pages);
    let large: Vec<_> = large.filter(|range| range.start < range.end).collect();
    let asked = large.iter().map(|range| {
        let range = Addr::new(range.start)..Addr::new(range.end);
        (range, false)
    });
    let asked: Vec<_> = asked.collect();
    let used = match asked.is_empty() {
        true => Vec::new(),
        false => in_use(pid, &asked)?,
    };
    let used: Vec<_> = used
        .iter()
        .map(|used| used.start.get()..used.end.get())
        .collect();
    Ok(without(&large, &used))
}

/// Memory of which some is known to be zero.
struct Sparse<'m> {
    memory: &'m Memory,
    /// Sorted, without overlaps.
    absent: Vec<Range<u64>>,
}

impl ReadMemory for Sparse<'_> {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        let (start, end) = (at.get(), at.get().saturating_add(buf.len() as u64));
        let next = self.absent.partition_point(|absent| absent.end <= start);
        let holes = self.absent.get(next..).unwrap_or_default();
        if holes.first().is_none_or(|hole| hole.start >= end) {
            return self.memory.read(at, buf);
        }
        buf.fill(0);
        for present in without(std::slice::from_ref(&(start..end)), holes) {
            let range = (present.start - start) as usize..(present.end - start) as usize;
            let piece = buf.get_mut(range).unwrap_or_default();
            self.memory.read(Addr::new(present.start), piece)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_taken_out_of_ranges() {
        let ranges = [(0, 10), (20, 30), (40, 50)];
        type Pairs<'p> = &'p [(u64, u64)];
        let cases: [(Pairs<'_>, Pairs<'_>); 5] = [
            (&[], &ranges),
            (&[(5, 25)], &[(0, 5), (25, 30), (40, 50)]),
            (
                &[(0, 10), (22, 24), (26, 26), (28, 60)],
                &[(20, 22), (24, 26), (26, 28)],
            ),
            (
                &[(21, 22), (21, 25)],
                &[(0, 10), (20, 21), (25, 30), (40, 50)],
            ),
            (&[(0, 100)], &[]),
        ];
        let all = |pairs: Pairs<'_>| -> Vec<Range<u64>> {
            pairs.iter().map(|&(start, end)| start..end).collect()
        };
        for (holes, left) in cases {
            let found = without(&all(&ranges), &all(holes));
            assert_eq!(found, all(left), "{holes:?}");
        }
    }
}
