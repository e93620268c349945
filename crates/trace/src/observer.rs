//! Who is told of a trace while it is under way.

use leaktap_report::Report;
use leaktap_tracee::Tid;

use crate::ended::Ended;
use crate::target::Target;

/// Is told of a trace while it is under way.
pub trait Observer {
    /// `target` is traced from now on.
    fn attached(&mut self, target: &Target);
    /// Time has passed: told before each event, and often. `now` looks at the sums.
    fn sampled(&mut self, now: &dyn Fn() -> Now);
    /// A child of a process is traced from now on, too.
    fn forked(&mut self, _parent: Tid, _child: Tid) {}
    /// A process runs another program from now on.
    fn execed(&mut self, _process: Tid) {}
    /// A process has ended, or was let go; this is its report.
    fn ended(&mut self, _process: &Ended) {}
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
