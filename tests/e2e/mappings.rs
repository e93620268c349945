//! Mappings of a target that is not there any more when its report is made.

use nix::sys::signal::{Signal, kill};

use crate::compare::exact;
use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::{attach, run};
use crate::truth::Mode;

engines! {
    /// The kernel shows its memory a last time.
    fn mappings_of_a_killed_target_are_looked_at(engine) {
        let fixture = Fixture::new("reserved.c");
        let mut target = fixture.start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        kill(target.pid(), Signal::SIGKILL).expect("a target");
        exact(&fixture, &tracing.wait(), Mode::Attach);
    }

    /// Threads that get each other's addresses from the kernel.
    fn nothing_is_left_of_what_busy_threads_have_unmapped(engine) {
        let mut target = Fixture::new("own_maps_busy.c").start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        let report = traced.succeeded();
        let totals = ["mapped_regions", "lost_events"].map(|name| report.total(name));
        assert_eq!(totals, [0, 0], "{}", report.summary());
        target.end().succeeded();
    }

    /// Nobody could look: the calls that were seen have to do, and the report says so.
    fn mappings_of_a_target_whose_leader_ended_first_are_as_its_calls_said(engine) {
        let fixture = Fixture::new("left_alone.c");
        let traced = run(engine, &[fixture.program().as_os_str()]);
        exact(&fixture, &traced, Mode::Run);
    }

    fn memory_given_back_by_a_target_whose_leader_ended_first_is_looked_at(engine) {
        let fixture = Fixture::new("given_back.c");
        let mut target = fixture.start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        exact(&fixture, &tracing.detach(), Mode::Attach);
    }
}

/// Nor is anything lost in silence: what has found no room is counted. The guard continues leaktap,
/// which detaches: each thread may be in the middle of something then.
#[test]
fn a_leaktap_that_does_not_run_holds_up_no_call() {
    let mut target = Fixture::new("own_maps_busy.c").start();
    let tracing = attach(Engine::Auto, target.pid(), &[]);
    tracing.process().signal(Signal::SIGSTOP);
    target.work();
    tracing.process().signal(Signal::SIGCONT);
    let traced = tracing.detach();
    let report = traced.succeeded();
    let (regions, lost) = (report.total("mapped_regions"), report.total("lost_events"));
    assert!(regions <= 2 || lost > 0, "{}", report.summary());
    target.end().succeeded();
}
