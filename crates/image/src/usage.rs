//! Which pages of a process are in use.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use leaktap_memory::{Addr, PAGE};
use procfs::process::Process;

use crate::Error;
use crate::maps::contents;
use crate::thread::living_thread;

const WORD: usize = size_of::<u64>();

/// Words of a pagemap that are read at once: they tell of 256 MiB.
const PIECE: u64 = 1 << 16;

/// Of a word of a pagemap: the page is in memory, or swapped out.
const IN_USE: u64 = 3 << 62;

/// One mapping, of which a report of pages tells more than maps does: proc_pid_smaps(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Area {
    start: u64,
    end: u64,
    shared: bool,
    /// Bytes that are in memory or swapped out.
    filled: u64,
    /// Bytes of these that nobody has written to since they were given back lazily (`MADV_FREE` of
    /// madvise(2)): other memory without a file is never clean. `LazyFree` tells of them late.
    clean: u64,
}

/// What of `ranges`, which are in the order of their addresses, process `pid` uses: pages that are
/// in memory, or swapped out. Those of a range with `true` may also be free for the kernel to take:
/// it tells how many of a mapping are, and not which. The ones with the highest addresses are taken
/// for them. What is shared with others is in use.
///
/// # Errors
/// As [`mappings`](crate::mappings).
pub fn in_use(pid: i32, ranges: &[(Range<Addr>, bool)]) -> Result<Vec<Range<Addr>>, Error> {
    let areas = areas(&contents(pid, "smaps")?);
    let failed = |error: io::Error| Error::proc(pid, "pagemap", error.into());
    let pagemap = pagemap(pid)?;
    let mut used = Vec::new();
    for area in areas.iter().filter(|area| area.shared || area.filled > 0) {
        let (mut filled, mut lazy) = (Vec::new(), Vec::new());
        let first = ranges.partition_point(|(range, _)| range.end.get() <= area.start);
        let rest = ranges.iter().skip(first);
        for (range, is_lazy) in rest.take_while(|(range, _)| range.start.get() < area.end) {
            let start = range.start.get().max(area.start);
            let end = range.end.get().min(area.end);
            match (area.shared, is_lazy) {
                (true, _) => filled.push(start..end),
                (_, false) => fill(&pagemap, start..end, &mut filled).map_err(failed)?,
                (_, true) => fill(&pagemap, start..end, &mut lazy).map_err(failed)?,
            }
        }
        used.extend(filled);
        used.extend(without_last(lazy, area.clean));
    }
    let range = |range: Range<u64>| Addr::new(range.start)..Addr::new(range.end);
    Ok(used.into_iter().map(range).collect())
}

/// What of `ranges` process `pid` has touched, in their order: pages that are in memory by its own
/// page tables, or swapped out. To read others would make them, also where they are shared.
///
/// # Errors
/// As [`mappings`](crate::mappings).
pub fn touched(pid: i32, ranges: &[Range<Addr>]) -> Result<Vec<Range<Addr>>, Error> {
    let pagemap = pagemap(pid)?;
    let mut touched = Vec::new();
    for range in ranges {
        let mut filled = Vec::new();
        fill(&pagemap, range.start.get()..range.end.get(), &mut filled)
            .map_err(|error| Error::proc(pid, "pagemap", error.into()))?;
        let filled = filled.into_iter();
        touched.extend(filled.map(|range| Addr::new(range.start)..Addr::new(range.end)));
    }
    Ok(touched)
}

fn pagemap(pid: i32) -> Result<File, Error> {
    let thread = living_thread(pid).unwrap_or(pid);
    let pagemap = Process::new(thread).and_then(|process| process.open_relative("pagemap"));
    pagemap.map_err(|error| Error::proc(pid, "pagemap", error))
}

/// The areas that the text of smaps lists. What cannot be understood is none.
fn areas(text: &[u8]) -> Vec<Area> {
    let mut areas: Vec<Area> = Vec::new();
    for line in String::from_utf8_lossy(text).lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(first), Some(second)) = (words.next(), words.next()) else {
            continue;
        };
        let bytes = || second.parse::<u64>().unwrap_or(0).saturating_mul(1024);
        match (first, areas.last_mut()) {
            ("Rss:" | "Swap:", Some(area)) => area.filled = area.filled.saturating_add(bytes()),
            ("Private_Clean:" | "Shared_Clean:", Some(area)) => {
                area.clean = area.clean.saturating_add(bytes());
            }
            _ => areas.extend(area(first, second)),
        }
    }
    areas
}

/// The area of a line that begins with its range and its permissions.
fn area(range: &str, permissions: &str) -> Option<Area> {
    let (start, end) = range.split_once('-')?;
    Some(Area {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        shared: permissions.ends_with('s'),
        ..Area::default()
    })
}

/// Adds the pages of `range` that are in use, as ranges.
fn fill(pagemap: &File, range: Range<u64>, filled: &mut Vec<Range<u64>>) -> io::Result<()> {
    let (mut page, end) = (range.start / PAGE, range.end / PAGE);
    while page < end {
        let pages = (end - page).min(PIECE);
        let mut words = vec![0; pages as usize * WORD];
        pagemap.read_exact_at(&mut words, page.saturating_mul(WORD as u64))?;
        add(&words, page * PAGE, filled);
        page += pages;
    }
    Ok(())
}

/// Adds the pages in use of which `words` of a pagemap tell, the first of them at `start`.
fn add(words: &[u8], start: u64, filled: &mut Vec<Range<u64>>) {
    let mut at = start;
    for word in words.as_chunks::<WORD>().0 {
        let end = at.saturating_add(PAGE);
        if u64::from_le_bytes(*word) & IN_USE != 0 {
            match filled.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => filled.push(at..end),
            }
        }
        at = end;
    }
}

/// `ranges` without their last `bytes`.
fn without_last(mut ranges: Vec<Range<u64>>, mut bytes: u64) -> Vec<Range<u64>> {
    while bytes > 0
        && let Some(last) = ranges.last_mut()
    {
        let cut = bytes.min(last.end - last.start);
        last.end -= cut;
        bytes -= cut;
        if last.is_empty() {
            ranges.pop();
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_read_with_what_fills_them() {
        let text = "7f00-7f02 rw-p 00000000 00:00 0 \nSize:  8 kB\nRss:                   4 kB\n\
                    Swap:                  8 kB\nPrivate_Clean:         4 kB\nVmFlags: rd wr\n\
                    8000-9000 ---s 00000000 00:01 7   /a-b (x)\nRss: x kB\n\nnonsense-1 rw-p\n";
        let first = Area {
            start: 0x7f00,
            end: 0x7f02,
            shared: false,
            filled: 12 << 10,
            clean: 4 << 10,
        };
        let second = Area {
            start: 0x8000,
            end: 0x9000,
            shared: true,
            ..Area::default()
        };
        assert_eq!(areas(text.as_bytes()), [first, second]);
        assert_eq!(areas(b"Rss: 4 kB\n\xff\n"), []);
    }

    #[test]
    fn pages_in_use_are_ranges() {
        let words = |words: &[u64]| -> Vec<u8> {
            let bytes = words.iter().copied().flat_map(u64::to_le_bytes);
            bytes.collect()
        };
        let pages = |ranges: Vec<Range<u64>>| -> Vec<(u64, u64)> {
            let pages = ranges.iter().map(|r| (r.start / PAGE, r.end / PAGE));
            pages.collect()
        };
        let mut filled = Vec::new();
        add(&words(&[1 << 62]), 0, &mut filled);
        add(&words(&[1 << 63, 1 << 62, 1, 1 << 63]), PAGE, &mut filled);
        assert_eq!(pages(filled.clone()), [(0, 3), (4, 5)]);
        for (cut, left) in [(1, &[(0, 3)][..]), (2, &[(0, 2)]), (4, &[]), (9, &[])] {
            assert_eq!(pages(without_last(filled.clone(), cut * PAGE)), left);
        }
    }

    #[test]
    fn what_this_test_has_touched_is_in_use() {
        let memory = vec![1_u8; 8 * PAGE as usize];
        let start = (memory.as_ptr() as u64).next_multiple_of(PAGE);
        let range = Addr::new(start)..Addr::new(start + 4 * PAGE);
        let own = std::process::id().cast_signed();
        let all = std::slice::from_ref(&range);
        let asked = [(range.clone(), false)];
        assert_eq!(in_use(own, &asked).unwrap(), all);
        assert_eq!(touched(own, all).unwrap(), all);
    }
}
