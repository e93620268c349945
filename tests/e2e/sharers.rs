//! Who runs in the target's memory without being a thread that could run into a breakpoint: another
//! process, traced with it; and threads of the kernel, left alone.

use std::process::Command;

use crate::compare::exact;
use crate::engines::engines;
use crate::fixture::{Fixture, Target};
use crate::leaktap::{attach, run};
use crate::truth::Mode;

/// As often as a short trace might hit upon a moment of danger.
const SHORT: usize = 12;

fn start(fixture: &Fixture, mode: &str) -> Target {
    Target::start(Command::new(fixture.program()).arg(mode))
}

engines! {
    fn a_process_that_shares_the_memory_is_traced_with_it(engine) {
        let fixture = Fixture::new("sharers.c");
        let mut target = fixture.start();
        for _ in 0..SHORT {
            attach(engine, target.pid(), &["--duration", "20ms"]).wait().succeeded();
        }
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        exact(&fixture, &traced, Mode::Attach);
        target.end().succeeded();
    }

    /// It was told when it began, and lives on when the trace ends.
    fn one_that_begins_under_trace_outlives_it(engine) {
        let fixture = Fixture::new("sharers.c");
        let mut target = start(&fixture, "late");
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        exact(&fixture, &traced, Mode::Attach);
        target.end().succeeded();
    }

    /// The target has another memory then, and its sharer has what is left of ours.
    fn one_that_the_target_leaves_by_exec_goes_on(engine) {
        let fixture = Fixture::new("sharers.c");
        let mut target = start(&fixture, "exec");
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        tracing.detach().succeeded();
        target.end().succeeded();
    }

    fn children_of_vfork_that_live_at_attach_are_safe(engine) {
        let mut target = Fixture::new("vforks.c").start();
        for _ in 0..SHORT {
            attach(engine, target.pid(), &["--duration", "20ms"]).wait().succeeded();
        }
        target.work();
        target.end().succeeded();
    }

    /// They make system calls for the program, which a stop would end, and would never run anything
    /// for us.
    fn threads_of_the_kernel_are_left_alone(engine) {
        let fixture = Fixture::new("io_workers.c");
        let mut target = fixture.start();
        for _ in 0..SHORT {
            attach(engine, target.pid(), &["--duration", "5ms"]).wait().succeeded();
        }
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        exact(&fixture, &traced, Mode::Attach);
        target.end().succeeded();
        exact(&fixture, &run(engine, &[fixture.program().as_ref(), "run".as_ref()]), Mode::Run);
    }
}
