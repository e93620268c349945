//! What leaktap's own work takes.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Processor time that this thread has taken: of a difference, nothing is of others that had the
/// processor meanwhile.
pub(crate) fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
