//! How much of the target's time goes by while leaktap has one of its threads stopped to count a
//! call, and when that is too much.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is added up before it is judged.
const PERIOD: Duration = Duration::from_millis(100);

/// So many periods are judged together: the last second.
const PERIODS: usize = 10;

/// What the kernel takes to stop a thread, wake leaktap, and let the thread go on: measured, 3 to 5
/// µs.
const SWITCHES: Duration = Duration::from_micros(3);

/// Adds up the stops of a trace.
pub(crate) struct Overhead {
    /// Percent of the time; nothing if stops may take what they take.
    limit: Option<u8>,
    /// When the present period began, and how long threads were stopped in it.
    begun: Instant,
    stopped: Duration,
    /// How long each of the last periods took, and how long threads were stopped in it.
    past: VecDeque<(Duration, Duration)>,
}

impl Overhead {
    /// With a limit in percent, if there is one.
    pub(crate) fn new(limit: Option<u8>, now: Instant) -> Overhead {
        Overhead {
            limit,
            begun: now,
            stopped: Duration::ZERO,
            past: VecDeque::new(),
        }
    }

    /// The present time, unless nobody wants to know how long stops take.
    pub(crate) fn begin(&self) -> Option<Instant> {
        self.limit.map(|_| Instant::now())
    }

    /// A thread was stopped from `begun` on, until now.
    pub(crate) fn add(&mut self, begun: Option<Instant>) {
        if let Some(begun) = begun {
            self.stopped += begun.elapsed() + SWITCHES;
        }
    }

    /// The share of the last second that stops took, in percent, and the limit; nothing unless it
    /// is above that.
    pub(crate) fn excess(&mut self, now: Instant) -> Option<(u8, u8)> {
        let limit = self.limit?;
        let took = now.saturating_duration_since(self.begun);
        if took < PERIOD {
            return None;
        }
        self.past.push_back((took, self.stopped));
        if self.past.len() > PERIODS {
            self.past.pop_front();
        }
        (self.begun, self.stopped) = (now, Duration::ZERO);
        let time: Duration = self.past.iter().map(|period| period.0).sum();
        // Before the trace, the target ran without a stop: a burst of calls just then is no
        // slowdown.
        let time = time.max(PERIOD * PERIODS as u32);
        let stopped: Duration = self.past.iter().map(|period| period.1).sum();
        let share = stopped.as_secs_f64() / time.as_secs_f64();
        // What the switches take is estimated: no more than all of the time.
        let percent = 100.0 * share.min(1.0);
        (percent > f64::from(limit)).then_some((percent as u8, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// What each period of 100 ms says, of which so many ms were stops.
    fn judged(limit: u8, periods: &[u32]) -> Vec<Option<u8>> {
        let mut now = Instant::now();
        let mut overhead = Overhead::new(Some(limit), now);
        let each = periods.iter().map(|&stopped| {
            overhead.stopped = stopped * MS;
            assert_eq!(overhead.excess(now + 99 * MS), None);
            now += PERIOD;
            overhead.excess(now).map(|(percent, _)| percent)
        });
        each.collect()
    }

    #[test]
    fn the_last_second_is_judged() {
        assert_eq!(judged(10, &[50, 50, 2]), [None, None, Some(10)]);
        assert_eq!(judged(10, &[100, 100]), [None, Some(20)]);
        let mut idle = vec![0; 10];
        idle.extend([50, 40, 30]);
        let mut expected = vec![None; 12];
        expected.push(Some(12));
        assert_eq!(judged(10, &idle), expected);
        // All of the time is never too much for 100.
        assert_eq!(judged(100, &[100, 130]), [None, None]);
    }

    #[test]
    fn without_a_limit_nothing_is_too_much() {
        let now = Instant::now();
        let mut overhead = Overhead::new(None, now);
        assert_eq!(overhead.begin(), None);
        overhead.stopped = Duration::from_secs(1);
        assert_eq!(overhead.excess(now + PERIOD), None);
    }
}
