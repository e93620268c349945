//! Who is told of a trace while it is under way.

use crate::target::Target;

/// Is told of a trace while it is under way.
pub trait Observer {
    /// `target` is traced from now on.
    fn attached(&mut self, target: &Target);
    /// Time has passed: told before each event, and often. `now` looks at the sums.
    fn sampled(&mut self, now: &dyn Fn() -> Now);
    /// Nothing is traced any longer.
    fn ended(&mut self);
}

/// What the books of a trace come to at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Bytes allocated and not freed.
    pub live_bytes: u64,
    /// Allocations and frees so far.
    pub events: u64,
}
