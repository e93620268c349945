//! Waiting for what nobody announces: files of /proc, other people's processes.

use std::thread;
use std::time::{Duration, Instant};

/// Between two looks: an eighth of the time gone, within these.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));

/// Waits until `holds`; false if it does not within `limit`.
pub(crate) fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if begun.elapsed() >= limit {
            return false;
        }
        thread::sleep((begun.elapsed() / 8).clamp(PAUSES.0, PAUSES.1));
    }
}

/// Lets time go by: the moment is what a campaign varies, nothing is awaited by it.
pub(crate) fn exactly(time: Duration) {
    let end = Instant::now() + time;
    thread::sleep(time.saturating_sub(Duration::from_micros(100)));
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}
