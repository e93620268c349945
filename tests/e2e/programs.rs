//! Real programs, launched: output and exit status are those without leaktap.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::child::{Finished, Watched};
use crate::compile::sources;
use crate::engines::{Engine, engines};
use crate::leaktap::{leaktap_with, reporting};
use crate::report::Report;
use crate::tools;

/// Runs the words in `directory`, plainly or under leaktap.
fn run(
    words: &[&OsStr],
    directory: &Path,
    input: &str,
    under: Option<(Engine, &Path)>,
) -> Finished {
    let mut command = match under {
        None => Command::new(words[0]),
        Some((engine, report)) => {
            let mut command = reporting("run", engine, report);
            command.arg("--").arg(words[0]);
            command
        }
    };
    command
        .args(&words[1..])
        .current_dir(directory)
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    let mut process = Watched::spawn(&mut command);
    process.send(input.as_bytes());
    process.close_stdin();
    process.finish()
}

/// Runs it with and without leaktap, each in a directory of its own that `prepare` fills; compares,
/// and returns the report and the directory of the traced one.
fn same(
    engine: Engine,
    words: &[&OsStr],
    input: &str,
    prepare: impl Fn(&Path),
) -> (Report, tempfile::TempDir) {
    let directory = || {
        let directory = tempfile::tempdir().expect("a temporary directory");
        prepare(directory.path());
        directory
    };
    let (plain, traced, reports) = (
        directory(),
        directory(),
        tempfile::tempdir().expect("a temporary directory"),
    );
    let file = reports.path().join("report");
    let without = run(words, plain.path(), input, None);
    let with = run(words, traced.path(), input, Some((engine, &file)));
    let of = |finished: &Finished| {
        (
            finished.status,
            finished.stdout_text(),
            finished.stderr_text(),
        )
    };
    if of(&without) != of(&with) {
        with.fail(format_args!(
            "other than without leaktap:\n{}\nwith it:",
            without.shown()
        ));
    }
    (
        Report::read(&file).unwrap_or_else(|error| with.fail(error)),
        traced,
    )
}

fn plausible(report: &Report, at_least: u64) {
    let total = |name| report.total(name);
    assert!(total("allocations") >= at_least, "{}", report.summary());
    assert_eq!(
        total("allocations"),
        total("frees") - total("unmatched_frees") + total("live_blocks"),
        "{}",
        report.summary()
    );
    assert_eq!(
        (total("lost_events"), total("unmatched_frees")),
        (0, 0),
        "{}",
        report.summary()
    );
}

const QUERIES: &str = "
    create table t(id integer primary key, name text, value real);
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000)
        insert into t select i, printf('row %d', i), i * 1.5 from n;
    create index by_name on t(name);
    select count(*), sum(value), min(name), max(name) from t;
    select name, group_concat(id) from t where id % 97 = 0 group by substr(name, 1, 5) order by 1;
    delete from t where id % 2; vacuum; select count(*) from t; select * from no_such_table;";

engines! {
    fn sqlite3_answers_the_same(engine) {
        let Some(sqlite) = tools::program("sqlite3") else {
            return;
        };
        let (report, _) = same(
            engine,
            &[sqlite.as_os_str(), "test.db".as_ref()],
            QUERIES,
            |_| {},
        );
        plausible(&report, 1000);
    }

    fn git_works_the_same(engine) {
        let Some(git) = tools::program("git") else {
            return;
        };
        let prepare = |directory: &Path| {
            for i in 0..40 {
                fs::write(
                    directory.join(format!("file{i}")),
                    format!("content {i}\n").repeat(i + 1),
                )
                .expect("a file");
            }
            let init = Command::new(&git)
                .args(["init", "-q", "-b", "main"])
                .current_dir(directory)
                .status();
            assert!(init.expect("git").success());
        };
        let add: [&OsStr; 3] = [git.as_os_str(), "add".as_ref(), "-v".as_ref()];
        let (report, directory) = same(engine, &[&add[..], &[".".as_ref()]].concat(), "", prepare);
        plausible(&report, 100);
        let fsck = run(
            &[git.as_os_str(), "fsck".as_ref(), "--full".as_ref()],
            directory.path(),
            "",
            None,
        );
        fsck.succeeded();
        let status: [&OsStr; 3] = [git.as_os_str(), "status".as_ref(), "--porcelain".as_ref()];
        plausible(&same(engine, &status, "", prepare).0, 100);
    }

    fn gcc_makes_the_same_object(engine) {
        let Some(gcc) = tools::program("gcc") else {
            return;
        };
        let source = sources().join("allocators.c");
        let words: [&OsStr; 7] = [
            gcc.as_os_str(),
            "-O2".as_ref(),
            "-Wall".as_ref(),
            "-c".as_ref(),
            source.as_os_str(),
            "-o".as_ref(),
            "x.o".as_ref(),
        ];
        let (report, directory) = same(engine, &words, "", |_| {});
        plausible(&report, 100);
        let other = tempfile::tempdir().expect("a temporary directory");
        run(&words, other.path(), "", None).succeeded();
        let object = |directory: &Path| fs::read(directory.join("x.o")).expect("an object");
        assert!(
            object(directory.path()) == object(other.path()),
            "another object"
        );
    }

    /// cc1 itself: hundreds of thousands of allocations, most of them by `xmalloc` and `obstack`s.
    fn a_compiler_proper_works_the_same(engine) {
        let Some(gcc) = tools::program("gcc") else {
            return;
        };
        let found = Command::new(gcc)
            .arg("-print-prog-name=cc1")
            .output()
            .expect("gcc");
        let cc1 = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        let source = sources().join("rtsignals.c");
        let words: [&OsStr; 6] = [
            cc1.as_ref(),
            "-quiet".as_ref(),
            "-O2".as_ref(),
            source.as_os_str(),
            "-o".as_ref(),
            "-".as_ref(),
        ];
        plausible(&same(engine, &words, "", |_| {}).0, 1000);
    }

    /// A thousand and more stacks of an interpreter are a report that can be read.
    fn python_with_numpy_makes_a_short_report(engine) {
        let Some(python) = tools::python_with("numpy") else {
            return;
        };
        let script =
            "import numpy; kept = [numpy.ones((100, n)) for n in range(1, 50)]; print(len(kept))";
        let engine = engine.to_string();
        let words = [
            "run",
            "-q",
            "--engine",
            &engine,
            "--report-file",
            "/dev/stdout",
            "--",
            &python,
            "-c",
            script,
        ];
        let finished = leaktap_with(words).succeeded();
        let report = finished.stdout_text();
        assert!(report.starts_with("49\n"), "{report}");
        assert!(report.contains("(--top 0)"), "{report}");
        assert!(report.lines().count() <= 300, "{report}");
    }

    fn a_shell_pipeline_works_the_same(engine) {
        let script = "for i in 1 2 3; do echo $i | sed s/2/two/; done | sort -r; \
            (exit 3) || echo $?; exit 9";
        let (report, _) = same(
            engine,
            &["/bin/bash".as_ref(), "-c".as_ref(), script.as_ref()],
            "",
            |_| {},
        );
        plausible(&report, 10);
    }
}
