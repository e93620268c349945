//! Which blocks can still be reached, when a program is about to end: nobody runs any more, so its
//! memory is that of one moment.

use std::ops::Range;

use leaktap_agent::layout::ALL_SEEN;
use leaktap_analysis::reach::{Blocks, Parts, Scan, grade};
use leaktap_analysis::threads::Guards;
use leaktap_analysis::{heaps, threads};
use leaktap_arch::Registers;
use leaktap_image::{Error, Kind, Mapping, mappings, touched};
use leaktap_memory::{Addr, PAGE, ReadMemory};
use leaktap_probe::is_agents;
use leaktap_tracee::Tid;

use super::Target;
use crate::books::Graded;
use crate::error::cause;

/// Below rsp, where a function that calls none keeps what it likes (psABI, 3.2.2).
const RED_ZONE: u64 = 128;

/// Bytes in which a heap segment's first chunk is looked for.
const LARGEST_TLS: u64 = 1 << 20;

/// Bytes, of a file's data or a stack, in which an arena or a descriptor is looked for.
const MOST_DATA: u64 = 16 << 20;

impl Target {
    /// Grades all blocks by what its memory holds, which nobody changes any more: it ends. Of the
    /// threads that have come to their ends these are the last one's registers, and what the others
    /// had in theirs.
    pub(crate) fn grade(&mut self, last: Tid, registers: &Registers, others: &[u64]) {
        if self.is_replaced {
            return;
        }
        let blocks = self.books.by_address();
        self.books.graded = match self.reach(&blocks, last, registers, others) {
            Ok(scan) => {
                let grades = grade(&blocks, &scan);
                Graded::Done { blocks, grades }
            }
            Err(error) => Graded::Failed(format!("{error}{}", cause(&error))),
        };
    }

    /// Whether somebody has tried to grade its blocks.
    pub(crate) fn is_graded(&self) -> bool {
        !matches!(self.books.graded, Graded::NotYet)
    }

    /// Why its blocks are not graded, if they were to be.
    pub(crate) fn ungraded(&self) -> Option<String> {
        let why = match &self.books.graded {
            Graded::Done { .. } => return None,
            Graded::Failed(why) => why,
            Graded::NotYet if self.exit.is_none() => "the program has not ended",
            Graded::NotYet => "the program was gone before its memory could be read",
        };
        self.how
            .grades
            .then(|| format!("not graded by reachability: {why}"))
    }

    fn reach(
        &self,
        blocks: &Blocks,
        last: Tid,
        registers: &Registers,
        others: &[u64],
    ) -> Result<Scan, Error> {
        let pid = self.tid().get();
        let mapped = mappings(pid)?;
        if mapped.is_empty() || !self.process.is_current() {
            return Err(Error::NoMemory { pid });
        }
        let memory = self.process.memory();
        let holds = |mapping: &Mapping, at: u64| mapping.contains(Addr::new(at));
        let mapping = |at: u64| {
            let next = mapped.partition_point(|mapping| mapping.end.get() <= at);
            mapped.get(next).filter(|mapping| holds(mapping, at))
        };
        let parts = Parts {
            is_code: |at| mapping(at).is_some_and(|of| of.perms.exec),
            is_constant: |at| {
                mapping(at)
                    .is_some_and(|of| of.perms.read && !of.perms.write && of.path().is_some())
            },
        };
        let mut scan = Scan::default();
        scan.root_words(blocks, registers.words());
        scan.root_words(blocks, others.iter().copied());
        let roots = Roots {
            mapped: &mapped,
            blocks,
            memory,
            regions: self.books.regions.memory().collect(),
            // A copy of another process has its blocks, and a lost one may lead anywhere.
            knows_heap: self.books.wants(ALL_SEEN) && self.books.lost() == 0,
            sp: registers.sp(),
            guards: guards(memory, last, registers),
        };
        for root in roots.touched(pid)? {
            scan.root(blocks, root, memory, &parts);
        }
        scan.blocks(blocks, &touched_pages(pid, blocks)?, memory, &parts);
        match scan.unread() {
            0 => Ok(scan),
            bytes => Err(Error::Unread { pid, bytes }),
        }
    }
}

/// What may lead to blocks: all that the program may write to, but for what is left of heaps beside
/// their blocks, for what allocators know of that, and for stacks of threads that have ended.
struct Roots<'a, M> {
    mapped: &'a [Mapping],
    blocks: &'a Blocks,
    memory: &'a M,
    /// What the program has mapped itself: it may be a part of the heap segment. By address.
    regions: Vec<Range<u64>>,
    /// All that is alive in heaps is known.
    knows_heap: bool,
    /// Of the thread that ends the program.
    sp: Addr,
    /// Of the process's threads, if their descriptors tell whether they have ended.
    guards: Option<Guards>,
}

impl<M: ReadMemory> Roots<'_, M> {
    /// What of them the program has touched, by address.
    fn touched(&self, pid: i32) -> Result<Vec<Range<u64>>, Error> {
        let next = self.mapped.iter().skip(1).map(Some).chain([None]);
        let pairs = self.mapped.iter().zip(next);
        let is_root = |mapping: &Mapping, next: Option<&Mapping>| {
            let is_memory = mapping.perms.read && !is_agents(mapping) && !is_device(mapping);
            is_memory && (mapping.perms.write || was_writable(mapping, next))
        };
        let roots = pairs.filter(|(mapping, next)| is_root(mapping, *next));
        let roots: Vec<_> = roots.map(|(mapping, _)| mapping).collect();
        let asked = roots.iter().map(|root| root.start.get()..root.end.get());
        let used = touched_in(pid, asked)?;
        let mut holes = self.ended(&used);
        holes.extend(roots.iter().filter_map(|root| arena(root, self.memory)));
        holes.extend(roots.iter().filter_map(|root| self.left(root)));
        holes.extend(roots.iter().flat_map(|root| self.heap(root)));
        holes.extend(
            self.blocks
                .outermost()
                .map(|(start, len)| start..start + len),
        );
        Ok(without(&used, &merged(holes)))
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
        let ended = behind_guards.filter_map(|(guard, stack)| {
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
            // Not one that the program has made itself, and may use for something else by now.
            let words = words(
                self.memory,
                &(descriptor..descriptor.checked_add(threads::LEN)?),
            )?;
            let begins = threads::stack(&words, descriptor)?;
            let has_guard = (guard.start.get()..low).contains(&begins);
            (has_ended && has_guard).then_some(low..descriptor)
        });
        ended.collect()
    }

    /// Where all that is alive is blocks.
    fn heap(&self, mapping: &Mapping) -> Vec<Range<u64>> {
        let (start, end) = (mapping.start.get(), mapping.end.get());
        let first = self.blocks.first_in(start..end);
        let first = first.filter(|_| self.knows_heap);
        let start = match (&mapping.kind, first) {
            (Kind::Heap, Some(first)) => self.first_chunk(start, first),
            (Kind::Anonymous, Some(_)) if self.is_heap(start) => start,
            _ => return Vec::new(),
        };
        without(std::slice::from_ref(&(start..end)), &self.regions)
    }

    /// Where the heap segment's chunks begin: in a static program, thread-local data comes first.
    fn first_chunk(&self, start: u64, first_block: u64) -> u64 {
        let words = words(self.memory, &(start..first_block.min(start + LARGEST_TLS)));
        let chunk = words.and_then(|words| heaps::first_chunk(&words, start));
        chunk.unwrap_or(first_block)
    }

    fn is_heap(&self, start: u64) -> bool {
        // Of others it is not even read.
        heaps::may_be_heap(start)
            && self
                .memory
                .read_u64(Addr::new(start))
                .is_ok_and(|first| heaps::is_heap(start, first))
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
    mapping.path().filter(|_| !mapping.perms.shared)?;
    let words = words(memory, &(mapping.start.get()..mapping.end.get()))?;
    heaps::arena(&words, mapping.start.get())
}

/// `ranges` by address, those that overlap as one.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => merged.push(range),
        }
    }
    merged
}

/// `ranges` without `holes`; both are sorted, and do not overlap.
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

/// What of blocks was touched, in whole pages, by address. To read the rest would make it, or wait
/// for whoever fills it: of a terabyte that was asked for a page may be in use.
fn touched_pages(pid: i32, blocks: &Blocks) -> Result<Vec<Range<u64>>, Error> {
    let pages = |(start, len): (u64, u64)| {
        start & !(PAGE - 1)
            ..(start + len)
                .checked_next_multiple_of(PAGE)
                .unwrap_or(start + len)
    };
    touched_in(pid, merged(blocks.outermost().map(pages).collect()))
}

/// What of `ranges`, by address, was touched.
fn touched_in(
    pid: i32,
    ranges: impl IntoIterator<Item = Range<u64>>,
) -> Result<Vec<Range<u64>>, Error> {
    let ranges = ranges.into_iter();
    let asked = ranges.map(|range| Addr::new(range.start)..Addr::new(range.end));
    let touched = touched(pid, &asked.collect::<Vec<_>>())?;
    let touched = touched
        .iter()
        .map(|range| range.start.get()..range.end.get());
    Ok(touched.collect())
}

/// Whether a program may have written to what it cannot write to any more: its own memory, or what
/// of a file's data the linker closes (RELRO), which lies before the rest of that.
fn was_writable(mapping: &Mapping, next: Option<&Mapping>) -> bool {
    let is_before_data = |next: &Mapping| {
        next.perms.write && next.start == mapping.end && next.path() == mapping.path()
    };
    let is_own = !mapping.perms.shared && !mapping.perms.exec;
    match mapping.kind {
        Kind::Anonymous => is_own,
        Kind::File { .. } => is_own && next.is_some_and(is_before_data),
        _ => false,
    }
}

/// Whether it is a device's memory, which may not even be readable.
fn is_device(mapping: &Mapping) -> bool {
    let devices = ["/dev/", "anon_inode:", "/dmabuf:", "/i915", "/drm "];
    // Shared memory without a file has the first of these.
    let memory = ["/dev/zero", "/dev/shm/", "/dev/hugepages/"];
    let path = mapping.path().and_then(|path| path.to_str());
    let begins = |with: &[&str]| {
        with.iter()
            .any(|with| path.is_some_and(|path| path.starts_with(with)))
    };
    begins(&devices) && !begins(&memory)
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
            let found = without(&all(&ranges), &merged(all(holes)));
            assert_eq!(found, all(left), "{holes:?}");
        }
    }
}
