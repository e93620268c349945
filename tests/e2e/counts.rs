//! What call sites allocate in all, not only what is left.

use nix::sys::signal::{Signal, kill};

use crate::compare::exact;
use crate::engines::engines;
use crate::exact::worked;
use crate::fixture::Fixture;
use crate::leaktap::attach;
use crate::report::Report;
use crate::truth::Mode;

/// All that was allocated was allocated at some site of which something is left.
fn sums_up(report: &Report) {
    let sites = report.sites().into_iter();
    let allocated = sites.filter_map(|site| site.allocated);
    let sum = allocated.fold([0, 0], |sum, [n, bytes]| [sum[0] + n, sum[1] + bytes]);
    let totals = ["allocations", "allocated_bytes"].map(|name| report.total(name));
    assert_eq!(sum, totals);
}

engines! {
    fn every_block_is_counted_where_it_was_allocated(engine) {
        let traced = worked(&Fixture::new("counted.c"), engine, &[]);
        sums_up(traced.succeeded());
    }

    fn what_a_killed_program_had_allocated_is_known(engine) {
        let fixture = Fixture::new("counted.c");
        let mut target = fixture.start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        kill(target.pid(), Signal::SIGKILL).expect("it is there");
        let traced = tracing.wait();
        exact(&fixture, &traced, Mode::Attach);
        sums_up(traced.succeeded());
    }
}
