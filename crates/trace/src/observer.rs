//! Who is told of a trace while it is under way.

use leaktap_report::Report;

use crate::target::Target;

/// Is told of a trace while it is under way.
pub trait Observer {
    /// `target` is traced from now on.
    fn attached(&mut self, target: &Target);
    /// Time has passed: told before each event, and often. `now` looks at the sums.
    fn sampled(&mut self, now: &dyn Fn() -> Now);
    /// A report was asked for while the trace goes on: of each process that is traced.
    fn reported(&mut self, reports: Vec<Report>);
    /// What is there now will not be listed.
    fn begun_again(&mut self);
    /// Nothing is traced any longer.
    fn finished(&mut self);
}

/// What the books of a trace come to at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Bytes allocated and not freed.
    pub live_bytes: u64,
    /// Allocations and frees so far.
    pub events: u64,
}
