//! The agent is taken out of threads by its own record of them, whatever their stacks look like.

use std::time::Duration;

use crate::clean::left_behind;
use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{Traced, attach};

/// A deadline, not a measure.
const ALL_CYCLES: Duration = Duration::from_secs(300);

/// Nothing stays in the target, and no note says that something does.
fn is_out(traced: &Traced, target: &Target) {
    let mut wrong = left_behind(target.pid());
    let notes = traced.succeeded().notes().into_iter();
    wrong.extend(notes.filter(|note| note.contains("stays mapped")));
    let lost = traced.report().total("lost_events");
    wrong.extend((lost > 0).then(|| format!("{lost} calls were lost")));
    if !wrong.is_empty() {
        traced.fail("something stays in the target", &wrong);
    }
}

/// The program lives through `cycles` attaches of 20 ms, and then works on.
fn lives_through(engine: Engine, fixture: &str, cycles: u32) {
    let mut target = Fixture::new(fixture).start_for(ALL_CYCLES);
    for _ in 0..cycles {
        let traced = attach(engine, target.pid(), &["--duration", "20ms"]).wait();
        is_out(&traced, &target);
    }
    target.work();
    target.end().succeeded();
}

engines! {
    fn a_call_on_a_stack_that_was_left_returns_when_leaktap_has_gone(engine) {
        let mut target = Fixture::new("left_stack.c").start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        is_out(&traced, &target);
        assert_eq!(
            traced.report().total("allocations"),
            100,
            "{}",
            traced.report().summary()
        );
        target.end().succeeded();
    }

    fn threads_in_an_allocator_without_unwind_information(engine) {
        lives_through(engine, "no_unwind_info.c", 8);
    }

    /// What the handler had interrupted was the agent, in two of three children: it went on without
    /// its memory.
    fn children_of_a_signal_handler_live_on(engine) {
        let mut target = Fixture::new("fork_in_handler.c").start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        tracing.detach().succeeded();
        target.end().succeeded();
    }

    fn threads_that_come_and_go_under_signals(engine) {
        lives_through(engine, "short_threads.c", 8);
    }

    /// What a realloc took out of the books is put back when it is led past the agent. And a
    /// handler's stack may lie in a frame: the call that it interrupts is not over, though further
    /// down.
    fn calls_that_are_under_way_at_detach(engine) {
        let mut target = Fixture::new("in_realloc.c").start_for(ALL_CYCLES);
        for _ in 0..8 {
            let traced = attach(engine, target.pid(), &["--duration", "60ms"]).wait();
            is_out(&traced, &target);
            let report = traced.report();
            let blocks: u64 = report
                .sites()
                .iter()
                .filter(|site| site.bytes == 1)
                .map(|site| site.blocks)
                .sum();
            // On a busy machine none may have returned meanwhile.
            let reallocs = report.total("allocated_bytes") % 1000;
            assert_eq!(blocks, u64::from(reallocs > 0), "{}", report.summary());
        }
        target.work();
        target.end().succeeded();
    }
}
