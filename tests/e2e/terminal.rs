//! `leaktap run` in a shell on a terminal: Ctrl-C, Ctrl-Z and `fg` reach the program as they would
//! without leaktap.

use std::process::Command;

use crate::child::Watched;
use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::tools;

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
            .env("TERM", "dumb"),
    ))
}

/// `leaktap run` of `program`, as one types it.
fn typed(engine: Engine, program: &str) -> String {
    let leaktap = env!("CARGO_BIN_EXE_leaktap");
    format!("{leaktap} run --no-progress --engine {engine} --report-file /dev/null -- {program}\n")
}

engines! {
    fn ctrl_z_stops_and_fg_goes_on(engine) {
        let Some(mut shell) = shell() else { return };
        let program = Fixture::new("portable.c").program().display().to_string();
        shell.send(typed(engine, &program).as_bytes());
        shell.stdout_line("ready");
        shell.send(b"\x1a");
        shell.stdout_line("prompt-148"); // 128 + SIGTSTP
        shell.send(b"fg; echo ended-$((1000 + $?))\n\n");
        shell.stdout_line("done");
        shell.send(b"\n");
        shell.stdout_line("ended-1000");
    }

    fn ctrl_c_ends_the_program_and_leaktap_says_so(engine) {
        let Some(mut shell) = shell() else { return };
        let program = Fixture::new("portable.c").program().display().to_string();
        shell.send(typed(engine, &program).as_bytes());
        shell.stdout_line("ready");
        shell.send(b"\x03");
        shell.stdout_line("prompt-130"); // 128 + SIGINT
    }
}
