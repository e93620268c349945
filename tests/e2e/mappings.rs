//! Mappings of a target that is not there any more when its report is made.

use nix::sys::signal::{Signal, kill};

use crate::compare::exact;
use crate::engines::engines;
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
