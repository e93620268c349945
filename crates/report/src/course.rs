//! What the ages of blocks prove of how a site grows.

use crate::numbers::seconds;
use crate::{Age, Course, Growth, Mode, Site};

/// Traces that are shorter tell nothing: ages are exact to 20 ms, and programs begin somehow.
const SHORTEST: f64 = 2.0;

/// Blocks in each quarter of a trace that are no accident.
const SOME: u64 = 3;

/// How much more one quarter may have than another, if both have about as many.
const ALIKE: u64 = 4;

/// What is known of the blocks of a site, or of a group of these.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    ages: Vec<Age>,
    seen: Option<f64>,
}

impl Evidence {
    /// Of another site, too.
    pub(crate) fn add(&mut self, site: &Site) {
        self.ages.extend(&site.ages);
        let seen = self.seen.into_iter().chain(site.seen);
        self.seen = seen.reduce(f64::min);
    }

    /// What it proves of a trace of so many seconds, if anything.
    pub(crate) fn growth(&self, duration: f64, mode: Mode) -> Option<Growth> {
        let ages = |pick: fn(f64, f64) -> f64| self.ages.iter().map(|age| age.age).reduce(pick);
        let (youngest, oldest) = (ages(f64::min)?, ages(f64::max)?);
        if duration < SHORTEST {
            return None;
        }
        let last = (duration - youngest).max(0.0);
        let first = duration - oldest;
        let is_replaced = self.seen.is_some_and(|seen| seen < first);
        let (pattern, text) = if last <= duration / 10.0 && mode == Mode::Run {
            let text = format!("start-up: none is of later than {}", seconds(last));
            (Course::StartUp, text)
        } else if last <= duration / 2.0 {
            (Course::Stopped, format!("stopped after {}", seconds(last)))
        } else if oldest <= duration / 2.0 && is_replaced {
            let (oldest, all) = (seconds(oldest), seconds(duration));
            let text = format!("turns over: none older than {oldest} of {all}");
            (Course::TurnsOver, text)
        } else {
            let rate = self.rate(duration)?;
            (Course::Growing, format!("growing: {rate} in each quarter"))
        };
        Some(Growth {
            bytes_per_second: None,
            p: None,
            pattern,
            text: Some(text),
        })
    }

    /// How many blocks a second it keeps, if it keeps about as many of each quarter of the trace
    /// but the first, and some of that.
    fn rate(&self, duration: f64) -> Option<String> {
        let mut quarters = [0u64; 4];
        for age in &self.ages {
            let quarter = (4.0 * (1.0 - age.age / duration)).clamp(0.0, 3.0);
            if let Some(blocks) = quarters.get_mut(quarter as usize) {
                *blocks = blocks.saturating_add(age.blocks);
            }
        }
        let [first, rest @ ..] = quarters;
        let (least, most) = (*rest.iter().min()?, *rest.iter().max()?);
        let is_steady = most <= least.saturating_mul(ALIKE);
        let is_some = first.min(least) >= SOME;
        (is_some && is_steady).then(|| rates(least, most, duration / 4.0))
    }
}

/// `least` to `most` in `time`, as a rate: `1.4/s`, `2.0 to 3.5/min`.
fn rates(least: u64, most: u64, time: f64) -> String {
    let per_second = least as f64 / time;
    let (factor, unit) = match per_second {
        rate if rate >= 0.1 => (1.0, "s"),
        rate if rate >= 0.1 / 60.0 => (60.0, "min"),
        _ => (3600.0, "h"),
    };
    let shown = |blocks: u64| match blocks as f64 / time * factor {
        rate if rate >= 10.0 => format!("{rate:.0}"),
        rate => format!("{rate:.1}"),
    };
    // A tenth more or less is chance.
    match most as f64 <= least as f64 * 1.2 {
        true => format!(
            "{}/{unit}",
            shown(least / 2 + most / 2 + (least % 2 + most % 2) / 2)
        ),
        false => format!("{} to {}/{unit}", shown(least), shown(most)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(ages: &[(f64, u64)], seen: Option<f64>, duration: f64, mode: Mode) -> Option<String> {
        let ages = ages.iter().map(|&(age, blocks)| Age {
            age,
            blocks,
            bytes: blocks,
        });
        let mut evidence = Evidence::default();
        evidence.add(&Site {
            ages: ages.collect(),
            seen,
            ..Site::default()
        });
        evidence.growth(duration, mode)?.text
    }

    #[test]
    fn ages_say_what_they_prove() {
        use Mode::{Attach, Run};
        let quarters = |blocks: [u64; 4]| {
            let ages = [55.0, 40.0, 25.0, 5.0].into_iter().zip(blocks);
            ages.filter(|(_, blocks)| *blocks > 0).collect::<Vec<_>>()
        };
        for (ages, seen, mode, expected) in [
            (
                quarters([21, 21, 21, 21]),
                None,
                Attach,
                "growing: 1.4/s in each quarter",
            ),
            (
                quarters([900, 10, 12, 14]),
                None,
                Run,
                "growing: 0.7 to 0.9/s in each quarter",
            ),
            (
                quarters([3, 3, 3, 3]),
                None,
                Run,
                "growing: 0.2/s in each quarter",
            ),
            (quarters([20, 10, 2, 0]), None, Run, "-"),
            (quarters([1, 3, 9, 27]), None, Run, "-"),
            (quarters([2, 2, 2, 2]), None, Run, "-"),
            // It may have begun late.
            (vec![(12.0, 5), (1.0, 5)], None, Run, "-"),
            (vec![(12.0, 5), (1.0, 5)], Some(50.0), Run, "-"),
            (
                vec![(12.0, 5), (1.0, 5)],
                Some(4.0),
                Run,
                "turns over: none older than 12 s of 60 s",
            ),
            (
                vec![(59.0, 5), (57.0, 5)],
                None,
                Attach,
                "stopped after 3.0 s",
            ),
            (
                vec![(59.9, 5), (59.8, 5)],
                None,
                Run,
                "start-up: none is of later than 0.2 s",
            ),
            (vec![], None, Run, "-"),
        ] {
            let found = growth(&ages, seen, 60.0, mode);
            assert_eq!(found.as_deref().unwrap_or("-"), expected, "{ages:?}");
        }
        let long = quarters([3, 3, 3, 3]);
        let long: Vec<_> = long
            .iter()
            .map(|(age, blocks)| (age * 60.0, *blocks))
            .collect();
        let found = growth(&long, None, 3600.0, Attach);
        assert_eq!(found.as_deref(), Some("growing: 0.2/min in each quarter"));
        assert_eq!(growth(&[(0.5, 9)], None, 1.0, Run), None);
    }
}
