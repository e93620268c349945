//! How much of the shared memory is a process's own share: read only as often as that costs little.

use std::time::Duration;

use leaktap_memory::PAGE;
use procfs::process::Process as ProcInfo;

use crate::cost::processor_time;

/// The time between two reads, in times of what one takes: a thousandth of the time is read.
const TIMES: u32 = 1000;

/// What a resident page costs, before anything has been read: the kernel looks at each.
const OF_PAGE: Duration = Duration::from_nanos(128);

/// What takes longer is never read: as long, no thread of the process can map memory.
const LONGEST: Duration = Duration::from_millis(20);

/// When it was read, and what that took.
#[derive(Debug, Default)]
pub(super) struct Pss {
    next: Option<Duration>,
}

impl Pss {
    /// The proportional set size of a process with so many resident bytes, if it is time to read
    /// it.
    pub(super) fn read(&mut self, now: Duration, process: &ProcInfo, rss: u64) -> Option<u64> {
        let pages = u32::try_from(rss / PAGE).unwrap_or(u32::MAX);
        let cost = OF_PAGE.saturating_mul(pages);
        let next = self.next.unwrap_or(cost.saturating_mul(TIMES));
        if cost > LONGEST || now < next {
            return None;
        }
        let begun = processor_time();
        let rollup = process.smaps_rollup();
        let cost = processor_time().saturating_sub(begun);
        self.next = Some(now.saturating_add(cost.saturating_mul(TIMES)));
        let all = rollup.ok()?.memory_map_rollup;
        all.iter().next()?.extension.map.get("Pss").copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_seldom() {
        let own = ProcInfo::myself().unwrap();
        let mut pss = Pss::default();
        let seconds = Duration::from_secs;
        assert_eq!(
            pss.read(seconds(9), &own, 1 << 30),
            None,
            "never of so much"
        );
        assert_eq!(pss.read(Duration::ZERO, &own, 64 << 20), None, "not yet");
        assert!(pss.read(seconds(9), &own, 64 << 20) > Some(0));
        assert_eq!(pss.read(seconds(9), &own, 64 << 20), None, "not again");
        assert!(pss.read(seconds(3600), &own, 64 << 20) > Some(0));
    }
}
