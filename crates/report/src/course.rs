//! What the ages and numbers of blocks prove of how a site grows.

use crate::counts::{Point, Trace, rates};
use crate::numbers::seconds;
use crate::{Age, Course, Growth, Mode, Site, Trend};

/// Traces that are shorter tell nothing: ages are exact to 20 ms, and programs begin somehow.
const SHORTEST: f64 = 2.0;

/// Blocks in each quarter of a trace that are no accident.
const SOME: u64 = 3;

/// How much more one quarter may have than another, if both have about as many.
const ALIKE: f64 = 4.0;

/// Most sites whose trend is told: a trace has fewer that have a series, a forged capture may have
/// thousands, and each takes its time.
const MOST_TRENDS: usize = 1000;

/// What is known of the blocks of a site, or of a group of these.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    ages: Vec<Age>,
    seen: Option<f64>,
    /// At each look.
    counts: Vec<u64>,
    /// Bytes at each moment of the series, where those of all its sites are known.
    series: Vec<Option<u64>>,
    sites: usize,
}

impl Evidence {
    /// That of one site.
    pub(crate) fn of(site: &Site) -> Evidence {
        let mut evidence = Evidence::default();
        evidence.add(site);
        evidence
    }

    /// Of another site, too.
    pub(crate) fn add(&mut self, site: &Site) {
        self.ages.extend(&site.ages);
        let seen = self.seen.into_iter().chain(site.seen);
        self.seen = seen.reduce(f64::min);
        let length = self.counts.len().max(site.counts.len());
        self.counts.resize(length, 0);
        for (count, more) in self.counts.iter_mut().zip(&site.counts) {
            *count = count.saturating_add(*more);
        }
        match self.sites {
            0 => self.series.clone_from(&site.series),
            _ => {
                let more = site.series.iter().copied();
                let mut more = more.chain(std::iter::repeat(None));
                for bytes in &mut self.series {
                    let sum = bytes.zip(more.next().flatten());
                    *bytes = sum.map(|(one, other)| one.saturating_add(other));
                }
            }
        }
        self.sites += 1;
    }

    /// Bytes at each moment of the series; empty if none are known.
    pub(crate) fn series(self) -> Vec<Option<u64>> {
        match self.series.iter().any(Option::is_some) {
            true => self.series,
            false => Vec::new(),
        }
    }

    /// What it proves of `trace`, if anything.
    pub(crate) fn growth(&self, trace: &Trace) -> Option<Growth> {
        let duration = trace.duration;
        let ages = |pick: fn(f64, f64) -> f64| self.ages.iter().map(|age| age.age).reduce(pick);
        let (youngest, oldest) = (ages(f64::min)?, ages(f64::max)?);
        if duration < SHORTEST {
            return None;
        }
        let last = (duration - youngest).max(0.0);
        let first = duration - oldest;
        let is_replaced = self.seen.is_some_and(|seen| seen < first);
        if last <= duration / 10.0 && trace.mode == Mode::Run {
            let text = format!("start-up: none is of later than {}", seconds(last));
            return Some(proven(Course::StartUp, text));
        }
        if last <= duration / 2.0 {
            let text = format!("stopped after {}", seconds(last));
            return Some(proven(Course::Stopped, text));
        }
        if oldest <= duration / 2.0 && is_replaced {
            let (oldest, all) = (seconds(oldest), seconds(duration));
            let text = format!("turns over: none older than {oldest} of {all}");
            return Some(proven(Course::TurnsOver, text));
        }
        self.full(trace).or_else(|| self.growing(trace, first))
    }

    /// Whether it grows.
    pub(crate) fn is_growing(&self, trace: &Trace) -> bool {
        self.growth(trace).as_ref().is_some_and(is_growth)
    }

    /// It keeps as many blocks as are freed, a second, in each quarter but the first.
    fn replaces(&self, freed: [f64; 3], trace: &Trace) -> bool {
        let points = trace.points(0.0, &self.counts, self.blocks());
        points.is_some_and(|points| {
            let mut pairs = rates(&points).into_iter().zip(freed);
            pairs.all(|(kept, freed)| freed >= kept * 0.8 && freed <= kept * 1.25)
        })
    }

    /// Since the middle of the trace, or since its last quarter, it had as many blocks at each
    /// look, though some of those that it had then were freed.
    fn full(&self, trace: &Trace) -> Option<Growth> {
        let [_, middle, late, _] = trace.points(0.0, &self.counts, self.blocks())?;
        if self.may_leak_a_few(trace) {
            return None;
        }
        // In less time more has to be replaced, to be no accident.
        let some = late.blocks / 8;
        self.full_since(middle, SOME, trace)
            .or_else(|| self.full_since(late, some.max(SOME), trace))
    }

    /// Of many blocks that live for a short time a few stay: what is left of each of the first
    /// three quarters is few beside the last.
    fn may_leak_a_few(&self, trace: &Trace) -> bool {
        let quarter = trace.duration / 4.0;
        let of = |number: f64| self.blocks_from(number * quarter, (number + 1.0) * quarter, trace);
        let before = [of(0.0), of(1.0), of(2.0)];
        let most = before.iter().copied().max().unwrap_or_default();
        before.iter().all(|blocks| *blocks > 0) && of(3.0) > most.saturating_mul(4)
    }

    fn full_since(&self, start: Point, some: u64, trace: &Trace) -> Option<Growth> {
        let kept = self.blocks_from(0.0, start.at, trace);
        let replaced = start.blocks.saturating_sub(kept);
        // Some were just being replaced when somebody looked.
        let moving = (4 + start.blocks.min(replaced) / 100).min(start.blocks / 10);
        let most = start.blocks.saturating_add(moving);
        let least = start.blocks - start.blocks / 10;
        let mut later = trace.later(start.at, &self.counts).peekable();
        let is_seen = later.peek().is_some();
        let is_level = later
            .chain([self.blocks()])
            .all(|blocks| (least..=most).contains(&blocks));
        (replaced >= some && is_seen && is_level).then(|| {
            let at = seconds(start.at);
            let text = format!("full: as many as at {at}, {replaced} of these are replaced");
            proven(Course::Full, text)
        })
    }

    /// Blocks are left of each quarter of the trace, or of the time since the first one; and as
    /// far as that was seen, there were more of them at the end of each.
    fn growing(&self, trace: &Trace, first: f64) -> Option<Growth> {
        let duration = trace.duration;
        let is_late = first > duration / 8.0 && self.seen.is_some_and(|seen| seen >= first);
        let begin = if is_late { first } else { 0.0 };
        let time = duration - begin;
        if time < SHORTEST || time < duration / 4.0 {
            return None;
        }
        let quarter = time / 4.0;
        let of = |number: f64| {
            let start = begin + number * quarter;
            self.blocks_from(start, start + quarter, trace)
        };
        let rest = [of(1.0), of(2.0), of(3.0)];
        let by_age = rest.map(|blocks| blocks as f64 / quarter);
        let points = trace.points(begin, &self.counts, self.blocks());
        let rates = points.map_or(by_age, |points| rates(&points));
        let (least, most) = (
            rates.iter().copied().reduce(f64::min)?,
            rates.iter().copied().reduce(f64::max)?,
        );
        let is_some = of(0.0) >= SOME && rest.iter().all(|blocks| *blocks >= SOME);
        let is_steady = least > 0.0 && most <= least * ALIKE;
        (is_some && is_steady).then(|| {
            let since = match is_late {
                true => format!("since {}", seconds(begin)),
                false => "in each quarter".to_owned(),
            };
            let text = format!("growing: {} {since}", range(least, most));
            Growth {
                bytes_per_second: Some(self.bytes_from(begin + quarter, trace) / (time - quarter)),
                ..proven(Course::Growing, text)
            }
        })
    }

    fn blocks(&self) -> u64 {
        let blocks = self.ages.iter().map(|age| age.blocks);
        blocks.fold(0, u64::saturating_add)
    }

    /// Bytes of those that were made since.
    fn bytes_from(&self, start: f64, trace: &Trace) -> f64 {
        let is_later = |age: &&Age| trace.duration - age.age >= start;
        let bytes = self.ages.iter().filter(is_later).map(|age| age.bytes);
        bytes.fold(0, u64::saturating_add) as f64
    }

    /// Those that were made in that time.
    fn blocks_from(&self, start: f64, end: f64, trace: &Trace) -> u64 {
        let is_last = end >= trace.duration;
        let is_within = |age: &&Age| {
            let made = (trace.duration - age.age).max(0.0);
            made >= start && (made < end || is_last)
        };
        let blocks = self.ages.iter().filter(is_within).map(|age| age.blocks);
        blocks.fold(0, u64::saturating_add)
    }
}

/// What is proven of each of these, which are all that there is in `trace`.
///
/// A cache that was full before frees a block from before for each new one, and looks like growth.
/// If it is one of them alone that keeps as many as are freed, it is told to be full. If the
/// process has no more blocks than before, none of them is told to grow.
pub(crate) fn growths<'e>(
    all: impl Iterator<Item = &'e Evidence>,
    trace: &Trace,
) -> Vec<Option<Growth>> {
    let all: Vec<_> = all.collect();
    let mut left = MOST_TRENDS;
    let growths = patterns(&all, trace).into_iter().zip(all);
    let growths = growths.map(|(growth, one)| {
        let trend = (left > 0).then(|| trace.trend(&one.series)).flatten();
        left -= usize::from(trend.is_some());
        with_trend(growth, trend)
    });
    growths.collect()
}

/// A trend says how fast, and how likely that is no chance; never that something grows.
fn with_trend(growth: Option<Growth>, trend: Option<Trend>) -> Option<Growth> {
    let Some(trend) = trend else {
        return growth;
    };
    Some(Growth {
        bytes_per_second: Some(trend.per_second),
        p: Some(trend.p),
        pattern: growth.as_ref().and_then(|growth| growth.pattern),
        text: growth.and_then(|growth| growth.text),
    })
}

/// What is proven of each.
fn patterns(all: &[&Evidence], trace: &Trace) -> Vec<Option<Growth>> {
    let mut growths: Vec<_> = all.iter().map(|one| one.growth(trace)).collect();
    let Some(freed) = trace.freed().filter(|_| trace.mode == Mode::Attach) else {
        return growths;
    };
    let mut growing: Vec<_> = (all.iter().zip(&mut growths))
        .filter(|(_, growth)| growth.as_ref().is_some_and(is_growth))
        .collect();
    let mut replacing: Vec<_> = growing
        .iter_mut()
        .filter(|(one, _)| one.replaces(freed, trace))
        .collect();
    if let [(_, growth)] = &mut replacing[..] {
        let rate = freed.iter().sum::<f64>() / 3.0;
        let text = format!(
            "full: {} are new, and as many from before are freed",
            range(rate, rate)
        );
        **growth = Some(proven(Course::Full, text));
    } else if trace.is_flat(SOME) {
        for (_, growth) in growing {
            *growth = None;
        }
    }
    growths
}

fn is_growth(growth: &Growth) -> bool {
    growth.pattern == Some(Course::Growing)
}

fn proven(pattern: Course, text: String) -> Growth {
    Growth {
        bytes_per_second: None,
        p: None,
        pattern: Some(pattern),
        text: Some(text),
    }
}

/// From `least` to `most` blocks a second: `1.4/s`, `2.0 to 3.5/min`.
fn range(least: f64, most: f64) -> String {
    let (factor, unit) = match least {
        rate if rate >= 0.1 => (1.0, "s"),
        rate if rate >= 0.1 / 60.0 => (60.0, "min"),
        _ => (3600.0, "h"),
    };
    let shown = |rate: f64| match rate * factor {
        rate if rate >= 10.0 => format!("{rate:.0}"),
        rate => format!("{rate:.1}"),
    };
    // A tenth more or less is chance.
    match most <= least * 1.2 {
        true => format!("{}/{unit}", shown(least.midpoint(most))),
        false => format!("{} to {}/{unit}", shown(least), shown(most)),
    }
}

#[cfg(test)]
#[path = "course_tests.rs"]
mod tests;
