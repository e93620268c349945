use super::*;

const PAGE: u64 = 4096;
const PAGES: u64 = 64;

/// What can be done with pages: the number of a region that maps them, and what is made of them.
type Model = Vec<Option<(u32, State)>>;

/// A call, by its stack.
fn by(stack: u32) -> Origin {
    Origin {
        stack,
        ..Origin::default()
    }
}

/// One number a page: the region that maps it.
fn by_page(model: &Model) -> Vec<(u32, [u64; 3])> {
    let mut sums = BTreeMap::new();
    for (stack, state) in model.iter().flatten() {
        let sum: &mut [u64; 3] = sums.entry(*stack).or_default();
        sum[(*state as usize).min(2)] += PAGE;
    }
    sums.into_iter().collect()
}

fn sums(regions: &Regions) -> Vec<(u32, [u64; 3])> {
    let sum = |r: &Region| (r.stack, [r.bytes, r.reserved, r.given_back]);
    let mut found: Vec<_> = regions.mapped().map(sum).collect();
    found.sort_unstable();
    found
}

#[test]
fn agrees_with_a_model_of_single_pages() {
    use State::{Free, GivenBack, Reserved, Usable};
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    let mut regions = Regions::default();
    let mut model: Model = vec![None; PAGES as usize];
    for step in 0..10_000 {
        let start = next(PAGES);
        let len = next(PAGES - start + 1);
        let at = Addr::new(start * PAGE);
        let bytes = len * PAGE;
        let pages = &mut model[start as usize..(start + len) as usize];
        match next(9) {
            0 => {
                regions.unmap(at, bytes, u64::MAX);
                pages.fill(None);
            }
            1..4 => {
                regions.map(at, bytes, by(step));
                pages.fill(Some((step, Usable)));
            }
            what => {
                let to = match what {
                    4 => [Reserved; 4],
                    5 => [Usable, Usable, GivenBack, Free],
                    6 => [GivenBack, Reserved, GivenBack, GivenBack],
                    7 => [Free, Reserved, Free, Free],
                    _ => [Usable, Reserved, Usable, Usable],
                };
                match what {
                    4 => regions.protect(at, bytes, false),
                    5 => regions.protect(at, bytes, true),
                    6 | 7 => regions.give_back(at, bytes, what == 7),
                    _ => regions.use_again(at, bytes),
                }
                let change = |page: &mut (u32, State)| page.1 = to[page.1 as usize];
                pages.iter_mut().flatten().for_each(change);
            }
        }
        assert_eq!(sums(&regions), by_page(&model), "step {step}");
    }
}

/// Maps (pages, stack) or unmaps (pages, none) in turn; stacks and pages that are left.
fn left_by(steps: &[(u64, u64, Option<u32>)]) -> Vec<(u32, u64)> {
    let mut regions = Regions::default();
    for &(start, pages, stack) in steps {
        let (at, len) = (Addr::new(start * PAGE), pages * PAGE);
        match stack {
            Some(stack) => regions.map(at, len, by(stack)),
            None => regions.unmap(at, len, u64::MAX),
        }
    }
    let mut left: Vec<_> = regions.live().map(|r| (r.stack, r.bytes / PAGE)).collect();
    left.sort_unstable();
    left
}

#[test]
fn what_programs_do_with_regions() {
    let (one, two, gone) = (Some(1), Some(2), None);
    let cases: &[(&str, &[_], &[_])] = &[
        (
            "a hole: still one",
            &[(9, 16, one), (15, 4, gone)],
            &[(1, 12)],
        ),
        (
            "a hole, then each piece",
            &[(9, 16, one), (15, 4, gone), (9, 6, gone), (19, 6, gone)],
            &[],
        ),
        (
            "several at once",
            &[(1, 4, one), (7, 4, two), (3, 6, gone)],
            &[(1, 2), (2, 2)],
        ),
        (
            "MAP_FIXED into the middle",
            &[(1, 9, one), (4, 2, two)],
            &[(1, 7), (2, 2)],
        ),
        (
            "MAP_FIXED over all of it",
            &[(2, 2, one), (1, 4, two)],
            &[(2, 4)],
        ),
        (
            "mremap grows in place",
            &[(1, 4, one), (1, 4, gone), (1, 8, two)],
            &[(2, 8)],
        ),
        (
            "mremap moves",
            &[(1, 4, one), (1, 4, gone), (50, 8, two)],
            &[(2, 8)],
        ),
        (
            "mremap moves one piece",
            &[(1, 4, one), (3, 2, gone), (50, 2, two)],
            &[(1, 2), (2, 2)],
        ),
        (
            "the break moves up twice and back across both",
            &[(1, 16, one), (17, 4, two), (7, 14, gone)],
            &[(1, 6)],
        ),
        (
            "from before the trace",
            &[(1, 4, gone), (5, 1, one)],
            &[(1, 1)],
        ),
        (
            "neighbours do not grow together",
            &[(1, 1, one), (2, 1, one)],
            &[(1, 1), (1, 1)],
        ),
    ];
    for (what, steps, expected) in cases {
        assert_eq!(left_by(steps), *expected, "{what}");
    }
}

#[test]
fn survives_what_no_kernel_would_say() {
    let mut regions = Regions::default();
    regions.map(Addr::new(u64::MAX), 4096, by(1));
    regions.map(Addr::new(4096), 0, by(1));
    regions.unmap(Addr::new(u64::MAX), u64::MAX, u64::MAX);
    assert_eq!(regions.live().count(), 0);
}

fn pages(range: Range<u64>) -> Range<Addr> {
    Addr::new(range.start * PAGE)..Addr::new(range.end * PAGE)
}

#[test]
fn the_kernel_is_right() {
    let mut regions = Regions::default();
    for (at, stack) in [(2, 1), (6, 2), (12, 3), (20, 4)] {
        regions.map(Addr::new(at * PAGE), 4 * PAGE, by(stack));
    }
    regions.protect(Addr::new(6 * PAGE), PAGE, false);
    regions.give_back(Addr::new(7 * PAGE), 2 * PAGE, true);
    let mapped = [(0..3, true), (4..5, false), (6..10, true), (12..30, false)];
    regions.see(
        mapped
            .into_iter()
            .map(|(range, usable)| (pages(range), usable)),
    );
    let in_pages = |(stack, sum): (u32, [u64; 3])| (stack, sum.map(|bytes| bytes / PAGE));
    let found: Vec<_> = sums(&regions).into_iter().map(in_pages).collect();
    let expected = [
        (1, [1, 1, 0]),
        (2, [2, 0, 2]),
        (3, [0, 4, 0]),
        (4, [0, 4, 0]),
    ];
    assert_eq!(found, expected);
    assert_eq!(regions.given_back(), [(pages(7..9), true)]);
    assert_eq!(regions.live().count(), 2);
    regions.see(std::iter::empty());
    assert_eq!(regions.mapped().count(), 0);
}

/// The kernel has unmapped before it mapped; who unmapped is heard of last.
#[test]
fn what_was_mapped_after_an_unmapping_began_stays() {
    let mut regions = Regions::default();
    let at = |page: u64| Addr::new(page * PAGE);
    let by = |stack, moment| Origin {
        moment,
        ..by(stack)
    };
    regions.map(at(1), PAGE, by(1, 1));
    regions.map(at(2), PAGE, by(2, 5));
    regions.map(at(3), PAGE, by(3, 4));
    regions.unmap(at(0), 9 * PAGE, 4);
    assert_eq!(sums(&regions), [(2, [PAGE, 0, 0])]);
    regions.unmap(at(2), PAGE, 5);
    assert_eq!(sums(&regions), []);
}
