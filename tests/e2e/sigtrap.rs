//! What a program does with SIGTRAP, and which of its threads block it, survives our int3s, which
//! raise that signal.

use std::process::Command;

use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{attach, run};

/// A handler, one with all flags, SIG_IGN, SIG_DFL: see the fixture.
const WAYS: [&str; 4] = ["0", "1", "2", "3"];

fn launched(engine: Engine, when: &str) {
    let fixture = Fixture::new("sigtrap.c");
    for way in WAYS {
        let words = [
            fixture.program().as_os_str(),
            "run".as_ref(),
            when.as_ref(),
            way.as_ref(),
        ];
        let traced = run(engine, &words);
        let report = traced.succeeded();
        assert!(report.total("allocations") > 0, "{}", report.summary());
        let notes = report.notes();
        assert!(
            !notes.iter().any(|note| note.contains("SIGTRAP")),
            "{notes:?}"
        );
    }
}

fn attached(engine: Engine, when: &str) {
    let fixture = Fixture::new("sigtrap.c");
    for way in WAYS {
        let mut command = Command::new(fixture.program());
        let mut target = Target::start(command.args(["wait", when, way]));
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        assert!(traced.succeeded().total("allocations") > 0);
        target.end().succeeded();
    }
}

engines! {
    fn set_while_traced_and_launched(engine) {
        launched(engine, "later");
    }
    fn set_first_and_launched(engine) {
        launched(engine, "before");
    }
    fn set_while_attached(engine) {
        attached(engine, "later");
    }
    fn set_before_the_attach(engine) {
        attached(engine, "before");
    }
    /// The kernel resets the handler of the process for the one that blocks the signal, and it may
    /// be the other whose stop is seen first.
    fn a_thread_is_not_taken_for_another_that_blocks_sigtrap(engine) {
        let mut target = Fixture::new("sigtrap_neighbours.c").start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        assert!(traced.succeeded().total("allocations") > 0);
        target.end().succeeded();
    }
    /// At detach, a SIGTRAP that had waited was taken for the program's own, though an int3 had
    /// brought it up: it killed the program, whose handler the kernel had reset.
    fn a_sigtrap_that_waits_is_not_delivered_at_detach(engine) {
        let mut target = Fixture::new("sigtrap_waits.c").start();
        for _ in 0..20 {
            attach(engine, target.pid(), &["--duration", "20ms"]).wait().succeeded();
        }
        target.work();
        target.end().succeeded();
    }
}
