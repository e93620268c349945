//! leaktap in a shell on a terminal: Ctrl-C, Ctrl-Z and `fg` reach a launched program as they would
//! without leaktap, and what leaktap draws is in nobody's way.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::child::Watched;
use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::tools;

/// What the progress line has, and nothing else.
const PROGRESS: &str = " events/s";
const CTRL_C: &[u8] = b"\x03";
const CTRL_Z: &[u8] = b"\x1a";

/// An interactive shell on a terminal of its own: script(1) copies between the terminal and our
/// pipes.
fn shell() -> Option<Watched> {
    tools::program("script")?;
    let mut command = Command::new("script");
    command.args([
        "--quiet",
        "--flush",
        "--return",
        "--command",
        "bash --norc --noprofile -i",
        "/dev/null",
    ]);
    // A line before each prompt: what is typed before the prompt may be lost.
    Some(Watched::spawn(
        command
            .env("PROMPT_COMMAND", "echo prompt-$?")
            .env("TERM", "ansi"),
    ))
}

/// `leaktap run` of the fixture, as one types it.
fn run(engine: Engine, fixture: &str) -> String {
    let program = Fixture::new(fixture).program().display().to_string();
    let leaktap = env!("CARGO_BIN_EXE_leaktap");
    format!("{leaktap} run --engine {engine} --report-file /dev/null -- {program}\n")
}

/// `leaktap attach`, as one types it.
fn attach(engine: Engine, pid: &str, options: &str) -> String {
    let leaktap = env!("CARGO_BIN_EXE_leaktap");
    format!("{leaktap} attach --engine {engine} --report-file /dev/null {options} -p {pid}\n")
}

/// What job.c calls itself.
fn started_job(shell: &Watched) -> Pid {
    let line = shell.stdout_line("ready ");
    let number = line.trim_end().rsplit(' ').next().expect("a number");
    Pid::from_raw(number.parse().expect("a number"))
}

/// The file of its terminal.
fn terminal_of(shell: &mut Watched) -> String {
    shell.send(b"echo on-$(tty)-\n");
    let line = shell.stdout_line("on-/dev/");
    let (_, name) = line.split_once("on-").expect("as typed");
    name.trim_end().trim_end_matches('-').to_owned()
}

engines! {
    fn ctrl_z_stops_and_fg_goes_on(engine) {
        let Some(mut shell) = shell() else { return };
        shell.send(run(engine, "portable.c").as_bytes());
        shell.stdout_line("ready");
        shell.send(CTRL_Z);
        shell.stdout_line("prompt-148"); // 128 + SIGTSTP
        shell.send(b"fg; echo ended-$((1000 + $?))\n\n");
        shell.stdout_line("done");
        shell.send(b"\n");
        shell.stdout_line("ended-1000");
    }

    /// An editor puts the terminal in order before it stops, and after.
    fn a_handler_of_ctrl_z_runs_before_the_stop(engine) {
        let Some(mut shell) = shell() else { return };
        shell.send(run(engine, "job.c").as_bytes());
        shell.stdout_line("ready");
        for (times, goes_on) in [(1, "fg\n"), (2, "bg\n")] {
            shell.send(CTRL_Z);
            shell.stdout_lines("cooked", times);
            shell.stdout_lines("prompt-148", times); // 128 + SIGTSTP
            assert!(!shell.stdout_has(times, "raw"));
            shell.send(goes_on.as_bytes());
            shell.stdout_lines("raw", times);
        }
        shell.send(b"kill %1; wait %1; echo ended-$((1000 + $?))\n");
        shell.stdout_line("ended-1143"); // 128 + SIGTERM
    }

    /// Its target must not be held by a leaktap that is stopped.
    fn ctrl_z_detaches(engine) {
        let Some(mut shell) = shell() else { return };
        let mut target = Fixture::new("portable.c").start();
        shell.send(attach(engine, &target.pid().to_string(), "--no-progress").as_bytes());
        shell.stdout_line("leaktap: attached to ");
        shell.send(CTRL_Z);
        shell.stdout_line("prompt-0");
        target.work();
        target.end().succeeded();
    }

    fn ctrl_c_ends_the_program_and_leaktap_says_so(engine) {
        let Some(mut shell) = shell() else { return };
        shell.send(run(engine, "portable.c").as_bytes());
        shell.stdout_line("ready");
        shell.send(CTRL_C);
        shell.stdout_line("prompt-130"); // 128 + SIGINT
        assert!(!shell.stdout_has(1, PROGRESS));
    }

    fn ctrl_c_again_and_again_ends_the_trace_and_not_the_program(engine) {
        let Some(mut shell) = shell() else { return };
        shell.send(run(engine, "job.c").as_bytes());
        let job = started_job(&shell);
        for times in 1..=3 {
            shell.send(CTRL_C);
            shell.stdout_lines("interrupted", times);
        }
        shell.stdout_line("prompt-0");
        assert_eq!(kill(job, Signal::SIGKILL), Ok(()));
    }

    /// A program of another terminal, or of none.
    fn a_progress_line_keeps_to_the_width_of_the_terminal(engine) {
        let Some(mut shell) = shell() else { return };
        let mut target = Fixture::new("portable.c").start();
        let terminal = terminal_of(&mut shell);
        shell.send(attach(engine, &target.pid().to_string(), "").as_bytes());
        shell.stdout_text("0 B live, 0 events/s (Ctrl-C: report)\x1b[?7h\r");
        let narrow = ["-F", &terminal, "cols", "31"];
        assert!(Command::new("stty").args(narrow).status().expect("stty").success());
        // `portable 00:00:00  0 B live, 0 events/s` up to the last but one of 31 columns.
        shell.stdout_text("  0 B live, 0\x1b[?7h\r");
        shell.send(CTRL_C);
        shell.stdout_text("\r\x1b[Jleaktap: wrote ");
        shell.stdout_line("prompt-0");
        target.work();
        target.end().succeeded();
    }

    fn no_progress_line_where_the_target_uses_the_terminal(engine) {
        let Some(mut shell) = shell() else { return };
        let terminal = terminal_of(&mut shell);
        shell.send(b"sleep 80 > /dev/null 2>&1 < /dev/null &\n");
        shell.send(attach(engine, "$!", "--duration 300ms").as_bytes());
        let mut sleep = Command::new("sh");
        sleep.args(["-c", "exec 2> $0; exec sleep 80", &terminal]);
        let stranger = Watched::spawn(&mut sleep);
        let pid = stranger.pid().to_string();
        shell.send(attach(engine, &pid, "--duration 300ms").as_bytes());
        shell.send(b"kill %1; echo over-$((1000 + $?))\n");
        shell.stdout_line("over-1000");
        assert!(!shell.stdout_has(1, PROGRESS));
        shell.stdout_lines("leaktap: attached to ", 2);
    }
}
