//! Which functions share a code region: those that one free place can be near to.

use leaktap_image::{Kind, Mapping};
use leaktap_memory::Addr;

use super::place::place;

/// A code region to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Where there is room for it.
    pub(crate) at: Addr,
    /// The places that jump there.
    pub(crate) near: Vec<Addr>,
}

/// What regions may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of each.
    pub(crate) len: u64,
    /// How many.
    pub(crate) regions: usize,
    /// Most places that jump to one.
    pub(crate) places: usize,
    /// Most bytes of the stack, if that is limited.
    pub(crate) stack: Option<u64>,
}

/// As few regions as all of `near` need, lowest first. Those for which there is no room, or no
/// region left, are in none. `mappings` are all there are, lowest first.
pub(crate) fn groups(mappings: &[Mapping], near: &[Addr], limits: Limits) -> Vec<Group> {
    let mut near = near.to_vec();
    near.sort_unstable();
    let mut mappings = mappings.to_vec();
    let mut groups: Vec<Group> = Vec::new();
    let mut rest = &near[..];
    while groups.len() < limits.regions && !rest.is_empty() {
        let Some((at, count)) = first(&mappings, rest, limits) else {
            rest = rest.get(1..).unwrap_or_default();
            continue;
        };
        let (near, others) = rest.split_at(count);
        groups.push(Group {
            at,
            near: near.to_vec(),
        });
        take(&mut mappings, at, limits.len);
        rest = others;
    }
    groups
}

/// A place that the lowest of `near` reach, as many as can be, and how many these are.
fn first(mappings: &[Mapping], near: &[Addr], limits: Limits) -> Option<(Addr, usize)> {
    let most = near.len().min(limits.places);
    let reached = |count: usize| {
        let near = near.get(..count)?;
        Some((place(mappings, near, limits.len, limits.stack)?, count))
    };
    // What is too far apart stays so with more.
    (1..=most).map_while(reached).last()
}

/// No other region may be there.
fn take(mappings: &mut Vec<Mapping>, at: Addr, len: u64) {
    let index = mappings.partition_point(|mapping| mapping.start < at);
    let Some(like) = mappings.get(index.saturating_sub(1)).cloned() else {
        return;
    };
    let end = at.wrapping_offset(len as i64);
    let taken = Mapping {
        start: at,
        end,
        kind: Kind::Anonymous,
        ..like
    };
    mappings.insert(index, taken);
}

#[cfg(test)]
mod tests {
    use leaktap_image::Perms;

    use super::*;

    const LIMITS: Limits = Limits {
        len: 0x1_0000,
        regions: 3,
        places: 4,
        stack: None,
    };
    const GIB: u64 = 1 << 30;

    fn mapping(start: u64, end: u64) -> Mapping {
        Mapping {
            start: Addr::new(start),
            end: Addr::new(end),
            perms: Perms {
                read: true,
                write: false,
                exec: true,
                shared: false,
            },
            offset: 0,
            dev: (0, 0),
            inode: 0,
            kind: Kind::Anonymous,
        }
    }

    fn grouped(mappings: &[Mapping], near: &[u64]) -> Vec<Vec<u64>> {
        let near: Vec<_> = near.iter().map(|at| Addr::new(*at)).collect();
        let groups = groups(mappings, &near, LIMITS);
        let mut places: Vec<_> = groups.iter().map(|group| group.at).collect();
        places.sort_unstable();
        let are_apart = |pair: &[Addr]| pair[0].get() + LIMITS.len <= pair[1].get();
        assert!(places.windows(2).all(are_apart), "{places:x?}");
        let near = |group: Group| group.near.iter().map(|at| at.get()).collect();
        groups.into_iter().map(near).collect()
    }

    /// A program, position independent or not, and libraries.
    #[test]
    fn what_is_near_shares_a_region_and_what_is_far_does_not() {
        let (low, pie, library) = (0x40_0000, 0x5500_0000_0000, 0x7f00_0000_0000);
        let all = [low, pie, library].map(|at| mapping(at, at + 0x10_0000));
        let near = [library + 0x1000, low + 8, pie, library, low];
        let expected = [
            vec![low, low + 8],
            vec![pie],
            vec![library, library + 0x1000],
        ];
        assert_eq!(grouped(&all, &near), expected);
        assert_eq!(grouped(&all, &near[..1]), [[library + 0x1000]]);
        assert!(grouped(&all, &[]).is_empty());
    }

    #[test]
    fn two_regions_are_never_in_one_place() {
        // One gap, which all reach, but too many for one region.
        let at = 0x5500_0000_0000;
        let all = [mapping(0x1_0000, at), mapping(at + GIB, 0x7fff_0000_0000)];
        let near: Vec<u64> = (0..6).map(|n| at - 0x100 + n).collect();
        assert_eq!(grouped(&all, &near), [&near[..4], &near[4..]]);
    }

    #[test]
    fn what_there_is_no_room_for_is_in_no_group() {
        let (full, free) = (0x5500_0000_0000, 0x7f00_0000_0000);
        let all = [
            mapping(0x1_0000, full + 4 * GIB),
            mapping(free, free + 0x1000),
        ];
        assert_eq!(grouped(&all, &[full, free]), [[free]]);
        // More than there may be.
        let many: Vec<u64> = (1..=4).map(|n| n * 8 * GIB).collect();
        let all: Vec<_> = many.iter().map(|at| mapping(*at, at + 0x1000)).collect();
        assert_eq!(grouped(&all, &many).len(), LIMITS.regions);
    }
}
