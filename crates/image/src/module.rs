use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use leaktap_memory::{Addr, PAGE, Svma};

use crate::elf::Segment;
use crate::maps::Mapping;
use crate::{ElfFile, Error};

/// What a module is known by as long as its file is held: where that is in our memory, and the load
/// bias.
pub type Key = (usize, u64);

/// An ELF file loaded at one place of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Module {
    path: Arc<Path>,
    file: Arc<ElfFile>,
    bias: u64,
    range: Range<Addr>,
    executable: Arc<[Range<Addr>]>,
    deleted: bool,
    vdso: bool,
}

impl Module {
    /// The module that `mapping` is a part of. `maps` are the mappings of the process, lowest
    /// first: all of them, or those about it.
    ///
    /// # Errors
    /// [`Error::NoSegment`] if the file does not explain the mapping.
    pub(crate) fn of(
        mapping: &Mapping,
        file: Arc<ElfFile>,
        bias: u64,
        maps: &[Mapping],
    ) -> Result<Module, Error> {
        let path = mapping.path().unwrap_or(Path::new("[vdso]"));
        let claimed = loaded(&file, bias).ok_or_else(|| Error::NoSegment {
            path: path.to_path_buf(),
            offset: mapping.offset,
        })?;
        let maps = overlapping(maps, &claimed);
        let range = match mapping.inode {
            0 => claimed, // the vdso
            _ => mapped(&claimed, mapping, maps),
        };
        let executable = maps
            .iter()
            .filter(|map| map.perms.exec && range.start <= map.start && map.start < range.end)
            .filter(|map| map.inode == 0 || is_same_file(map, mapping))
            .map(|map| map.start..map.end.min(range.end))
            .collect();
        Ok(Module {
            path: path.into(),
            file,
            bias,
            range,
            executable,
            deleted: mapping.deleted(),
            vdso: mapping.path().is_none(),
        })
    }

    /// The path as the kernel prints it, without the mark of a deleted file; `[vdso]`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file.
    pub fn file(&self) -> &Arc<ElfFile> {
        &self.file
    }

    /// What no other module has as long as the file of this one is held.
    pub fn key(&self) -> Key {
        (Arc::as_ptr(&self.file).addr(), self.bias)
    }

    /// What is added, modulo 2^64, to an address in the file to get one in the process.
    pub fn bias(&self) -> u64 {
        self.bias
    }

    /// From its first byte to after its last, in whole pages. There may be holes.
    pub fn range(&self) -> Range<Addr> {
        self.range.clone()
    }

    /// Its executable mappings, lowest address first.
    pub fn executable(&self) -> &[Range<Addr>] {
        &self.executable
    }

    /// The file had no name any more when the module was found.
    pub fn deleted(&self) -> bool {
        self.deleted
    }

    /// True of vdso(7).
    pub fn is_vdso(&self) -> bool {
        self.vdso
    }

    /// True if `at` lies in a page of one of its segments.
    pub fn contains(&self, at: Addr) -> bool {
        if !self.range.contains(&at) {
            return false;
        }
        let svma = self.svma(at).0;
        let mut segments = self.file.segments().iter();
        segments.any(|segment| pages(segment).is_some_and(|pages| pages.contains(&svma)))
    }

    /// True if `at` lies in an executable mapping of it.
    pub fn has_code_at(&self, at: Addr) -> bool {
        self.executable.iter().any(|range| range.contains(&at))
    }

    /// The address in the file.
    pub fn svma(&self, at: Addr) -> Svma {
        Svma::from_addr(at, self.bias)
    }

    /// The address in the process.
    pub fn addr(&self, at: Svma) -> Addr {
        at.at_bias(self.bias)
    }

    /// Bytes from the module's first byte: what reports print beside its path.
    pub fn offset_of(&self, at: Addr) -> u64 {
        at.get().wrapping_sub(self.range.start.get())
    }

    /// True if both are the same file at the same place.
    pub fn same_as(&self, other: &Module) -> bool {
        self.bias == other.bias
            && (Arc::ptr_eq(&self.file, &other.file) || (self.vdso && other.vdso))
    }
}

/// The load bias that explains `mapping`: the segment that the offset falls into is found, and its
/// address compared. Where one page of the file is part of two segments, permissions decide.
pub(crate) fn bias(file: &ElfFile, mapping: &Mapping) -> Option<u64> {
    let explains = |segment: &&Segment| {
        let first = segment.offset & !(PAGE - 1);
        let end = segment.offset.saturating_add(segment.file_size);
        segment.file_size > 0 && first <= mapping.offset && mapping.offset < end
    };
    let candidates: Vec<&Segment> = file.segments().iter().filter(explains).collect();
    let perms = mapping.perms;
    let same = |segment: &&&Segment| {
        (segment.exec, segment.write, segment.read) == (perms.exec, perms.write, perms.read)
    };
    let best = candidates
        .iter()
        .find(same)
        .or_else(|| candidates.iter().find(|segment| segment.exec == perms.exec))
        .or_else(|| candidates.first())?;
    let into = mapping.offset.wrapping_sub(best.offset & !(PAGE - 1));
    let linked = (best.svma & !(PAGE - 1)).wrapping_add(into);
    let bias = mapping.start.get().wrapping_sub(linked);
    (file.is_pie() || bias == 0).then_some(bias)
}

/// The load bias with which the file's dynamic section is at `dynamic`, if one of its segments
/// explains `mapping` then. What is read-only after relocation has the permissions of another.
pub(crate) fn bias_by(file: &ElfFile, mapping: &Mapping, dynamic: Addr) -> Option<u64> {
    let bias = dynamic.get().wrapping_sub(file.dynamic_section()?.0);
    let explains = |segment: &Segment| {
        let into = mapping.offset.wrapping_sub(segment.offset & !(PAGE - 1));
        let linked = (segment.svma & !(PAGE - 1)).wrapping_add(into);
        linked.wrapping_add(bias) == mapping.start.get()
    };
    let is_possible = file.is_pie() || bias == 0;
    (is_possible && file.segments().iter().any(explains)).then_some(bias)
}

/// First and last page of all segments, or nothing if that is no range of addresses.
pub(crate) fn loaded(file: &ElfFile, bias: u64) -> Option<Range<Addr>> {
    let segments = file.segments();
    let pages: Vec<Range<u64>> = segments.iter().map(pages).collect::<Option<_>>()?;
    let first = pages.iter().map(|pages| pages.start).min()?;
    let last = pages.iter().map(|pages| pages.end).max()?;
    let (start, end) = (Svma(first).at_bias(bias), Svma(last).at_bias(bias));
    (start < end).then_some(start..end)
}

/// What of `claimed`, all that the file of `mapping` says it is loaded to, is mapped from it: a
/// file may say anything. Memory without a file belongs to it where it goes on from there: `.bss`,
/// or text that was copied to huge pages.
fn mapped(claimed: &Range<Addr>, mapping: &Mapping, maps: &[Mapping]) -> Range<Addr> {
    let inside = |map: &&Mapping| claimed.start < map.end && map.start < claimed.end;
    // Outwards, up to the first of another file: it may be mapped again behind that.
    let is_not_others = |map: &&Mapping| map.inode == 0 || is_same_file(map, mapping);
    let is_own = |map: &&Mapping| is_same_file(map, mapping);
    let behind = maps
        .iter()
        .filter(inside)
        .filter(|map| map.start >= mapping.start);
    let before = maps
        .iter()
        .rev()
        .filter(inside)
        .filter(|map| map.start <= mapping.start);
    let end = behind
        .take_while(is_not_others)
        .filter(is_own)
        .map(|map| map.end)
        .max();
    let start = before
        .take_while(is_not_others)
        .filter(is_own)
        .map(|map| map.start)
        .min();
    let (start, end) = (start.unwrap_or(mapping.start), end.unwrap_or(mapping.end));
    let without_file = |map: &&Mapping| map.inode == 0;
    let end = maps
        .iter()
        .filter(without_file)
        .fold(end, |end, map| match map.start == end {
            true => map.end,
            false => end,
        });
    let below = maps.iter().rev().filter(without_file);
    let start = below.fold(start, |start, map| match map.end == start {
        true => map.start,
        false => start,
    });
    start.max(claimed.start)..end.min(claimed.end)
}

/// Those of `maps`, lowest first, that have bytes in common with `range`.
pub(crate) fn overlapping<'m>(maps: &'m [Mapping], range: &Range<Addr>) -> &'m [Mapping] {
    let first = maps.partition_point(|map| map.end <= range.start);
    let end = maps.partition_point(|map| map.start < range.end);
    maps.get(first..end).unwrap_or_default()
}

pub(crate) fn is_same_file(one: &Mapping, other: &Mapping) -> bool {
    (one.dev, one.inode) == (other.dev, other.inode)
}

fn pages(segment: &Segment) -> Option<Range<u64>> {
    let end = segment.svma.checked_add(segment.mem_size)?;
    let end = end.checked_add(PAGE - 1)? & !(PAGE - 1);
    Some(segment.svma & !(PAGE - 1)..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::parse;

    /// Between what a file is mapped to lies its own; behind it, another file is.
    #[test]
    fn a_file_that_claims_too_much_has_what_is_mapped_of_it() {
        let maps = b"1000-2000 r--p 00000000 fe:01 7 /a\n2000-3000 r-xp 00000000 00:00 0 \n\
            3000-4000 rw-p 00002000 fe:01 7 /a\n4000-5000 rw-p 00000000 00:00 0 \n\
            6000-7000 r-xp 00000000 fe:01 8 /b\n9000-a000 r-xp 00000000 fe:01 9 /c\n\
            b000-c000 r-xp 00000000 fe:01 7 /a\n";
        let maps = parse(maps).unwrap();
        let range = |start, end| Addr::new(start)..Addr::new(end);
        for (claimed, of, expected) in [
            (range(0x1000, 0x5000), 0, range(0x1000, 0x5000)),
            (range(0x1000, 0x4800), 0, range(0x1000, 0x4800)),
            (range(0x1000, 0x9000), 2, range(0x1000, 0x5000)),
            (range(0x0, 0xf000), 4, range(0x6000, 0x7000)),
            (range(0x0, 0xf000), 5, range(0x9000, 0xa000)),
            (range(0x0, 0xf000), 0, range(0x1000, 0x5000)),
        ] {
            assert_eq!(mapped(&claimed, &maps[of], &maps), expected);
        }
    }
}
