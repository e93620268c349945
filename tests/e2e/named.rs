//! Processes by id or by name, with or without `-p`.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::engines::engines;
use crate::fixture::{Fixture, Target};
use crate::leaktap::leaktap_with;

/// A program with a name of its own, as nothing else that runs on this machine has it.
struct Named {
    directory: TempDir,
    name: String,
}

impl Named {
    fn new(what: &str) -> Named {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let name = format!("{what}-{}", std::process::id());
        let fixture = Fixture::new("portable.c");
        fs::copy(fixture.program(), directory.path().join(&name)).expect("a copy");
        Named { directory, name }
    }

    fn start(&self) -> Target {
        Target::start(&mut Command::new(self.directory.path().join(&self.name)))
    }
}

/// The standard error of `leaktap attach WORDS` for a moment.
fn attached(words: &[&str], engine: &str) -> String {
    let options = [
        "attach",
        "--engine",
        engine,
        "--duration",
        "10ms",
        "--report-file",
        "/dev/null",
    ];
    let finished = leaktap_with(options.iter().chain(words));
    finished.succeeded().stderr_text()
}

engines! {
    fn a_process_is_named_in_each_way(engine) {
        let program = Named::new(&format!("each-{engine}"));
        let target = program.start();
        let pid = target.pid().to_string();
        let expected = format!("leaktap: attached to {pid}");
        let ways: [&[&str]; 4] = [&["-p", &pid], &["--pid", &pid], &[&pid], &[&program.name]];
        for words in ways {
            let said = attached(words, &engine.to_string());
            assert!(said.starts_with(&expected), "{words:?}: {said}");
        }
        let finished = leaktap_with(["doctor", &program.name]).succeeded();
        assert!(finished.stdout_text().contains(&pid), "{}", finished.shown());
        target.end().succeeded();
    }
}

#[test]
fn of_several_processes_all_are_named() {
    let program = Named::new("many");
    let targets = [program.start(), program.start()];
    let finished = leaktap_with(["attach", &program.name]);
    let said = finished.stderr_text();
    let mut ids = targets.iter().map(|target| target.pid().to_string());
    let has_all = ids.all(|pid| said.contains(&pid)) && said.lines().count() == 1;
    if finished.status.code() != Some(125) || !has_all {
        finished.fail("both ids on one line");
    }
    for target in targets {
        target.end().succeeded();
    }
}

#[test]
fn a_name_that_no_process_has_is_an_error() {
    let name = format!("none-{}", std::process::id());
    let finished = leaktap_with(["attach", &name]);
    if finished.status.code() != Some(125) || !finished.stderr_text().contains(&name) {
        finished.fail("one line with the name");
    }
}
