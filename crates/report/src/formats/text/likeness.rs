//! Sites that grow as others do: a leaked object and what it holds are one leak at two places.

use crate::own::class;
use crate::own::origin::Class;
use crate::selection::is_growing;
use crate::{FrameId, Report, Site, Tables};

/// Most sites that a later one is compared with.
const MOST_COMPARED: usize = 32;

/// How many blocks one site may have for each of another: an object, and what it holds.
const TIMES: [(u64, &str, &str); 3] = [
    (1, "as many", "as many"),
    (2, "twice as many", "half as many"),
    (3, "three times as many", "a third as many"),
];

/// That part of the larger number may be more or less: some blocks are just being made.
const PART: u64 = 32;

/// That the site of this number grows as one before it does, if it does.
pub(super) fn likeness(
    number: usize,
    site: &Site,
    report: &Report,
    classes: &[Class],
) -> Option<String> {
    if !is_growing(site) {
        return None;
    }
    let before = report.sites.iter().take(number.saturating_sub(1));
    let growing = (1..).zip(before).filter(|(_, other)| is_growing(other));
    growing.take(MOST_COMPARED).find_map(|(number, other)| {
        let times = times(site.blocks, other.blocks)?;
        let common = common(site, other, report.tables(), classes)?;
        Some(format!(
            "{times} blocks as {number}, {common}: likely one leak"
        ))
    })
}

/// How many `blocks` are beside `others`, in words, if one is a small multiple of the other.
fn times(blocks: u64, others: u64) -> Option<&'static str> {
    let (least, most) = (blocks.min(others), blocks.max(others));
    TIMES.into_iter().find_map(|(times, more, less)| {
        let is_so = least.saturating_mul(times).abs_diff(most) <= (most / PART).max(times);
        is_so.then_some(if blocks == most { more } else { less })
    })
}

/// What two sites have in common of the user's own functions, but for `main`: all that a program
/// does is called by that.
fn common(
    site: &Site,
    other: &Site,
    tables: Tables<'_>,
    classes: &[Class],
) -> Option<&'static str> {
    let function = |id: FrameId| {
        let frame = tables.frame(id)?;
        let name = frame.function.as_deref().filter(|name| *name != "main")?;
        Some((frame.module, name))
    };
    let own = |site: &Site| {
        let is_own = |id: &FrameId| class(classes, *id) == Class::Own;
        let outer = site.frames.iter().copied();
        let outer = outer.skip_while(|id| Some(*id) != site.culprit);
        let mut outer = outer.filter(is_own).map(function);
        let (culprit, caller) = (outer.next(), outer.next());
        (culprit.flatten(), caller.flatten())
    };
    let same = |one: Option<_>, another: Option<_>| one.is_some() && one == another;
    let ((culprit, caller), (others, others_caller)) = (own(site), own(other));
    let ways = [
        (same(culprit, others), "in the same function"),
        (same(caller, others), "in its caller"),
        (same(culprit, others_caller), "which is called from here"),
        (same(caller, others_caller), "from the same caller"),
    ];
    ways.into_iter()
        .find_map(|(is_so, text)| is_so.then_some(text))
}

#[cfg(test)]
mod tests {
    use std::slice;

    use crate::formats::text::tests::{add, frame, report};
    use crate::{By, Format, Frame, Own, Report, Selection, Sort, Text};

    /// What the text report says.
    fn text_of(mut report: Report) -> String {
        Own::default().mark(&mut report);
        let selection = Selection {
            by: By::Caller,
            sort: Sort::Rate,
            ..Selection::default()
        };
        let report = selection.apply(report);
        let mut text = Vec::new();
        let reports = slice::from_ref(&report);
        Text::default().write(reports, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn growing(report: &mut Report, frames: &[Frame], blocks: u64) {
        let ages = [9.0, 6.5, 4.0, 1.5].map(|age| (age, blocks, 10 * blocks));
        add(report, frames, &ages);
    }

    fn at(function: &str, line: u32) -> Frame {
        frame(function, "/home/u/app/a.c", line)
    }

    #[test]
    fn what_grows_as_much_from_the_same_caller_is_likely_one_leak() {
        let mut all = report();
        let main = || at("main", 20);
        for (blocks, own) in [
            (40, [at("open", 1), at("serve", 9), main()]),
            (40, [at("open", 2), at("serve", 9), main()]),
            (40, [at("tag", 5), at("serve", 8), main()]),
            (30, [at("other", 7), at("elsewhere", 8), main()]),
            (20, [at("part", 3), at("tag", 6), at("serve", 8)]),
            (20, [at("serve", 4), main(), main()]),
            (5, [at("rare", 7), at("serve", 7), main()]),
        ] {
            growing(&mut all, &own, blocks);
        }
        let text = text_of(all);
        let lines = text.lines();
        let said: Vec<_> = lines.filter(|line| line.contains("likely")).collect();
        let expected = [
            "       as many blocks as 1, in the same function: likely one leak",
            "       as many blocks as 1, from the same caller: likely one leak",
            "       half as many blocks as 3, in its caller: likely one leak",
            "       half as many blocks as 1, which is called from here: likely one leak",
        ];
        assert_eq!(said, expected, "{text}");
        assert!(
            text.contains("and not freed; what grows is listed first\n"),
            "{text}"
        );
    }

    #[test]
    fn which_stacks_grow_is_said() {
        let stack = |line| [at("open", 1), at("serve", line), at("main", 20)];
        let few = [(9.0, 1, 10), (1.0, 1, 10)];
        for (growing_stacks, few_stacks, expected) in [
            (1, 1, "2 stacks: the one shown grows"),
            (2, 1, "3 stacks: of those that grow, the largest is shown"),
            (2, 0, "2 stacks: all grow"),
        ] {
            let mut all = report();
            for line in 0..growing_stacks {
                growing(&mut all, &stack(line), 10);
            }
            for line in 0..few_stacks {
                add(&mut all, &stack(100 + line), &few);
            }
            let text = text_of(all);
            assert!(text.contains(&format!("(malloc, {expected})")), "{text}");
        }
    }
}
