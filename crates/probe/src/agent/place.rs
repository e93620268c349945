//! Where in a process's address space there is room near its code.

use leaktap_image::{Kind, Mapping};
use leaktap_memory::{Addr, PAGE};

/// How far a jump, or a rip-relative operand, reaches; with room to spare for lengths.
const REACH: u64 = (1 << 31) - (1 << 20);

/// Pages left free on either side: nothing that grows shall bump into what is placed.
const APART: u64 = 16 * PAGE;

/// Left free above the heap segment, which grows.
const HEAP_GROWTH: u64 = 1 << 30;

/// Lowest address that may be mapped: vm.mmap_min_addr as Linux has it by default.
const LOWEST: u64 = 64 << 10;

/// What a stack without a limit is given.
const UNLIMITED_STACK: u64 = 64 << 30;

/// The kernel lets no stack grow nearer than this to what is below it: stack_guard_gap, 256 pages
/// by default.
const STACK_GUARD: u64 = 256 * PAGE;

/// An address for `len` bytes that all of `near` reach and that reaches all of them. `mappings` are
/// all there are, lowest first; the stack may grow to `stack` bytes (RLIMIT_STACK), if that is
/// limited.
///
/// Below the code rather than above it: there, the heap segment of a program grows.
pub(crate) fn place(
    mappings: &[Mapping],
    near: &[Addr],
    len: u64,
    stack: Option<u64>,
) -> Option<Addr> {
    let lowest = near.iter().map(|at| at.get()).min()?;
    let highest = near.iter().map(|at| at.get()).max()?;
    let reach = highest.saturating_sub(REACH).max(LOWEST)..lowest.saturating_add(REACH);
    let mut below = None;
    let mut start = 0;
    let mut apart = APART;
    for mapping in mappings {
        let from = reach.start.max(start + apart);
        let at = match mapping.kind {
            Kind::Stack => below_stack(mapping, from, len, stack),
            _ => highest_in(from, mapping.start.get().checked_sub(APART), len, reach.end),
        };
        let at = at.filter(|at| at + len <= reach.end);
        if at.is_some_and(|at| at >= lowest) {
            return below.or(at).map(Addr::new);
        }
        below = at.or(below);
        start = mapping.end.get();
        // The heap grows into the gap above it.
        apart = match mapping.kind {
            Kind::Heap => HEAP_GROWTH,
            _ => APART,
        };
    }
    below.map(Addr::new)
}

/// The highest address of a gap that begins at `from` and may be used up to `end`.
fn highest_in(from: u64, end: Option<u64>, len: u64, reach: u64) -> Option<u64> {
    let at = end?.min(reach).checked_sub(len)? & !0xfff;
    (at >= from).then_some(at)
}

/// The lowest address of the gap below `stack`, if that may grow to its limit all the same: `from`.
/// As far from it as can be, should the program raise the limit.
fn below_stack(stack: &Mapping, from: u64, len: u64, limit: Option<u64>) -> Option<u64> {
    let grown = stack
        .end
        .get()
        .checked_sub(limit.unwrap_or(UNLIMITED_STACK))?;
    let end = grown.min(stack.start.get()).checked_sub(STACK_GUARD)?;
    let at = from.checked_next_multiple_of(0x1000)?;
    (at.checked_add(len)? <= end).then_some(at)
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
    fn below_the_code_and_not_where_the_heap_grows() {
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
        assert_eq!(place(&all, &near, len, None), Some(below));
        // Nothing below, and the stack has no limit.
        all.insert(2, mapping(0x6000_0000_0000, code, Kind::Anonymous));
        assert_eq!(place(&all, &near, len, None), None);
        // A program that is not position independent: below it.
        let low = [mapping(0x40_0000, 0x50_0000, Kind::Anonymous)];
        let near = [Addr::new(0x40_1000)];
        let below = Addr::new(0x40_0000 - APART - len);
        assert_eq!(place(&low, &near, len, None), Some(below));
    }

    /// A stack may grow to 8 MiB, another one to any length.
    #[test]
    fn below_a_stack_there_is_room_for_it_to_grow() {
        const LIMIT: u64 = 8 << 20;
        let code = 0x7f00_0000_0000;
        let (end, len) = (code + 0x20_0000, 0x1_0000);
        let near = [Addr::new(code)];
        let all = |top: u64| {
            [
                mapping(0x1_0000, code, Kind::Anonymous),
                mapping(code, end, Kind::Anonymous),
                mapping(top - 0x2_1000, top, Kind::Stack),
                mapping(top, 0x7fff_ffff_f000, Kind::Anonymous),
            ]
        };
        let lowest = end + APART;
        let least = lowest + len + STACK_GUARD + LIMIT;
        let found = Some(Addr::new(lowest));
        for (top, limit, expected) in [
            (least, Some(LIMIT), found),
            (least - 0x1000, Some(LIMIT), None),
            // It has been longer once.
            (least - LIMIT + 0x2_1000, Some(0x1000), found),
            (least - LIMIT + 0x2_0000, Some(0x1000), None),
            (least, None, None),
            (least - LIMIT + UNLIMITED_STACK, None, found),
            (least, Some(u64::MAX - 1), None),
        ] {
            let at = place(&all(top), &near, len, limit);
            assert_eq!(at, expected, "{top:x} {limit:?}");
        }
        // Out of reach of the code.
        let mut far = all(code + (4 << 30));
        far[1].end = Addr::new(code + REACH);
        assert_eq!(place(&far, &near, len, Some(LIMIT)), None);
    }

    #[test]
    fn nothing_that_cannot_be_reached() {
        let near = [Addr::new(0x5500_0000_0000), Addr::new(0x7f00_0000_0000)];
        let all: Vec<_> = near
            .iter()
            .map(|at| mapping(at.get(), at.get() + 0x1000, Kind::Anonymous))
            .collect();
        assert_eq!(place(&all, &near, 0x1000, None), None);
        assert!(place(&all, &near[..1], 0x1000, None).is_some());
        assert_eq!(place(&all, &[], 0x1000, None), None);
    }
}
