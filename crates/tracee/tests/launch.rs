//! A launched program finds what it would find without us.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;

use common::{Watch, fixture, run_out};
use leaktap_tracee::{Command, Event, LaunchError, Options, Signal, Stop, Stopped, Tracer};

/// A file name of the test's own.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{}", process::id()))
}

fn launch(tracer: &mut Tracer, command: &Command) -> Stopped {
    tracer
        .launch(command, Options::follow().kill_on_exit())
        .unwrap()
}

/// Launches and runs it to its end.
fn run(command: &Command) -> (Vec<Stop>, Event) {
    let mut tracer = Tracer::new();
    let stopped = launch(&mut tracer, command);
    let tid = stopped.tid();
    assert_eq!(stopped.stop(), Stop::Exec { former: tid });
    let _watch = Watch::on(tid);
    stopped.resume().unwrap();
    let (stops, end) = run_out(&mut tracer, tid);
    (stops.into_iter().map(|(_, stop)| stop).collect(), end)
}

/// Set in the inner run of this test program, by which a launcher is started with dispositions and
/// descriptors that are not the usual.
const INNER: &str = "LEAKTAP_TRACEE_TEST_INNER";

#[test]
fn the_program_finds_signals_and_descriptors_as_we_did() {
    let program = fixture("found");
    if let Some(file) = std::env::var_os(INNER) {
        let (stops, end) = run(&Command::new(program).args([file, "a b".into()]));
        assert!(matches!(end, Event::Exited { code: 23, .. }), "{end:?}");
        assert_eq!(stops, []);
        return;
    }
    let own = std::env::current_exe().unwrap();
    let (direct, traced) = (scratch("found-direct"), scratch("found-traced"));
    let setups = [
        "",
        "trap '' PIPE HUP RTMIN+3;",
        "trap '' INT QUIT; exec 0<&-;",
        "exec 7</dev/null 0<&7;",
    ];
    for setup in setups {
        let sh = |script: &str| {
            let mut sh = process::Command::new("sh");
            sh.args(["-c", &format!("{setup} {script}")]);
            sh.stdin(process::Stdio::null())
                .stdout(process::Stdio::null())
                .stderr(process::Stdio::null());
            sh
        };
        let status = sh("exec \"$0\" \"$1\" 'a b'")
            .args([&program, &direct])
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(23), "{setup}");
        let test = "the_program_finds_signals_and_descriptors_as_we_did";
        let mut outer = sh("exec \"$0\" --exact \"$1\"");
        let status = outer
            .arg(&own)
            .arg(test)
            .env(INNER, &traced)
            .status()
            .unwrap();
        assert!(status.success(), "{setup}");
        let read = |file| fs::read_to_string(file).unwrap();
        assert_eq!(read(&traced), read(&direct), "{setup}");
        assert!(read(&direct).contains("argument a b\n"));
    }
    let _ = (fs::remove_file(direct), fs::remove_file(traced));
}

#[test]
fn its_end_is_its_own() {
    let sh = |script: &str| run(&Command::new("sh").args(["-c", script]));
    assert!(matches!(sh("exit 3").1, Event::Exited { code: 3, .. }));
    assert!(matches!(
        sh("kill -9 $$").1,
        Event::Killed {
            signal: Signal::KILL,
            ..
        }
    ));
    let (stops, end) = sh("kill -RTMIN+5 $$");
    assert!(
        matches!(end, Event::Killed { signal, .. } if signal == Signal::new(39)),
        "{end:?}"
    );
    assert_eq!(stops, [Stop::Signal(Signal::new(39))]);
    let (stops, _) = sh("true | true; exec true");
    assert_eq!(
        stops
            .iter()
            .filter(|stop| matches!(stop, Stop::Exec { .. }))
            .count(),
        1
    );
}

#[test]
fn a_script_is_run_by_its_interpreter_or_by_sh() {
    for (name, text) in [("with", "#!/bin/sh\nexit $1\n"), ("without", "exit $1\n")] {
        let file = scratch(name);
        // Not by us: a child that another test forks meanwhile would have it open for writing
        // (ETXTBSY of execve(2)).
        let write = "printf '%s' \"$1\" >\"$2\" && chmod 755 \"$2\"";
        let mut writer = std::process::Command::new("sh");
        let writer = writer.args(["-c", write, "sh", text]).arg(&file).status();
        assert!(writer.unwrap().success());
        let (_, end) = run(&Command::new(&file).args(["9"]));
        assert!(matches!(end, Event::Exited { code: 9, .. }), "{end:?}");
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn what_cannot_be_executed_is_told_by_126_and_127() {
    let mut tracer = Tracer::new();
    let plain = scratch("plain");
    fs::write(&plain, "not a program").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let folder = env!("CARGO_TARGET_TMPDIR");
    for (program, code) in [
        ("no-such-program-anywhere", 127),
        ("/no/such/file", 127),
        ("", 127),
        (plain.to_str().unwrap(), 126),
        (folder, 126),
        ("nul\0inside", 126),
    ] {
        let error = tracer
            .launch(&Command::new(program), Options::follow())
            .unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        let expected = if code == 127 {
            "NotFound"
        } else {
            "CannotExecute"
        };
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        assert!(
            matches!(tracer.wait(0), Event::NoChildren),
            "a child of {program:?} is left"
        );
    }
    fs::remove_file(plain).unwrap();
    let error = LaunchError::NotFound {
        program: "x".into(),
    };
    assert_eq!(error.to_string(), "x: not found");
}

#[test]
fn a_launched_program_can_be_let_go() {
    let file = scratch("let-go");
    let script = format!("echo done > {}", file.display());
    let mut tracer = Tracer::new();
    let stopped = launch(&mut tracer, &Command::new("sh").args(["-c", &script]));
    let tid = stopped.tid();
    let _watch = Watch::on(tid);
    stopped.detach().unwrap();
    assert!(matches!(tracer.wait(0), Event::Exited { code: 0, .. }));
    assert_eq!(fs::read_to_string(&file).unwrap(), "done\n");
    fs::remove_file(file).unwrap();
}
