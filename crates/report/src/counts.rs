//! How many blocks there were at moments of a trace.

use crate::{Heap, Look, Mode, Report, Trend, trend};

/// What was seen of a trace, beside its sites.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    /// How long it took.
    pub(crate) duration: f64,
    /// How the process came under leaktap.
    pub(crate) mode: Mode,
    looks: Vec<Look>,
    series_at: Vec<f64>,
    /// What there was at its end.
    end: Look,
}

/// A number of blocks at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) at: f64,
    pub(crate) blocks: u64,
}

impl Trace {
    /// That of `report`.
    pub(crate) fn of(report: &Report) -> Trace {
        let heaps: Vec<_> = match report.families.is_empty() {
            true => vec![&report.totals.heap],
            false => report.families.iter().map(|family| &family.heap).collect(),
        };
        let sum = |of: fn(&Heap) -> u64| {
            let all = heaps.iter().map(|heap| of(heap));
            all.fold(0, u64::saturating_add)
        };
        Trace {
            duration: report.duration,
            mode: report.mode,
            looks: report.looks.clone(),
            series_at: report.series_at.clone(),
            end: Look {
                at: report.duration,
                live_blocks: sum(|heap| heap.live_blocks),
                unmatched_frees: sum(|heap| heap.unmatched_frees),
            },
        }
    }

    /// The numbers of blocks at about the ends of the four quarters since `begin`, the last being
    /// `now`: of each look `counts` has one, or none if all are 0. None if nobody has looked then.
    pub(crate) fn points(&self, begin: f64, counts: &[u64], now: u64) -> Option<[Point; 4]> {
        let quarter = (self.duration - begin) / 4.0;
        let point = |number: f64| {
            let at = begin + number * quarter;
            let distance = |look: &Look| (look.at - at).abs();
            let looks = self.looks.iter().enumerate();
            let nearest = looks.min_by(|(_, a), (_, b)| distance(a).total_cmp(&distance(b)));
            let (number, look) = nearest.filter(|(_, look)| distance(look) <= quarter / 2.0)?;
            let blocks = counts.get(number).copied().unwrap_or_default();
            let at = look.at;
            Some(Point { at, blocks })
        };
        let at = self.duration;
        let end = Point { at, blocks: now };
        let points = [point(1.0)?, point(2.0)?, point(3.0)?, end];
        points.is_sorted_by(|a, b| a.at < b.at).then_some(points)
    }

    /// What the bytes of a site at each moment of a series tell.
    pub(crate) fn trend(&self, series: &[Option<u64>]) -> Option<Trend> {
        let points = self.series_at.iter().zip(series);
        let points = points.filter_map(|(at, bytes)| Some((*at, (*bytes)? as f64)));
        trend(&points.collect::<Vec<_>>())
    }

    /// What `counts` has of each look since then.
    pub(crate) fn later(&self, since: f64, counts: &[u64]) -> impl Iterator<Item = u64> {
        let looks = self.looks.iter().zip(counts);
        let later = looks.filter(move |(look, _)| look.at > since);
        later.map(|(_, count)| *count)
    }

    /// How many blocks from before the trace were freed a second, in each quarter but the first.
    pub(crate) fn freed(&self) -> Option<[f64; 3]> {
        let counts = self.looks.iter().map(|look| look.unmatched_frees);
        let counts: Vec<_> = counts.collect();
        let points = self.points(0.0, &counts, self.end.unmatched_frees)?;
        Some(rates(&points))
    }

    /// Whether the process kept fewer than `some` blocks more, in each of these quarters, than were
    /// freed of those from before.
    pub(crate) fn is_flat(&self, some: u64) -> bool {
        // The end's are the most that there are.
        let most = self.end.unmatched_frees;
        let net = |look: &Look| {
            let live = look.live_blocks.saturating_add(most);
            live.saturating_sub(look.unmatched_frees)
        };
        let counts: Vec<_> = self.looks.iter().map(net).collect();
        let points = self.points(0.0, &counts, net(&self.end));
        points.is_some_and(|points| {
            let mut pairs = points.iter().zip(points.iter().skip(1));
            pairs.all(|(from, to)| to.blocks < from.blocks.saturating_add(some))
        })
    }
}

/// How many blocks a second more there are from each point to the next.
pub(crate) fn rates([a, b, c, d]: &[Point; 4]) -> [f64; 3] {
    let rate =
        |from: &Point, to: &Point| (to.blocks as f64 - from.blocks as f64) / (to.at - from.at);
    [rate(a, b), rate(b, c), rate(c, d)]
}
