//! The line on the terminal while a trace is under way.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use leaktap_report::{bytes, count, printable};

use crate::terminal;

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
    is_wanted: bool,
    what: String,
    begun: Instant,
    /// When it was drawn, and the events by then.
    drawn: Option<(Instant, u64)>,
}

impl Progress {
    /// A line on standard error, if that is a terminal.
    pub(crate) fn new(is_wanted: bool, what: &str) -> Progress {
        let is_dumb = std::env::var_os("TERM").is_some_and(|kind| kind == "dumb");
        Progress {
            is_wanted: is_wanted && !is_dumb && io::stderr().is_terminal(),
            what: printable(what).into_owned(),
            begun: Instant::now(),
            drawn: None,
        }
    }

    /// Updates the line if that is due, and leaktap is not in the background.
    pub(crate) fn show(&mut self, now: impl FnOnce() -> Now) {
        let (since, events) = self.drawn.unwrap_or((self.begun, 0));
        let is_due = self.drawn.is_none() || since.elapsed() >= PERIOD;
        if !self.is_wanted || !is_due {
            return;
        }
        let hint = match terminal::is_foreground() {
            Some(true) => " (Ctrl-C: report)",
            None => "", // it does not reach us
            Some(false) => return,
        };
        let now = now();
        let rate = (now.events - events) as f64 / since.elapsed().as_secs_f64().max(0.001);
        let line = format!(
            "{} {}  {} live, {}/s{hint}",
            self.what,
            clock(self.begun.elapsed()),
            bytes(now.live_bytes),
            count(rate as u64, "event"),
        );
        draw(&line);
        self.drawn = Some((Instant::now(), now.events));
    }

    /// Takes the line away.
    pub(crate) fn finish(self) {
        if self.drawn.is_some() {
            write("\r\x1b[J");
        }
    }
}

/// Draws `line` in place of the one before. The cursor stays at its beginning: a terminal that has
/// become narrower since may have wrapped the line, and all of that is below.
fn draw(line: &str) {
    let room = terminal::width().saturating_sub(1);
    let line: String = line.chars().take(room).collect();
    // And if it has become narrower just now, or characters are wide, the line does not wrap.
    write(&format!("\r\x1b[J\x1b[?7l{line}\x1b[?7h\r"));
}

fn write(text: &str) {
    // Where nobody can read it, the trace goes on.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    format!("{hours:02}:{:02}:{:02}", minutes % 60, seconds % 60)
}
