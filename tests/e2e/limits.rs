//! leaktap's own limits (getrlimit(2)): raised, given back to a launched program, and never taken
//! for facts about the target.

use std::path::Path;
use std::process::Command;

use crate::child::Watched;
use crate::compare::exact;
use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::{attach_by, leaktap, reporting};
use crate::report::Report;
use crate::truth::Mode;

/// Executes its arguments with few descriptors, or few addresses.
const FEW_FILES: &str = "ulimit -n 48; exec \"$@\"";
const FEW_FOR_NOW: &str = "ulimit -S -n 100; exec \"$@\"";
const FEW_ADDRESSES: &str = "ulimit -v 1000000; exec \"$@\"";
const ENOUGH_FOR_ITSELF: &str = "ulimit -v 12000000; exec \"$@\"";

fn limited(limit: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", limit, "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    shell
}

fn program(fixture: &Fixture) -> &Path {
    fixture.program()
}

engines! {
    /// Two files and 38 GB of addresses were left of each.
    fn nothing_is_left_of_programs_that_were_replaced(engine) {
        let fixture = Fixture::new("many_execs.c");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("report");
        let mut command = reporting("run", engine, &file);
        command
            .args(["--error-exitcode", "3", "--"])
            .arg(program(&fixture))
            .args(["run", "30"]);
        let finished = Watched::spawn(&mut limited(FEW_FILES, &command)).finish();
        let report = Report::read(&file).unwrap_or_else(|error| finished.fail(error));
        assert_eq!(finished.status.code(), Some(3), "{}", finished.shown());
        assert_eq!(
            (report.total("live_blocks"), report.total("live_bytes")),
            (1, 32),
            "{}",
            report.summary()
        );
        let notes = report.notes();
        let [note] = &notes[..] else {
            panic!("{notes:?}")
        };
        assert!(
            note.contains("exec 30 times") && note.contains("30 live blocks"),
            "{note}"
        );
    }

    fn a_launched_program_finds_the_limit_of_descriptors_as_it_was(engine) {
        let mut command = leaktap();
        command.args([
            "run",
            "-q",
            "--engine",
            &engine.to_string(),
            "--",
            "sh",
            "-c",
            "ulimit -S -n; ulimit -H -n",
        ]);
        let of = |command: &mut Command| Watched::spawn(command).finish().succeeded().stdout_text();
        let with = of(&mut limited(FEW_FOR_NOW, &command));
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -S -n; ulimit -H -n"]);
        assert_eq!(with, of(&mut limited(FEW_FOR_NOW, &command)));
    }

    /// The books need 4.5 GiB of addresses, and 18 more are shared with an agent.
    fn leaktap_needs_few_addresses(engine) {
        for limit in [FEW_ADDRESSES, ENOUGH_FOR_ITSELF] {
            let fixture = Fixture::new("recursion.c");
            let mut target = fixture.start();
            let tracing = attach_by(&["sh", "-c", limit, "sh"], engine, target.pid());
            target.work();
            let traced = tracing.detach();
            exact(&fixture, &traced, Mode::Attach);
            let notes = traced.report().notes();
            assert_eq!(
                notes.iter().any(|note| note.contains("ENOMEM")),
                engine == Engine::Auto,
                "{notes:?}"
            );
            target.end().succeeded();
        }
    }
}
