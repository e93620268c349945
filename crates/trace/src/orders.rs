//! What to do when: what leaktap was told on the command line, and what signals tell it.

use std::time::{Duration, Instant};

use leaktap_tracee::{Signal, Wakeups};

use crate::job::Job;
use crate::settings::Settings;
use crate::target::Target;
use crate::tracing::Traced;

/// Ctrl-C so often in a row ends the trace of a program that it does not end.
const INTERRUPTS: u32 = 3;

/// In a row are those that come within so long of the one before.
const IN_A_ROW: Duration = Duration::from_secs(5);

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Let all go, and report.
    End,
    /// Report, and go on.
    Report,
    /// Leave out what is there.
    Baseline,
    /// Leave out what comes from now on.
    Drain,
}

/// What to do when.
pub(crate) struct Orders<'a> {
    /// By the clock, what comes first at the end.
    due: Vec<(Instant, Order)>,
    /// Again and again after so long.
    every: Option<Duration>,
    /// Signals to leaktap itself.
    wakeups: &'a Wakeups,
    /// What such a signal means.
    on_signal: OnSignal,
    /// Whether SIGTERM has been passed on.
    has_passed_on: bool,
    interrupts: InARow,
    job: Job,
}

/// What a signal to leaktap means while it traces. SIGUSR1 asks for a report, SIGUSR2 to leave out
/// what is there.
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
    /// By `settings`, from now on.
    pub(crate) fn new(
        settings: &Settings,
        wakeups: &'a Wakeups,
        on_signal: OnSignal,
    ) -> Orders<'a> {
        let now = Instant::now();
        let end = settings.duration.and_then(|duration| {
            let drain = settings.drain.unwrap_or_default();
            duration.checked_add(drain)
        });
        let drains = settings.drain.and(settings.duration);
        let due = [
            (end, Order::End),
            (drains, Order::Drain),
            (settings.baseline_after, Order::Baseline),
            (settings.every, Order::Report),
        ];
        let due = due.into_iter();
        let due = due.filter_map(|(after, order)| Some((now.checked_add(after?)?, order)));
        let mut orders = Orders {
            due: due.collect(),
            every: settings.every,
            wakeups,
            on_signal,
            has_passed_on: false,
            interrupts: InARow::default(),
            job: Job::default(),
        };
        orders.sort();
        orders
    }

    fn sort(&mut self) {
        self.due.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    }

    /// What is to be done now, if anything. Passes on to the first of `processes` what is meant for
    /// that.
    pub(crate) fn next(&mut self, processes: &mut [Traced]) -> Option<Order> {
        self.by_signal(processes).or_else(|| self.by_clock())
    }

    fn by_clock(&mut self) -> Option<Order> {
        let now = Instant::now();
        let (_, order) = self.due.pop_if(|(at, _)| now >= *at)?;
        Some(order)
    }

    /// A report has been made: the next one is due that long after it.
    pub(crate) fn have_reported(&mut self) {
        let next = self
            .every
            .and_then(|every| Instant::now().checked_add(every));
        self.due.retain(|(_, order)| *order != Order::Report);
        self.due.extend(next.map(|next| (next, Order::Report)));
        self.sort();
    }

    fn by_signal(&mut self, processes: &mut [Traced]) -> Option<Order> {
        match (self.on_signal, self.wakeups.take()?) {
            (_, Signal::USR1) => Some(Order::Report),
            (_, Signal::USR2) => Some(Order::Baseline),
            // From others it means nothing: leaktap runs.
            (OnSignal::Detach, Signal::CONT) => {
                let guard = self.wakeups.continued_by();
                let mut guarded = processes.iter_mut().map(|traced| &mut traced.target);
                let continued = guarded.find(|target| target.is_guarded_by(guard));
                continued.map(Target::note_stopped).map(|()| Order::End)
            }
            (OnSignal::Detach, _) => Some(Order::End),
            (OnSignal::PassOn, Signal::TERM) if self.has_passed_on => Some(Order::End),
            (OnSignal::PassOn, Signal::TERM) => {
                self.has_passed_on = true;
                if let Some(first) = processes.first() {
                    first.target.send(Signal::TERM);
                }
                None
            }
            (OnSignal::PassOn, Signal::INT) if self.interrupts.add(Instant::now()) => {
                if let Some(first) = processes.first_mut() {
                    first.target.note_interrupts(INTERRUPTS);
                }
                Some(Order::End)
            }
            (
                OnSignal::PassOn,
                signal @ (Signal::TSTP | Signal::TTIN | Signal::TTOU | Signal::CONT),
            ) => {
                self.job.tell(signal, Instant::now());
                None
            }
            (OnSignal::PassOn, _) => None,
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
