//! Other tools, and the program itself, that change the code which leaktap changes.

use std::process::Command;

use nix::unistd::Pid;

use crate::child::{Finished, Watched};
use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{Traced, attach, leaktap_with};
use crate::tools;

/// A uprobe on malloc of the C library of `pid`, which has been hit when this returns. Nothing
/// where the kernel has none.
fn uprobe(fixture: &Fixture, pid: Pid) -> Option<Watched> {
    let libc = tools::library("libc.so.6")?;
    let mut command = Command::new(fixture.program());
    let probe = Watched::spawn(command.arg(libc).args(["malloc", &pid.to_string()]));
    match &*probe.stdout_line("") {
        "seen" => Some(probe),
        _ => tools::skipped("uprobes"),
    }
}

fn attached_for_a_status(engine: Engine, target: &Target) -> Finished {
    let (engine, pid) = (engine.to_string(), target.pid().to_string());
    leaktap_with([
        "attach",
        "--engine",
        &engine,
        "--max-overhead",
        "100",
        "--error-exitcode",
        "3",
        "-v",
        "--duration",
        "300ms",
        "-p",
        &pid,
    ])
}

engines! {
    /// The kernel takes each int3 there for the uprobe's.
    fn a_uprobe_on_malloc_is_no_success_without_a_count(engine) {
        let mut target = Fixture::new("hot.c").start();
        target.begin();
        let Some(probe) = uprobe(&Fixture::new("uprobe.c"), target.pid()) else {
            return;
        };
        let told = attached_for_a_status(engine, &target);
        assert_eq!(told.status.code(), Some(125), "{}", told.shown());
        assert!(told.stdout_text().contains("ForeignBreakpoint"), "{}", told.shown());
        drop(probe);
        target.end().succeeded();
    }

    /// What it has kept of malloc, it puts back when leaktap has gone.
    fn a_program_hooks_malloc_and_unhooks_later(engine) {
        let fixture = Fixture::new("hooks.c");
        let mut target = Target::start(Command::new(fixture.program()).args(["wait", "libc"]));
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.wait();
        traced.succeeded();
        has_note(&traced, "made code writable");
        target.end().succeeded();
    }
}

fn has_note(traced: &Traced, text: &str) {
    let notes = traced.report().notes();
    assert!(notes.iter().any(|note| note.contains(text)), "{notes:?}");
}

#[test]
fn a_uprobe_that_comes_while_breakpoints_count_is_noticed() {
    let probe = Fixture::new("uprobe.c");
    let mut target = Fixture::new("hot.c").start();
    target.begin();
    let options = ["--error-exitcode", "3"];
    let tracing = attach(Engine::Breakpoint, target.pid(), &options);
    let Some(_probe) = uprobe(&probe, target.pid()) else {
        return;
    };
    let traced = tracing.detach();
    assert_eq!(traced.finished.status.code(), Some(125));
    has_note(&traced, "calls of malloc were not all seen");
    target.end().succeeded();
}

/// By a system call that no probe sees: the agent stays, and does what the jump asks for that is
/// put back.
#[test]
fn a_program_hooks_malloc_without_a_word_and_unhooks_later() {
    let fixture = Fixture::new("hooks.c");
    let mut target = Target::start(Command::new(fixture.program()).args(["wait", "raw"]));
    let tracing = attach(Engine::Auto, target.pid(), &[]);
    target.work();
    let traced = tracing.detach();
    traced.succeeded();
    has_note(&traced, "written over a jump");
    target.end().succeeded();
}
