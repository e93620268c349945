//! `leaktap run`: streams, environment and exit status of the program are as without leaktap;
//! options that decide when it reports and what it exits with.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use crate::child::{Finished, Watched};
use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::{leaktap, leaktap_with, run};

/// Runs `command` with `input`, which is more than a pipe holds.
fn fed(command: &mut Command, input: &[u8]) -> Finished {
    let mut process = Watched::spawn(command.current_dir("/tmp"));
    process.send(input);
    process.close_stdin();
    process.finish()
}

fn under_leaktap(engine: Engine, report: &Path) -> Command {
    let mut command = leaktap();
    command
        .args(["run", "--engine", &engine.to_string(), "--report-file"])
        .arg(report)
        .arg("--");
    command
}

fn run_words<'a>(engine: &'a str, more: &'a [&'a str], program: &'a Path) -> Vec<&'a OsStr> {
    let mut words: Vec<&OsStr> = vec!["run".as_ref(), "--engine".as_ref(), engine.as_ref()];
    words.extend(more.iter().map(OsStr::new));
    words.extend([OsStr::new("--"), program.as_os_str(), OsStr::new("run")]);
    words
}

engines! {
    /// leaktap raises its own: nice(1) without arguments says which one it has.
    fn a_launched_program_has_its_usual_priority(engine) {
        let nice = |program: &[&OsStr]| {
            let mut command = Command::new("nice");
            command.args(["-n", "5"]).args(program);
            Watched::spawn(&mut command)
                .finish()
                .succeeded()
                .stdout_text()
        };
        let alone = nice(&["nice".as_ref()]);
        let mut traced = under_leaktap(engine, Path::new("/dev/null"));
        traced.arg("nice");
        let mut words = vec![traced.get_program()];
        words.extend(traced.get_args());
        assert_eq!(nice(&words), alone);
    }

    /// The program reports its own arguments, signal mask, descriptors, directory; copies its
    /// input; exits with 11.
    fn streams_and_surroundings_are_untouched(engine) {
        let echo = Fixture::new("echo.c");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let input: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let texts = ["", "two words", "--duration", "-x", "'\"$", "\u{e4}"].map(OsStr::new);
        let arguments = [&texts[..], &[OsStr::from_bytes(b"not \xff UTF-8")]].concat();
        let without = fed(Command::new(echo.program()).args(&arguments), &input);
        let mut command = under_leaktap(engine, &directory.path().join("report"));
        let with = fed(command.arg(echo.program()).args(&arguments), &input);
        assert_eq!(with.status.code(), Some(11), "{}", with.shown());
        assert!(
            with.stdout == without.stdout,
            "{} bytes instead of {}",
            with.stdout.len(),
            without.stdout.len()
        );
        // It leads its own without leaktap.
        let group = |text: String| text.replace("group 1", "group 0");
        assert_eq!(group(with.stderr_text()), group(without.stderr_text()));
    }

    fn names_need_not_be_utf8(engine) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let odd = |name: &[u8]| {
            directory
                .path()
                .join(OsStr::from_bytes(name))
                .into_os_string()
        };
        let (program, capture, report) = (odd(b"p\xff"), odd(b"c\xfe"), odd(b"r\xfd"));
        fs::copy(Fixture::new("recursion.c").program(), &program).expect("a copy");
        let own = ["run", "--engine", &engine.to_string(), "--own"].map(OsString::from);
        let outputs = [
            "-o".into(),
            capture.clone(),
            "--report-file".into(),
            report.clone(),
        ];
        let rest = ["--".into(), program.clone(), "run".into()];
        leaktap_with(own.iter().chain([&program]).chain(&outputs).chain(&rest)).succeeded();
        let text = fs::read_to_string(&report).expect("a report");
        assert!(
            text.contains("recursion.c:6") && text.contains("p\u{fffd} (pid "),
            "{text}"
        );
        leaktap_with(["report".into(), capture]).succeeded();
    }

    /// The report of `run` comes on standard error, after the program's own.
    fn the_report_goes_to_standard_error(engine) {
        let fixture = Fixture::new("recursion.c");
        let finished =
            leaktap_with(run_words(&engine.to_string(), &[], fixture.program())).succeeded();
        assert_eq!(finished.stdout_text(), "ready\ndone\n");
        assert!(
            finished.stderr_text().contains("recursion.c:6"),
            "{}",
            finished.shown()
        );
        assert!(
            finished.stderr_text().contains("descend"),
            "{}",
            finished.shown()
        );
    }

    fn an_error_exit_code_is_used_if_leaks_are_left(engine) {
        let engine = engine.to_string();
        let leaky = Fixture::new("recursion.c");
        let code = ["--error-exitcode", "42", "-q"];
        let finished = leaktap_with(run_words(&engine, &code, leaky.program()));
        assert_eq!(finished.status.code(), Some(42), "{}", finished.shown());
        let clean = [
            "run",
            "--engine",
            &engine,
            "--error-exitcode",
            "42",
            "--",
            "/bin/true",
        ];
        leaktap_with(clean).succeeded();
    }

    /// A capture renders to the same JSON as the report that was printed.
    fn a_capture_can_be_rendered_again(engine) {
        let fixture = Fixture::new("recursion.c");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str| directory.path().join(name).display().to_string();
        let (capture, first, second) = (
            file("capture.leaktap"),
            file("first.json"),
            file("second.json"),
        );
        let more = ["-o", &capture, "-F", "json", "--report-file", &first];
        leaktap_with(run_words(&engine.to_string(), &more, fixture.program())).succeeded();
        leaktap_with(["report", "-F", "json", "--report-file", &second, &capture]).succeeded();
        let read = |name: &str| fs::read_to_string(name).expect("a report");
        assert_eq!(read(&first), read(&second));
        let text = leaktap_with(["report", &capture]).succeeded();
        assert!(
            text.stdout_text().contains("recursion.c:6"),
            "{}",
            text.shown()
        );
    }

    /// The numbers of a site can be cut: `--top`, `--min-size`.
    fn what_is_listed_can_be_limited(engine) {
        let fixture = Fixture::new("realloc.c");
        let engine = engine.to_string();
        let top = leaktap_with(run_words(&engine, &["--top", "1"], fixture.program())).succeeded();
        let lines = |finished: &Finished| finished.stderr_text().matches("realloc.c:").count();
        assert!(
            top.stderr_text().contains("realloc.c:32"),
            "{}",
            top.shown()
        );
        assert!(
            !top.stderr_text().contains("realloc.c:10"),
            "{}",
            top.shown()
        );
        let large = leaktap_with(run_words(
            &engine,
            &["--min-size", "5000"],
            fixture.program(),
        ))
        .succeeded();
        assert!(
            lines(&large) >= 2 && !large.stderr_text().contains("realloc.c:10"),
            "{}",
            large.shown()
        );
    }
}

/// What was found out before the dynamic linker had mapped an allocator must not count.
#[test]
fn a_launched_program_gets_detours() {
    let fixture = Fixture::new("recursion.c");
    let traced = run(
        Engine::Auto,
        &[fixture.program().as_os_str(), "run".as_ref()],
    );
    assert_eq!(traced.succeeded().at("/probes/0/function"), "malloc");
    assert_eq!(traced.report().at("/probes/0/kind"), "detour");
}
