//! leaktap's own failures: one line that says what was tried and what would help, and the exit
//! status of CLI.md.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::sys::signal::kill;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::child::{Finished, Watched};
use crate::compile::Build;
use crate::engines::engines;
use crate::fixture::Fixture;
use crate::leaktap::{attach, leaktap_with};
use crate::tools;

/// One line on standard error with all of `texts` (whatever their case), nothing on standard
/// output, and this status.
fn fails(finished: &Finished, status: i32, texts: &[&str]) {
    let said = finished.stderr_text();
    let wanted = |text: &&str| said.to_lowercase().contains(&text.to_lowercase());
    if finished.status.code() != Some(status) || !texts.iter().all(wanted) {
        finished.fail(format_args!(
            "exit status {status} and a message with {texts:?} expected"
        ));
    }
    if said.lines().count() != 1 || !said.starts_with("leaktap: ") || !finished.stdout.is_empty() {
        finished.fail("one line `leaktap: …` expected");
    }
}

/// Exit status 2, and a message with `text`.
fn usage(arguments: &[&str], text: &str) {
    let finished = leaktap_with(arguments);
    if finished.status.code() != Some(2)
        || !finished.stderr_text().contains(text)
        || !finished.stdout.is_empty()
    {
        finished.fail(format_args!(
            "{arguments:?}: exit status 2 and a message with {text:?} expected"
        ));
    }
}

fn attach_to(pid: Pid) -> Finished {
    leaktap_with(["attach", "-p", &pid.to_string()])
}

#[test]
fn wrong_usage_is_exit_status_2() {
    let here = std::process::id().to_string();
    usage(&["fly"], "fly");
    usage(&["attach"], "-p");
    usage(&["attach", "-p", "abc"], "abc");
    usage(&["attach", "-p", "-5"], "-5");
    usage(&["run"], "PROGRAM");
    usage(&["report"], "CAPTURE");
    usage(
        &["attach", "-p", &here, "--no-such-option"],
        "--no-such-option",
    );
    let values: &[[&str; 2]] = &[
        ["--duration", "5parsecs"],
        ["--duration", "-1s"],
        ["--older", "old"],
        ["--engine", "steam"],
        ["-F", "papyrus"],
        ["--depth", "0"],
        ["--depth", "257"],
        ["--min-size", "big"],
        ["--top", "x"],
        ["--by", "colour"],
        ["--leak-check", "perhaps"],
        ["--error-exitcode", "256"],
        ["--errors-for", "definite"],
        ["--errors-for", "reachable,indirect"],
    ];
    for [option, value] in values {
        let named = if *option == "--errors-for" {
            option
        } else {
            value
        };
        usage(
            &["attach", "-p", &here, &format!("{option}={value}")],
            named,
        );
        usage(
            &["run", &format!("{option}={value}"), "--", "/bin/true"],
            named,
        );
    }
    usage(&["attach", "0"], "0");
    usage(&["attach", &here, "-p", &here], "--pid");
    usage(&["run", "-q", "-v", "--", "/bin/true"], "--verbose");
    usage(&["man", "fly"], "fly");
    usage(&["completions", "cmd.exe"], "cmd.exe");
}

#[test]
fn help_and_version_go_to_standard_output() {
    for word in ["--help", "--version"] {
        let finished = leaktap_with([word]).succeeded();
        assert!(
            finished.stdout_text().contains("leaktap"),
            "{}",
            finished.shown()
        );
    }
}

#[test]
fn no_such_process() {
    let gone = Watched::spawn(&mut Command::new("true"));
    let pid = gone.pid();
    gone.finish();
    fails(&attach_to(pid), 125, &["no", "process", &pid.to_string()]);
}

#[test]
fn a_zombie_cannot_be_attached() {
    let mut child = Command::new("true").spawn().expect("true");
    let pid = Pid::from_raw(child.id().cast_signed());
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("its end");
    let finished = attach_to(pid);
    child.wait().expect("its status");
    fails(&finished, 125, &["zombie"]);
}

#[test]
fn a_kernel_thread_cannot_be_attached() {
    match fs::read_to_string("/proc/2/comm").as_deref() {
        Ok("kthreadd\n") => fails(&attach_to(Pid::from_raw(2)), 125, &["kernel thread"]),
        _ => println!("no kernel thread to be seen here (a container)"),
    }
}

#[test]
fn a_32_bit_program_is_refused() {
    let flags = vec!["-m32".to_owned()];
    let Ok(()) = crate::compile::compile(
        "portable.c",
        &Build {
            flags: flags.clone(),
            compiler: None,
        },
    )
    .map(drop) else {
        return tools::skipped("gcc -m32").unwrap_or_default();
    };
    let fixture = Fixture::built(
        "portable.c",
        &Build {
            flags,
            compiler: None,
        },
    );
    let target = fixture.start();
    fails(&attach_to(target.pid()), 125, &["32-bit"]);
    target.end().succeeded();
    let program = fixture.program().display().to_string();
    fails(
        &leaktap_with(["run", "--", &program, "run"]),
        125,
        &["32-bit"],
    );
}

#[test]
fn a_program_without_an_allocator_is_refused() {
    let flags = vec!["-static".to_owned(), "-s".to_owned()];
    let fixture = Fixture::built(
        "portable.c",
        &Build {
            flags,
            compiler: None,
        },
    );
    let mut target = fixture.start();
    fails(
        &attach_to(target.pid()),
        125,
        &["no allocator", &target.pid().to_string()],
    );
    target.work();
    target.end().succeeded();
}

#[test]
fn what_cannot_be_launched() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("plain.txt");
    fs::write(&file, "no program").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("permissions");
    let (file, folder) = (
        file.display().to_string(),
        directory.path().display().to_string(),
    );
    fails(
        &leaktap_with(["run", "--", "/no/such/program"]),
        127,
        &["/no/such/program"],
    );
    fails(
        &leaktap_with(["run", "--", "no-such-program-in-path"]),
        127,
        &["no-such-program-in-path"],
    );
    fails(&leaktap_with(["run", "--", &file]), 126, &["plain.txt"]);
    fs::write(&file, "#!/no/such/interpreter -x\n").expect("a script");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("permissions");
    let names = ["plain.txt", "interpreter /no/such/interpreter is not found"];
    fails(&leaktap_with(["run", "--", &file]), 126, &names);
    fails(&leaktap_with(["run", "--", &folder]), 126, &[&folder]);
}

#[test]
fn what_is_no_capture() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let capture = path("good.leaktap");
    leaktap_with(["run", "-q", "-o", &capture, "--", "/bin/true"]).succeeded();
    let good = fs::read(&capture).expect("a capture");
    let damaged = path("damaged.leaktap");

    fails(&leaktap_with(["report", &path("absent")]), 125, &["absent"]);
    fails(
        &leaktap_with(["report", &folder_of(&capture)]),
        125,
        &[&folder_of(&capture)],
    );
    for bytes in [
        &good[..good.len() / 2],
        b"",
        b"what is this",
        b"{}",
        &[0xff; 4000],
    ] {
        fs::write(&damaged, bytes).expect("a file");
        fails(
            &leaktap_with(["report", &damaged]),
            125,
            &["damaged.leaktap", "capture"],
        );
    }
    fs::write(&damaged, b"{\"schema\": 77}").expect("a file");
    fails(
        &leaktap_with(["report", &damaged]),
        125,
        &["damaged.leaktap", "version"],
    );
}

fn folder_of(file: &str) -> String {
    file.rsplit_once('/')
        .map(|(folder, _)| folder.to_owned())
        .unwrap_or_default()
}

#[test]
fn a_report_that_cannot_be_written_is_told() {
    let finished = leaktap_with([
        "run",
        "--report-file",
        "/no/such/folder/x",
        "--",
        "/bin/true",
    ]);
    fails(&finished, 125, &["/no/such/folder/x"]);
}

#[test]
fn without_permission_the_remedy_is_told() {
    if !nix::unistd::geteuid().is_root() || tools::program("runuser").is_none() {
        return;
    }
    let target = Fixture::new("portable.c").start();
    let binary = tempfile::tempdir().expect("a temporary directory");
    let copy = binary.path().join("leaktap");
    fs::copy(env!("CARGO_BIN_EXE_leaktap"), &copy).expect("a copy where another user can read it");
    fs::set_permissions(binary.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let mut command = Command::new("runuser");
    command.args(["-u", "nobody", "--"]).arg(&copy).args([
        "attach",
        "-p",
        &target.pid().to_string(),
    ]);
    fails(
        &Watched::spawn(command.current_dir("/")).finish(),
        125,
        &["permi", &target.pid().to_string()],
    );
}

engines! {
    fn a_process_has_one_tracer(engine) {
        let mut target = Fixture::new("portable.c").start();
        let first = attach(engine, target.pid(), &[]);
        let tracer = first.process().pid().to_string();
        fails(&attach_to(target.pid()), 125, &["traced", &tracer]);
        target.work();
        first.detach().succeeded();
        target.end().succeeded();
    }

    /// leaktap is refused nothing and changes nothing where it stops at once.
    fn the_target_of_a_failed_attach_lives_on(engine) {
        let mut target = Fixture::new("portable.c").start();
        leaktap_with([
            "attach",
            "--engine",
            &engine.to_string(),
            "-F",
            "papyrus",
            "-p",
            &target.pid().to_string(),
        ]);
        kill(target.pid(), None).expect("alive");
        target.work();
        target.end().succeeded();
    }
}
