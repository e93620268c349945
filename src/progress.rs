//! The line on the terminal while a trace is under way.

use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use leaktap_report::printable;

/// Between two updates of the line.
const PERIOD: Duration = Duration::from_millis(200);

/// What the line shows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Now {
    /// Bytes allocated and not freed.
    pub(crate) live_bytes: u64,
    /// Allocations and frees so far.
    pub(crate) events: u64,
}

/// A progress line, or none.
pub(crate) struct Progress {
    bar: ProgressBar,
    shown: Instant,
    events: u64,
}

impl Progress {
    /// A line on standard error, which indicatif leaves out where that is no terminal.
    pub(crate) fn new(wanted: bool, what: String) -> Progress {
        let bar = if wanted {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{prefix} {elapsed_precise}  {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(printable(&what).into_owned());
        Progress {
            bar,
            shown: Instant::now(),
            events: 0,
        }
    }

    /// Updates the line if that is due.
    pub(crate) fn show(&mut self, now: impl FnOnce() -> Now) {
        let since = self.shown.elapsed();
        if self.bar.is_hidden() || since < PERIOD {
            return;
        }
        let now = now();
        let rate = (now.events - self.events) as f64 / since.as_secs_f64();
        self.bar.set_message(format!(
            "{} live, {} events/s (Ctrl-C: report)",
            HumanBytes(now.live_bytes),
            HumanCount(rate as u64),
        ));
        self.bar.tick();
        self.shown = Instant::now();
        self.events = now.events;
    }

    /// Takes the line away.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
