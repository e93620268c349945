//! The agent changes nothing that its callers rely on, and reads nothing that may not be there: the
//! programs check themselves.

use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::attach;

/// The program works while leaktap is attached, and ends well. Returns allocations, and calls that
/// could not be counted.
fn works(engine: Engine, fixture: &str) -> (u64, u64) {
    let mut target = Fixture::new(fixture).start();
    let tracing = attach(engine, target.pid(), &[]);
    target.work();
    let traced = tracing.detach();
    let report = traced.succeeded();
    target.end().succeeded();
    (report.total("allocations"), report.total("lost_events"))
}

engines! {
    fn callers_in_the_same_file_keep_values_in_registers(engine) {
        assert_eq!(works(engine, "registers.c"), (3000, 0));
    }

    fn memory_that_a_frame_pointer_leads_to_is_closed(engine) {
        assert_eq!(works(engine, "closed_page.c"), (12_000, 0));
    }

    /// What cannot be told apart by thread is counted as lost.
    fn fs_bases_are_switched_and_shared(engine) {
        let (allocations, lost) = works(engine, "fs_base.c");
        let all = match engine {
            Engine::Auto => allocations + lost / 2,
            Engine::Breakpoint => allocations,
        };
        assert!(all >= 9_000, "{allocations} allocations, {lost} lost");
    }
}
