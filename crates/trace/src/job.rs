//! leaktap and the program that it has launched are one job of a shell, which sees leaktap alone.

use std::time::{Duration, Instant};

use leaktap_tracee::Signal;

/// How long a program may take to stop after Ctrl-Z. If it takes longer, leaktap waits for the next
/// Ctrl-Z.
const STOPPING: Duration = Duration::from_secs(5);

/// What the terminal has told all of the job.
#[derive(Default)]
pub(crate) struct Job {
    /// To stop by this signal, then.
    told: Option<(Signal, Instant)>,
}

impl Job {
    /// SIGTSTP, SIGTTIN, SIGTTOU or SIGCONT has come, now.
    pub(crate) fn tell(&mut self, signal: Signal, now: Instant) {
        self.told = (signal != Signal::CONT).then_some((signal, now));
    }

    /// The program is stopped, now: the signal by which leaktap has to stop, too. None if the
    /// program alone was told.
    pub(crate) fn stops_by(&mut self, now: Instant) -> Option<Signal> {
        let (signal, told) = self.told.take()?;
        (now - told <= STOPPING).then_some(signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaktap_stops_with_the_program_if_both_were_told() {
        let now = Instant::now();
        let mut job = Job::default();
        assert_eq!(job.stops_by(now), None);
        job.tell(Signal::TSTP, now);
        assert_eq!(job.stops_by(now + STOPPING), Some(Signal::TSTP));
        assert_eq!(job.stops_by(now), None);
        job.tell(Signal::TTIN, now);
        job.tell(Signal::CONT, now);
        assert_eq!(job.stops_by(now), None);
        job.tell(Signal::TSTP, now);
        assert_eq!(job.stops_by(now + 2 * STOPPING), None);
    }
}
