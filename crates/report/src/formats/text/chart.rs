//! How memory changed, as a line of blocks.

use std::io::{self, Write};

use super::Style;
use super::columns::wrapped;
use crate::numbers::bytes;
use crate::{Moment, Report};

/// Fewest moments that make a chart.
const FEWEST: usize = 5;

/// Least part of the highest value by which values differ, where there is something to see.
const LEAST: u64 = 32;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

/// Columns of a chart, at least and at most.
const NARROWEST: usize = 8;
const WIDEST: usize = 32;

/// Columns in front of a chart.
const LABEL: usize = 13;

/// Resident memory, without leaktap's, and live bytes in the course of the trace: a line each, if
/// it changed.
pub(super) fn charts(report: &Report, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let timeline = &report.timeline;
    if timeline.len() < FEWEST {
        return Ok(());
    }
    let rss = Line::of("RSS", timeline, |moment| {
        moment.rss.saturating_sub(moment.agent)
    });
    let live = Line::of("live", timeline, |moment| moment.live_bytes);
    let lines: Vec<_> = [rss, live].into_iter().flatten().collect();
    // One is below the other: a column is the same time in both.
    let words = lines.iter().map(|line| line.words.len()).max();
    let taken = LABEL + 2 + words.unwrap_or_default();
    let free = |columns: usize| columns.saturating_sub(taken);
    let room = style.width.map_or(WIDEST, free).clamp(NARROWEST, WIDEST);
    for line in lines {
        let blocks = line.blocks(timeline, room, style);
        let text = format!("  {:<11}{blocks}  {}", line.label, line.words);
        writeln!(out, "{}", wrapped(&text, LABEL, style.width))?;
    }
    Ok(())
}

/// What changes in the course of time.
struct Line {
    label: &'static str,
    of: fn(&Moment) -> u64,
    lowest: u64,
    highest: u64,
    words: String,
}

impl Line {
    /// `None` if there is nothing to see.
    fn of(label: &'static str, timeline: &[Moment], of: fn(&Moment) -> u64) -> Option<Line> {
        let values = || timeline.iter().map(of);
        let (lowest, highest) = (values().min()?, values().max()?);
        let (first, last) = (values().next()?, values().next_back()?);
        let peak = match highest > first.max(last) {
            true => format!(", highest {}", bytes(highest)),
            false => String::new(),
        };
        (highest - lowest > highest / LEAST).then(|| Line {
            label,
            of,
            lowest,
            highest,
            words: format!("{} to {}{peak}", bytes(first), bytes(last)),
        })
    }

    fn blocks(&self, timeline: &[Moment], room: usize, style: Style) -> String {
        let symbols = if style.ascii { ASCII } else { BLOCKS };
        let range = (self.highest - self.lowest) as f64;
        let values = columns(timeline, self.of, room.min(timeline.len()));
        let blocks = values.into_iter().filter_map(|value| {
            let level = (value - self.lowest) as f64 / range * 7.0;
            symbols.get(level.round() as usize)
        });
        blocks.collect()
    }
}

/// The highest value of each part of the time; of one without a moment, that of the part before.
fn columns(timeline: &[Moment], of: fn(&Moment) -> u64, number: usize) -> Vec<u64> {
    let at = |moment: Option<&Moment>| moment.map_or(0.0, |moment| moment.at);
    let (begin, end) = (at(timeline.first()), at(timeline.last()));
    let mut highest: Vec<Option<u64>> = vec![None; number];
    for moment in timeline {
        let part = (moment.at - begin) / (end - begin).max(f64::MIN_POSITIVE);
        let column = (part * number as f64) as usize;
        if let Some(value) = highest.get_mut(column.min(number - 1)) {
            *value = (*value).max(Some(of(moment)));
        }
    }
    let mut before = timeline.first().map_or(0, of);
    let filled = highest.into_iter().map(|value| {
        before = value.unwrap_or(before);
        before
    });
    filled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::text::tests::report;

    fn line_of(values: &[u64]) -> Vec<Moment> {
        let moments = (0..).zip(values).map(|(second, &value)| Moment {
            at: f64::from(second),
            live_bytes: value,
            ..Moment::default()
        });
        moments.collect()
    }

    fn drawn(values: &[u64], style: Style) -> String {
        let report = Report {
            timeline: line_of(values),
            ..report()
        };
        let mut text = Vec::new();
        charts(&report, style, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn values_are_blocks() {
        let rising: Vec<u64> = (0..8).map(|n| n * 10).collect();
        let plain = Style::default();
        assert_eq!(
            drawn(&rising, plain),
            "  live       ▁▂▃▄▅▆▇█  0 B to 70 B\n"
        );
        let ascii = Style {
            ascii: true,
            ..plain
        };
        let peak = [900, 1000, 500, 100, 200, 100];
        let expected = "  live       *#-_._  900 B to 100 B, highest 1,000 B\n";
        assert_eq!(drawn(&peak, ascii), expected);
    }

    #[test]
    fn nothing_is_drawn_of_few_moments_or_of_what_does_not_change() {
        for values in [&[0, 1, 2, 3][..], &[0; 9], &[6400, 6450, 6400, 6600, 6400]] {
            assert_eq!(drawn(values, Style::default()), "");
        }
    }

    #[test]
    fn it_is_as_wide_as_there_is_room() {
        let values: Vec<u64> = (0..512).map(|n| (n % 100) * 10_000).collect();
        for (width, chart, lines) in [(None, 32, 1), (Some(80), 30, 1), (Some(40), 8, 2)] {
            let style = Style {
                width,
                ..Style::default()
            };
            let drawn = drawn(&values, style);
            let blocks = drawn.chars().filter(|c| BLOCKS.contains(c)).count();
            assert_eq!((blocks, drawn.lines().count()), (chart, lines), "{drawn}");
            let widest = drawn.lines().map(|line| line.chars().count()).max();
            assert!(widest <= width.or(widest), "{drawn}");
        }
    }

    /// Moments that are far apart leave no gaps, and a hostile capture none either.
    #[test]
    fn times_may_be_any() {
        let mut odd = line_of(&[1, 2, 3, 4, 5]);
        odd[4].at = 1e300;
        assert_eq!(
            columns(&odd, |moment| moment.live_bytes, 5),
            [4, 4, 4, 4, 5]
        );
        for moment in &mut odd {
            moment.at = -1.0;
        }
        assert_eq!(columns(&odd, |moment| moment.live_bytes, 5), [5; 5]);
    }
}
