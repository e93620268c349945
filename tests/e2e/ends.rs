//! However the target ends, its end is its own, and the report has what was known.

use std::os::unix::process::ExitStatusExt;

use nix::libc::SIGRTMIN;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::compare::differences;
use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{Traced, attach, run};
use crate::truth::Mode;

enum End {
    Code(i32),
    Signal(i32),
}

impl End {
    fn in_report(&self) -> Value {
        match self {
            End::Code(code) => json!({ "code": code }),
            End::Signal(signal) => json!({ "signal": signal }),
        }
    }

    /// As a shell has it.
    fn status(&self) -> i32 {
        match self {
            End::Code(code) => *code,
            End::Signal(signal) => 128 + signal,
        }
    }
}

/// The ways that `fixtures/ends.c` knows.
fn ways() -> [(&'static str, End); 9] {
    [
        ("return", End::Code(0)),
        ("three", End::Code(3)),
        ("exit", End::Code(200)),
        ("segv", End::Signal(Signal::SIGSEGV as i32)),
        ("abort", End::Signal(Signal::SIGABRT as i32)),
        ("term", End::Signal(Signal::SIGTERM as i32)),
        ("kill", End::Signal(Signal::SIGKILL as i32)),
        ("realtime", End::Signal(SIGRTMIN() + 3)),
        ("trap", End::Signal(Signal::SIGTRAP as i32)),
    ]
}

fn reported(fixture: &Fixture, traced: &Traced, mode: Mode, end: &End) {
    let report = traced.report();
    let wrong = differences(&fixture.truth(mode), report);
    if !wrong.is_empty() {
        traced.fail("the report of a program that ended", &wrong);
    }
    assert_eq!(
        report.at("/target/exit"),
        &end.in_report(),
        "{}",
        report.summary()
    );
    assert_eq!(
        report.at("/target/detached"),
        &json!(false),
        "{}",
        report.summary()
    );
}

fn attached_until_the_end(fixture: &Fixture, engine: Engine, way: &str, end: &End) {
    let mut command = std::process::Command::new(fixture.program());
    let mut target = Target::start(command.args(["wait", way]));
    let tracing = attach(engine, target.pid(), &[]);
    target.begin();
    let finished = target.end();
    match end {
        End::Code(code) => assert_eq!(finished.status.code(), Some(*code), "{}", finished.shown()),
        End::Signal(signal) => assert_eq!(
            finished.status.signal(),
            Some(*signal),
            "{}",
            finished.shown()
        ),
    }
    let traced = tracing.wait();
    traced.succeeded();
    reported(fixture, &traced, Mode::Attach, end);
}

engines! {
    fn a_launched_program_ends_as_it_would(engine) {
        let fixture = Fixture::new("ends.c");
        for (way, end) in ways() {
            let traced = run(
                engine,
                &[fixture.program().as_ref(), "run".as_ref(), way.as_ref()],
            );
            let status = traced.finished.status.code();
            assert_eq!(
                status,
                Some(end.status()),
                "{way}: {}",
                traced.finished.shown()
            );
            reported(&fixture, &traced, Mode::Run, &end);
        }
    }

    fn an_attached_program_ends_as_it_would(engine) {
        let fixture = Fixture::new("ends.c");
        for (way, end) in ways() {
            attached_until_the_end(&fixture, engine, way, &end);
        }
    }

    /// Nor has a thread of its: see the fixture.
    fn a_process_that_ends_in_realloc_has_not_freed_the_old_block(engine) {
        let fixture = Fixture::new("dies_in_realloc.c");
        let ends = |way: &str, status: i32| {
            let traced = run(
                engine,
                &[fixture.program().as_ref(), "run".as_ref(), way.as_ref()],
            );
            assert_eq!(
                traced.finished.status.code(),
                Some(status),
                "{}",
                traced.finished.shown()
            );
            traced
        };
        let (killed, exited) = (ends("0", 128 + Signal::SIGKILL as i32), ends("1", 0));
        for traced in [&killed, &exited] {
            let sites = traced.report().sites();
            let of_40 = sites.iter().filter(|site| site.bytes == 40 * site.blocks);
            let blocks: u64 = of_40.map(|site| site.blocks).sum();
            assert_eq!(blocks, 3, "{}", traced.report().summary());
        }
        let live = format!("its {} live blocks", exited.report().total("live_blocks"));
        let executed = ends("2", 0);
        assert!(
            executed.report().summary().contains(&live),
            "{live}: {}",
            executed.report().summary()
        );
    }
}
