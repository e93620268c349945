//! Sites that grow as others do: a leaked object and what it holds are one leak at two places.

use crate::own::class;
use crate::own::origin::Class;
use crate::selection::is_growing;
use crate::{FrameId, Report, Site, Tables};

/// Most sites that a later one is compared with.
const MOST_COMPARED: usize = 32;

/// Of two sites with as many blocks, one may have a sixteenth more: some are just being made.
const PART: u64 = 16;

/// That the site of this number grows as one before it does, if it does.
pub(super) fn likeness(
    number: usize,
    site: &Site,
    report: &Report,
    classes: &[Class],
) -> Option<String> {
    let before = report.sites.iter().take(number.saturating_sub(1));
    (1..)
        .zip(before)
        .take(MOST_COMPARED)
        .find_map(|(other, of)| {
            let common = common(site, of, report.tables(), classes)?;
            Some(format!(
                "as many blocks as {other}, {common}: likely one leak"
            ))
        })
}

/// What two sites that grow by as many blocks have in common.
fn common(
    site: &Site,
    other: &Site,
    tables: Tables<'_>,
    classes: &[Class],
) -> Option<&'static str> {
    let (least, most) = (site.blocks.min(other.blocks), site.blocks.max(other.blocks));
    let is_as_many = most - least <= (most / PART).max(1);
    if !(is_growing(site) && is_growing(other) && is_as_many) {
        return None;
    }
    let function = |id: &FrameId| {
        let frame = tables.frame(*id)?;
        Some((frame.module, frame.function.as_deref()?))
    };
    let own = |site: &Site| {
        let is_own = |id: &&FrameId| class(classes, **id) == Class::Own;
        let outer = site.frames.iter();
        let outer = outer.skip_while(|id| Some(**id) != site.culprit);
        outer
            .filter(is_own)
            .take(2)
            .map(function)
            .collect::<Vec<_>>()
    };
    match (&own(site)[..], &own(other)[..]) {
        ([Some(one), ..], [Some(another), ..]) if one == another => Some("in the same function"),
        // All that a program does is called by `main`.
        ([_, Some(one)], [_, Some(another)]) if one == another && one.1 != "main" => {
            Some("from the same caller")
        }
        _ => None,
    }
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
        growing(
            &mut all,
            &[at("open", 1), at("serve", 9), at("main", 20)],
            40,
        );
        growing(
            &mut all,
            &[at("open", 2), at("serve", 9), at("main", 20)],
            39,
        );
        growing(
            &mut all,
            &[at("name", 5), at("serve", 8), at("main", 20)],
            38,
        );
        growing(
            &mut all,
            &[at("other", 7), at("elsewhere", 8), at("main", 20)],
            37,
        );
        growing(
            &mut all,
            &[at("rare", 7), at("serve", 7), at("main", 20)],
            4,
        );
        let text = text_of(all);
        let said: Vec<_> = text
            .lines()
            .filter(|line| line.contains("as many"))
            .collect();
        let expected = [
            "       as many blocks as 1, in the same function: likely one leak",
            "       as many blocks as 1, from the same caller: likely one leak",
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
