//! When a limit will be reached.

use crate::{Forecast, Moment, trend};

/// Most likely to be chance.
const MOST_P: f64 = 0.05;

/// So many of the moments, the later ones, have to do, if they are enough to be half of all.
const ENOUGH: usize = 5;

/// What is farther away is none of today's business: a year.
const FARTHEST: f64 = 365.0 * 24.0 * 3600.0;

/// What a process may have at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it is called.
    pub name: &'static str,
    /// How many bytes.
    pub bytes: u64,
    /// How many are used.
    pub used: u64,
    /// What of the process is counted.
    pub of: Measure,
}

/// What of a process a limit is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Resident memory.
    Resident,
    /// Memory for data.
    Data,
    /// Addresses.
    Addresses,
}

impl Measure {
    fn of(self, moment: &Moment) -> u64 {
        match self {
            Measure::Resident => moment.rss.saturating_sub(moment.agent),
            Measure::Data => moment.vm_data,
            Measure::Addresses => moment.vm_size,
        }
    }
}

/// The one of `limits` that a process with this time line reaches first, if it grows on as it does
/// in the later half of that. `None` if it is not known to grow, or reaches none within a year.
pub fn forecast(timeline: &[Moment], limits: &[Limit]) -> Option<Forecast> {
    let half = timeline.len() / 2;
    let skipped = if half >= ENOUGH { half } else { 0 };
    let late: Vec<_> = timeline.iter().skip(skipped).collect();
    let forecasts = limits.iter().filter_map(|limit| reached(&late, limit));
    forecasts.min_by(|one, other| one.seconds.total_cmp(&other.seconds))
}

fn reached(moments: &[&Moment], limit: &Limit) -> Option<Forecast> {
    let points = moments.iter().map(|moment| {
        let value = limit.of.of(moment);
        (moment.at, value as f64)
    });
    let trend = trend(&points.collect::<Vec<_>>())?;
    let free = limit.bytes.checked_sub(limit.used)?;
    let seconds = free as f64 / trend.per_second;
    let is_known = trend.p < MOST_P && trend.per_second > 0.0 && seconds <= FARTHEST;
    is_known.then(|| Forecast {
        limit: limit.name.to_owned(),
        bytes: limit.bytes,
        used: limit.used,
        bytes_per_second: trend.per_second,
        p: trend.p,
        seconds: seconds.round(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn line_of(rss: impl IntoIterator<Item = u64>) -> Vec<Moment> {
        let moments = (0..).zip(rss).map(|(second, rss)| Moment {
            at: f64::from(second),
            rss: rss * MIB,
            vm_data: rss * 10 * MIB,
            ..Moment::default()
        });
        moments.collect()
    }

    fn limit(of: Measure, mib: u64) -> Limit {
        Limit {
            name: "x",
            bytes: mib * MIB,
            used: 12 * MIB,
            of,
        }
    }

    fn seconds(rss: &[u64], limits: &[Limit]) -> Option<f64> {
        let timeline = line_of(rss.iter().copied());
        forecast(&timeline, limits).map(|found| found.seconds)
    }

    #[test]
    fn a_limit_is_reached_at_the_rate_of_the_later_half() {
        let max = limit(Measure::Resident, 112);
        let steady: Vec<u64> = (0..40).collect();
        assert_eq!(seconds(&steady, &[max]), Some(100.0));
        let slower: Vec<u64> = (0..10).map(|n| n * 9).chain(90..100).collect();
        assert_eq!(seconds(&slower, &[max]), Some(100.0));
        let data = limit(Measure::Data, 512);
        assert_eq!(seconds(&steady, &[max, data]), Some(50.0));
    }

    #[test]
    fn nothing_is_said_of_what_does_not_grow_for_sure() {
        let max = limit(Measure::Resident, 112);
        let stops: Vec<u64> = (0..10).chain([10; 10]).collect();
        let falls: Vec<u64> = (0..20).rev().collect();
        let few = [1, 2, 3, 4];
        let wavers = [5, 9, 1, 8, 2, 9];
        for rss in [&stops[..], &falls, &few, &wavers] {
            assert_eq!(seconds(rss, &[max]), None, "{rss:?}");
        }
        let steady: Vec<u64> = (0..40).collect();
        assert_eq!(seconds(&steady, &[]), None);
        let is_beyond = limit(Measure::Resident, 1);
        assert_eq!(seconds(&steady, &[is_beyond]), None);
        let far = limit(Measure::Resident, 1 << 40);
        assert_eq!(seconds(&steady, &[far]), None);
    }
}
