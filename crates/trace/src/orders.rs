//! When to let the target go: what leaktap was told on the command line, and what signals tell it.

use std::time::{Duration, Instant};

use leaktap_tracee::{Signal, Wakeups};

use crate::job::Job;
use crate::target::Target;

/// Ctrl-C so often in a row ends the trace of a program that it does not end.
const INTERRUPTS: u32 = 3;

/// In a row are those that come within so long of the one before.
const IN_A_ROW: Duration = Duration::from_secs(5);

/// When to let the target go.
pub(crate) struct Orders<'a> {
    /// At the latest then.
    until: Option<Instant>,
    /// Signals to leaktap itself.
    wakeups: &'a Wakeups,
    /// What such a signal means.
    pub(crate) on_signal: OnSignal,
    /// When stops take more of the target's time, in percent.
    pub(crate) max_overhead: Option<u8>,
    /// Whether SIGTERM has been passed on.
    has_passed_on: bool,
    interrupts: InARow,
    job: Job,
}

/// What a signal to leaktap means while it traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnSignal {
    /// Detach and report.
    Detach,
    /// SIGINT, SIGQUIT and SIGHUP reach the program by themselves, from the terminal; SIGTERM is
    /// passed on to it once, and the second one detaches. So does Ctrl-C again and again. When
    /// Ctrl-Z stops the program, leaktap stops with it.
    PassOn,
}

impl<'a> Orders<'a> {
    /// Until then, or a signal.
    pub(crate) fn new(
        until: Option<Instant>,
        wakeups: &'a Wakeups,
        on_signal: OnSignal,
        max_overhead: Option<u8>,
    ) -> Orders<'a> {
        Orders {
            until,
            wakeups,
            on_signal,
            max_overhead,
            has_passed_on: false,
            interrupts: InARow::default(),
            job: Job::default(),
        }
    }

    /// Whether the time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Whether a signal to leaktap ends the trace; passes on to `target` what is meant for that.
    pub(crate) fn is_told_to_end(&mut self, target: &mut Target) -> bool {
        let Some(signal) = self.wakeups.take() else {
            return false;
        };
        match (self.on_signal, signal) {
            // From others it means nothing: leaktap runs.
            (OnSignal::Detach, Signal::CONT) => {
                let was_stopped = target.is_guarded_by(self.wakeups.continued_by());
                was_stopped.then(|| target.note_stopped()).is_some()
            }
            (OnSignal::Detach, _) => true,
            (OnSignal::PassOn, Signal::TERM) if self.has_passed_on => true,
            (OnSignal::PassOn, Signal::TERM) => {
                self.has_passed_on = true;
                target.send(Signal::TERM);
                false
            }
            (OnSignal::PassOn, Signal::INT) if self.interrupts.add(Instant::now()) => {
                target.note_interrupts(INTERRUPTS);
                true
            }
            (OnSignal::PassOn, Signal::TSTP | Signal::TTIN | Signal::TTOU | Signal::CONT) => {
                self.job.tell(signal, Instant::now());
                false
            }
            (OnSignal::PassOn, _) => false,
        }
    }

    /// The program is stopped, or no longer traced: stops leaktap with it, if the job is to stop.
    pub(crate) fn stop_with_job(&mut self) {
        if let Some(signal) = self.job.stops_by(Instant::now()) {
            self.wakeups.stop_by(signal);
        }
    }
}

/// Counts what comes again and again.
#[derive(Default)]
struct InARow {
    count: u32,
    last: Option<Instant>,
}

impl InARow {
    /// One more, now; true if these are enough.
    fn add(&mut self, now: Instant) -> bool {
        let goes_on = self.last.is_some_and(|last| now - last <= IN_A_ROW);
        self.count = if goes_on { self.count + 1 } else { 1 };
        self.last = Some(now);
        self.count >= INTERRUPTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_in_a_row_are_enough() {
        let begun = Instant::now();
        let mut row = InARow::default();
        let at = [0, 4, 12, 17, 22].map(|second| begun + Duration::from_secs(second));
        assert_eq!(
            at.map(|now| row.add(now)),
            [false, false, false, false, true]
        );
    }
}
