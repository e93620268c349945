//! What is paid for what a tracer is told of: counted, not timed. The kernel counts how often a
//! thread of leaktap's has read and written (proc_pid_io(5)).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{Tracing, attach};

/// What the program does, how often, and what it has when it begins.
struct Work<'a> {
    what: &'a str,
    times: usize,
    threads: usize,
    libraries: &'a [PathBuf],
}

impl Work<'_> {
    fn start(&self, fixture: &Fixture) -> Target {
        let mut command = Command::new(fixture.program());
        command.arg(self.what);
        command.args([self.times, self.threads].map(|number| number.to_string()));
        Target::start(command.args(self.libraries))
    }

    /// How often leaktap has read and written before it was attached, and for the work.
    fn reads(&self, engine: Engine, fixture: &Fixture) -> [usize; 2] {
        let mut target = self.start(fixture);
        let tracing = attach(engine, target.pid(), &[]);
        let before = reads(&tracing);
        target.work();
        let during = reads(&tracing) - before;
        tracing.detach().succeeded();
        target.end().succeeded();
        [before, during]
    }
}

/// Of the thread that traces.
fn reads(tracing: &Tracing) -> usize {
    let pid = tracing.process().pid();
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/io")).expect("alive");
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.expect("is told")
            .trim()
            .parse::<usize>()
            .expect("a number")
    };
    number("syscr:") + number("syscw:")
}

/// Copies of the fixture's library, each another module.
fn libraries(fixture: &Fixture, folder: &Path, count: usize) -> Vec<PathBuf> {
    let library = fixture.program().with_file_name("libplugin.so");
    let copy = |number| {
        let copy = folder.join(format!("{number}.so"));
        fs::copy(&library, &copy).expect("copied");
        copy
    };
    (0..count).map(copy).collect()
}

engines! {
    fn a_library_that_comes_costs_the_same_however_many_there_are(engine) {
        let fixture = Fixture::new("costs.c");
        let folder = tempfile::tempdir().expect("a temporary directory");
        let libraries = libraries(&fixture, folder.path(), 120);
        let [few, many] = [4, 120].map(|loaded| {
            let libraries = &libraries[..loaded];
            let work = Work { what: "library", times: 60, threads: 0, libraries };
            let [_, reads] = work.reads(engine, &fixture);
            reads
        });
        assert!(many < few + few / 4, "{few} reads with 4 libraries, {many} with 120");
    }

    fn a_thread_that_is_stopped_costs_few_reads(engine) {
        let fixture = Fixture::new("costs.c");
        let [few, many] = [20, 220].map(|threads| {
            let work = Work { what: "nothing", times: 0, threads, libraries: &[] };
            let [reads, _] = work.reads(engine, &fixture);
            reads
        });
        assert!(many < few + 6 * 200, "{few} reads with 20 threads, {many} with 220");
    }
}

/// Under breakpoints its calls are stops.
#[test]
fn a_thread_that_begins_costs_a_read() {
    let fixture = Fixture::new("costs.c");
    let work = Work {
        what: "thread",
        times: 500,
        threads: 0,
        libraries: &[],
    };
    let [_, reads] = work.reads(Engine::Auto, &fixture);
    assert!(reads < 3 * work.times, "{reads} reads");
}

/// Most of them put its functions back.
#[test]
fn a_forked_child_costs_few_reads() {
    let fixture = Fixture::new("costs.c");
    let work = Work {
        what: "process",
        times: 100,
        threads: 0,
        libraries: &[],
    };
    let [_, reads] = work.reads(Engine::Auto, &fixture);
    assert!(reads < 40 * work.times, "{reads} reads");
}
