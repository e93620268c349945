//! A process may be in the middle of something: it is looked at again, within bounds.

use std::time::{Duration, Instant};
use std::{mem, thread};

use leaktap_tracee::Wakeups;

use crate::error::Error;

/// Between two looks. The process runs meanwhile.
const PAUSE: Duration = Duration::from_millis(2);

/// The reasons may change for so long.
const LONGEST: Duration = Duration::from_secs(8);

/// Tries `attempt` until it succeeds, or fails for a reason that does not pass within its time. A
/// signal to leaktap ends it, too.
pub(crate) fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let begun = Instant::now();
    let (mut since, mut before) = (begun, None);
    loop {
        let error = match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let kind = Some(mem::discriminant(&error));
        if kind != before {
            (since, before) = (Instant::now(), kind);
        }
        let is_over = since.elapsed() >= error.patience() || begun.elapsed() >= LONGEST;
        if is_over || Wakeups::is_pending() {
            return Err(error);
        }
        thread::sleep(PAUSE);
    }
}
