//! System calls that a stop would end with EINTR: the program never sees it.

use crate::clean::Snapshot;
use crate::engines::engines;
use crate::fixture::Fixture;
use crate::leaktap::attach;

/// Attaches and detaches while the same calls wait.
const CYCLES: usize = 20;

engines! {
    fn no_system_call_is_interrupted(engine) {
        let mut target = Fixture::new("blocked.c").start();
        let before = Snapshot::of(target.pid());
        for _ in 0..CYCLES {
            let traced = attach(engine, target.pid(), &[]).detach();
            traced.succeeded();
            let changes = before.changes_of_idle(target.pid());
            if !changes.is_empty() {
                traced.fail("the target is not what it was", &changes);
            }
        }
        target.work();
        target.end().succeeded();
    }

    fn calls_end_as_they_should_while_attached(engine) {
        let mut target = Fixture::new("blocked.c").start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        tracing.detach().succeeded();
        target.end().succeeded();
    }
}
