//! Where in a process's address space there is room near its code.

use leaktap_image::{Kind, Mapping};
use leaktap_memory::Addr;

/// How far a jump, or a rip-relative operand, reaches; with room to spare for lengths.
const REACH: u64 = (1 << 31) - (1 << 20);

/// Pages left free on either side: nothing that grows shall bump into what is placed.
const APART: u64 = 16 * 4096;

/// Left free above the heap segment, which grows.
const HEAP_GROWTH: u64 = 1 << 30;

/// Lowest address that may be mapped: vm.mmap_min_addr as Linux has it by default.
const LOWEST: u64 = 64 << 10;

/// An address for `len` bytes that all of `near` reach and that reaches all of them. `mappings` are
/// all there are, lowest first.
///
/// Below the code rather than above it: there, the heap segment of a program grows.
pub(crate) fn place(mappings: &[Mapping], near: &[Addr], len: u64) -> Option<Addr> {
    let lowest = near.iter().map(|at| at.get()).min()?;
    let highest = near.iter().map(|at| at.get()).max()?;
    let (from, to) = (highest.saturating_sub(REACH).max(LOWEST), lowest + REACH);
    let starts = mappings.iter().map(|mapping| mapping.start.get());
    let ends = mappings.iter().map(|mapping| mapping.end.get());
    let gaps = std::iter::once(0).chain(ends).zip(starts);
    // The stack grows into the gap below it, the heap into the one above.
    let kinds = mappings.iter().map(|mapping| &mapping.kind);
    let above_heap = std::iter::once(false).chain(kinds.clone().map(|kind| *kind == Kind::Heap));
    let room = |((start, end), (above_heap, kind)): ((u64, u64), (bool, &Kind))| {
        if *kind == Kind::Stack {
            return None;
        }
        let apart = if above_heap { HEAP_GROWTH } else { APART };
        let end = end.checked_sub(APART)?.min(to);
        let at = end.checked_sub(len)? & !0xfff;
        (at >= from.max(start + apart)).then_some(at)
    };
    let all = gaps.zip(above_heap.zip(kinds)).filter_map(room);
    let (below, above): (Vec<u64>, Vec<u64>) = all.partition(|at| *at < lowest);
    let best = below.last().or(above.first()).copied();
    best.map(Addr::new)
}

#[cfg(test)]
mod tests {
    use leaktap_image::Perms;

    use super::*;

    fn mapping(start: u64, end: u64, kind: Kind) -> Mapping {
        Mapping {
            start: Addr::new(start),
            end: Addr::new(end),
            perms: Perms {
                read: true,
                write: false,
                exec: false,
                shared: false,
            },
            offset: 0,
            dev: (0, 0),
            inode: 0,
            kind,
        }
    }

    #[test]
    fn below_the_code_and_never_where_something_grows() {
        let code = 0x7f00_0000_0000;
        let mut all = vec![
            mapping(0x5500_0000_0000, 0x5500_0010_0000, Kind::Anonymous),
            mapping(0x5500_0100_0000, 0x5500_0110_0000, Kind::Heap),
            mapping(code, code + 0x20_0000, Kind::Anonymous),
            mapping(code + 0x100_0000, code + 0x110_0000, Kind::Stack),
        ];
        let len = 0x1_0000;
        let near = [Addr::new(code + 0x1000), Addr::new(code + 0x2000)];
        let below = Addr::new(code - APART - len);
        assert_eq!(place(&all, &near, len), Some(below));
        // Nothing below: between code and stack, there is room above neither.
        all.insert(2, mapping(0x6000_0000_0000, code, Kind::Anonymous));
        assert_eq!(place(&all, &near, len), None);
        // A program that is not position independent: below it.
        let low = [mapping(0x40_0000, 0x50_0000, Kind::Anonymous)];
        let near = [Addr::new(0x40_1000)];
        let below = Addr::new(0x40_0000 - APART - len);
        assert_eq!(place(&low, &near, len), Some(below));
    }

    #[test]
    fn nothing_that_cannot_be_reached() {
        let near = [Addr::new(0x5500_0000_0000), Addr::new(0x7f00_0000_0000)];
        let all: Vec<_> = near
            .iter()
            .map(|at| mapping(at.get(), at.get() + 0x1000, Kind::Anonymous))
            .collect();
        assert_eq!(place(&all, &near, 0x1000), None);
        assert!(place(&all, &near[..1], 0x1000).is_some());
        assert_eq!(place(&all, &[], 0x1000), None);
    }
}
