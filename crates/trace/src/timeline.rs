//! How memory changes in the course of a trace.

mod pss;

use std::time::Duration;

use leaktap_report::Moment;
use leaktap_tracee::Tid;
use procfs::process::Process as ProcInfo;

use self::pss::Pss;
use crate::result::in_seconds;

/// Most moments that are kept. When there are as many, every other one goes, and they come half as
/// often from then on.
const MOST: usize = 512;

/// Moments of a trace, so far apart.
#[derive(Debug)]
pub(crate) struct TimeLine {
    interval: Duration,
    next: Duration,
    moments: Vec<Moment>,
    pss: Pss,
}

/// Blocks that are live, and what it takes to count them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Live {
    pub(crate) bytes: u64,
    pub(crate) blocks: u64,
    /// Bytes of the memory that the process shares with us.
    pub(crate) agent: u64,
}

impl TimeLine {
    /// A moment every `interval`, from the first on.
    pub(crate) fn new(interval: Duration) -> TimeLine {
        TimeLine {
            interval,
            next: Duration::ZERO,
            moments: Vec::new(),
            pss: Pss::default(),
        }
    }

    /// Whether the next moment has come, that long after the beginning.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now >= self.next
    }

    /// Notes what `process` has in memory, if it can be asked, and what of it is `live`.
    pub(crate) fn note(&mut self, now: Duration, process: Tid, live: Live) {
        if self.moments.len() == MOST {
            self.thin();
        }
        self.next = now.saturating_add(self.interval);
        let Ok(info) = ProcInfo::new(process.living_thread().get()) else {
            return; // it has ended
        };
        let kilobytes = |value: Option<u64>| Some(value?.saturating_mul(1024));
        let Ok(status) = info.status() else {
            return;
        };
        let Some(rss) = kilobytes(status.vmrss) else {
            return; // it has no memory any longer
        };
        self.moments.push(Moment {
            at: in_seconds(now),
            live_bytes: live.bytes,
            live_blocks: live.blocks,
            rss,
            agent: live
                .agent
                .min(kilobytes(status.rssshmem).unwrap_or_default()),
            pss: self.pss.read(now, &info, rss),
            vm_data: kilobytes(status.vmdata).unwrap_or_default(),
            vm_size: kilobytes(status.vmsize).unwrap_or_default(),
        });
    }

    /// Likewise at the end, if the last moment is not of just before.
    pub(crate) fn end(&mut self, now: Duration, process: Tid, live: Live) {
        let last = self.moments.last().map_or(0.0, |moment| moment.at);
        if in_seconds(now) - last >= in_seconds(self.interval) / 4.0 {
            // It is a moment beside the others: these come when they would have come.
            let next = self.next;
            self.note(now, process, live);
            self.next = next;
        }
    }

    fn thin(&mut self) {
        let mut number = 0;
        self.moments.retain(|_| {
            number += 1;
            number % 2 == 1
        });
        self.interval = self.interval.saturating_mul(2);
    }

    /// The moments, in order.
    pub(crate) fn moments(&self) -> &[Moment] {
        &self.moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_thinned_when_it_has_become_long() {
        let own = Tid::new(std::process::id().cast_signed());
        let mut line = TimeLine::new(Duration::from_secs(1));
        let mut noted = 0;
        for second in 0..2000 {
            let now = Duration::from_secs(second);
            if line.is_due(now) {
                let bytes = second;
                line.note(
                    now,
                    own,
                    Live {
                        bytes,
                        ..Live::default()
                    },
                );
                noted += 1;
            }
        }
        let at: Vec<_> = line
            .moments()
            .iter()
            .map(|moment| moment.live_bytes)
            .collect();
        assert!(at.len() <= MOST && at.len() > MOST / 2, "{}", at.len());
        assert!(at.windows(2).all(|two| two[1] - two[0] == 4), "{at:?}");
        assert!(noted < 1100, "{noted}");
        assert!(line.moments().iter().all(|moment| moment.rss > 0));
        assert!(line.moments().iter().any(|moment| moment.pss > Some(0)));
    }

    #[test]
    fn the_end_is_noted_unless_it_is_just_after_a_moment() {
        let own = Tid::new(std::process::id().cast_signed());
        let mut line = TimeLine::new(Duration::from_secs(1));
        let live = Live::default();
        line.note(Duration::ZERO, own, live);
        for (at, moments) in [(200, 1), (300, 2), (400, 2), (2000, 3)] {
            line.end(Duration::from_millis(at), own, live);
            assert_eq!(line.moments().len(), moments, "{at}");
        }
    }
}
