//! The line on the terminal while a trace is under way.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use leaktap_report::{Report, bytes, count, printable};
use leaktap_trace::{Now, Observer, Target};

use crate::cli::{Listing, Trace};
use crate::output::Output;
use crate::terminal;

/// Between two updates of the line.
const PERIOD: Duration = Duration::from_millis(200);

/// The line that says that leaktap is attached, and a progress line after it, as far as these are
/// wanted; and reports that are asked for meanwhile.
pub(crate) struct Progress<'a> {
    output: &'a Output<'a>,
    announces: bool,
    is_wanted: bool,
    what: String,
    begun: Instant,
    /// When it was drawn, and the events by then.
    drawn: Option<(Instant, u64)>,
}

impl<'a> Progress<'a> {
    /// A line on standard error, if that is a terminal that the target does not use.
    pub(crate) fn new(trace: &Trace, listing: &Listing, output: &'a Output<'a>) -> Progress<'a> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|kind| kind == "dumb");
        let is_wanted = !trace.no_progress && !listing.quiet;
        Progress {
            output,
            announces: false,
            is_wanted: is_wanted && !is_dumb && io::stderr().is_terminal(),
            what: String::new(),
            begun: Instant::now(),
            drawn: None,
        }
    }

    /// It also says that leaktap is attached.
    pub(crate) fn announces(self, listing: &Listing) -> Progress<'a> {
        Progress {
            announces: !listing.quiet,
            ..self
        }
    }
}

impl Observer for Progress<'_> {
    fn attached(&mut self, target: &Target) {
        if self.announces {
            let stops = target.breakpoints_and_remedy();
            let stops = stops.map_or_else(String::new, |stops| format!(", {stops}"));
            // Scripts wait for this line; where nobody can read it, the trace goes on.
            let _ = writeln!(io::stderr(), "leaktap: attached to {}{stops}", target.tid());
        }
        self.is_wanted &= !terminal::is_used_by(target.tid());
        self.what = printable(&target.program_name()).into_owned();
        self.begun = Instant::now();
    }

    /// Updates the line if that is due, and leaktap is not in the background.
    fn sampled(&mut self, now: &dyn Fn() -> Now) {
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
        let rate =
            now.events.saturating_sub(events) as f64 / since.elapsed().as_secs_f64().max(0.001);
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
    fn reported(&mut self, reports: Vec<Report>) {
        self.finished();
        if let Err(error) = self.output.of_trace(reports, None) {
            let text = error.to_string();
            // As above.
            let _ = writeln!(io::stderr(), "leaktap: {}", printable(&text));
        }
    }

    fn begun_again(&mut self) {
        if self.announces {
            self.finished();
            // As above.
            let _ = writeln!(
                io::stderr(),
                "leaktap: what is there now will not be listed"
            );
        }
    }

    fn finished(&mut self) {
        if self.drawn.take().is_some() {
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
