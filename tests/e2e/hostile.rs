//! Targets and files that mean harm, or might as well: what they can write, and what they are
//! called.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::process::Command;

use leaktap_agent::LEDGER_AT;
use nix::unistd::Pid;

use crate::child::{Finished, Watched};
use crate::clean::{Snapshot, left_behind};
use crate::compare::exact;
use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{attach, attach_by, leaktap_with, reporting};
use crate::report::Report;
use crate::truth::Mode;

/// What is shared with an agent, leaktap's own books, and four gigabytes.
const BOUNDED: &str = "ulimit -v 27000000; exec \"$@\"";

/// A name that would clear a terminal, ring its bell, turn it red (C1) and show itself as another
/// one.
const ODD: &str = "a\x1b[2J\x07\u{9b}31m\u{202e}gpj.\u{2066}b";

fn is_harmful(c: char) -> bool {
    let turns = [
        '\u{202a}'..='\u{202e}',
        '\u{2066}'..='\u{2069}',
        '\u{200e}'..='\u{200f}',
    ];
    c.is_control() && c != '\n' || turns.iter().any(|range| range.contains(&c))
}

fn is_harmless(finished: &Finished) {
    let texts = [finished.stdout_text(), finished.stderr_text()];
    if texts.iter().any(|text| text.contains(is_harmful)) {
        panic!("{:?}", texts);
    }
}

/// The range of addresses of the first mapping of `pid` whose name contains `name`, as /proc has
/// it.
fn mapping(pid: Pid, name: &str) -> Option<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let line = maps.lines().find(|line| line.contains(name))?;
    line.split(' ').next().map(str::to_owned)
}

engines! {
    fn nonsense_in_what_is_shared_ends_in_a_report(engine) {
        let fixture = Fixture::new("scribbles.c");
        let ledger = LEDGER_AT.to_string();
        let mut command = Command::new(fixture.program());
        let mut target = Target::start(command.args(["wait", &ledger]));
        let tracing = attach_by(&["sh", "-c", BOUNDED, "sh"], engine, target.pid());
        target.work();
        let traced = tracing.detach();
        let report = traced.succeeded();
        match engine {
            Engine::Auto => assert!(
                target
                    .process()
                    .stdout_line("nonsense")
                    .contains("nonsense")
            ),
            Engine::Breakpoint => assert_eq!(report.total("allocations"), 100),
        }
        target.end().succeeded();
    }

    fn a_mapping_that_has_only_our_name_is_the_programs_own(engine) {
        let fixture = Fixture::new("namesake.c");
        let mut target = fixture.start();
        for _ in 0..2 {
            let tracing = attach(engine, target.pid(), &["--duration", "10ms"]);
            tracing.wait().succeeded();
        }
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        exact(&fixture, &tracing.detach(), Mode::Attach);
        target.end().succeeded();
    }

    /// Those that instructions were moved to: what stands by may not touch them.
    fn a_killed_leaktap_leaves_bytes_that_the_next_one_puts_back(engine) {
        let mut target = Fixture::new("realloc.c").start();
        let before = Snapshot::of(target.pid());
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        tracing.process().signal(nix::sys::signal::Signal::SIGKILL);
        tracing.wait();
        let left = left_behind(target.pid());
        assert!(!left.is_empty());
        let traced = attach(engine, target.pid(), &["--duration", "10ms"]).wait();
        traced.succeeded();
        let changes = before.changes(target.pid());
        if !changes.is_empty() {
            traced.fail("the target is not what it was", &changes);
        }
        target.end().succeeded();
    }

    fn no_name_reaches_a_terminal_as_it_is(engine) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let program = directory.path().join(ODD);
        fs::copy(Fixture::new("recursion.c").program(), &program).expect("a copy");
        let engine_name = engine.to_string();
        let capture = directory.path().join("capture").display().to_string();
        let run: Vec<&OsStr> = ["run", "--engine", &engine_name, "-v", "-o", &capture, "--"]
            .map(OsStr::new)
            .into();
        let words = [&run[..], &[program.as_os_str(), "run".as_ref()]].concat();
        is_harmless(&leaktap_with(&words).succeeded());
        for more in [["-v"].as_slice(), &["-F", "json"], &["--by", "module"]] {
            let finished = leaktap_with([&["report", &capture], more].concat()).succeeded();
            is_harmless(&finished);
        }
        // JSON has it as it is.
        let json = directory.path().join("report");
        let mut command = reporting("run", engine, &json);
        Watched::spawn(command.arg("--").arg(&program).arg("run"))
            .finish()
            .succeeded();
        let report = Report::read(&json).expect("a report");
        assert_eq!(report.at("/target/program").as_str(), program.to_str());

        let absent = directory.path().join(format!("{ODD}2"));
        let words = [
            &run[..5],
            &["/no/such/".as_ref(), "--".as_ref(), absent.as_os_str()],
        ]
        .concat();
        is_harmless(&leaktap_with(words));
        is_harmless(&leaktap_with([
            "run".as_ref(),
            "--".as_ref(),
            absent.as_os_str(),
        ]));
        is_harmless(&leaktap_with(["report".as_ref(), absent.as_os_str()]));
        is_harmless(&leaktap_with([format!("--{ODD}")]));
        is_harmless(&leaktap_with(["attach", "-p", ODD]));
    }
}

/// leaktap would end by SIGBUS, with its target in its hands.
#[test]
fn what_is_shared_cannot_be_shortened() {
    let mut target = Fixture::new("portable.c").start();
    let tracing = attach(Engine::Auto, target.pid(), &[]);
    let range = mapping(target.pid(), "memfd:leaktap").expect("what is shared");
    let path = format!("/proc/{}/map_files/{range}", target.pid());
    match File::options().write(true).open(&path) {
        Ok(file) => assert!(file.set_len(0).is_err()),
        Err(error) => println!("{path}: {error}"), // it takes a capability
    }
    target.work();
    tracing.detach().succeeded();
    target.end().succeeded();
}

/// The process that outlives a killed leaktap keeps nothing in use that it does not need.
#[test]
fn who_stands_by_has_three_descriptors_and_a_session_of_its_own() {
    let target = Fixture::new("portable.c").start();
    let tracing = attach(Engine::Breakpoint, target.pid(), &[]);
    let pid = tracing.process().pid();
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
    let guard = children.trim().to_owned();
    let read = |name: &str| fs::read_to_string(format!("/proc/{guard}/{name}")).unwrap_or_default();
    // It has dropped all by the time it has another name and reads.
    let session = || {
        let stat = read("stat");
        let fields = stat.rsplit(") ").next().unwrap_or_default().to_owned();
        fields.split(' ').nth(3).map(str::to_owned)
    };
    let descriptors = || fs::read_dir(format!("/proc/{guard}/fd")).map_or(0, Iterator::count);
    let folder = || fs::read_link(format!("/proc/{guard}/cwd")).unwrap_or_default();
    let begun = std::time::Instant::now();
    while session() != Some(guard.clone()) || descriptors() != 3 || folder() != OsStr::new("/") {
        assert!(
            begun.elapsed().as_secs() < 20,
            "{} {} {:?}",
            read("stat"),
            descriptors(),
            folder()
        );
        std::thread::yield_now();
    }
    assert_eq!(read("comm").trim(), "lt-guard");
    tracing.detach().succeeded();
    target.end().succeeded();
}
