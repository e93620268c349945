//! The truth: fixtures report exactly the sites, blocks and bytes that they state, launched and
//! attached, again and again.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::clean::{Snapshot, left_behind};
use crate::compare::{self, differences, unlike};
use crate::compile::Build;
use crate::engines::Engine;
use crate::fixture::{Fixture, Target};
use crate::leaktap::{Traced, attach, run};
use crate::tools;
use crate::truth::{Mode, Truth};

/// How often in a row each fixture must be right.
const TIMES: usize = 20;

/// Launches the fixture, and compares.
fn launched(fixture: &Fixture, engine: Engine) {
    let traced = run(engine, &[fixture.program().as_os_str(), "run".as_ref()]);
    traced.succeeded();
    compared(&fixture.truth(Mode::Run), &traced, Mode::Run, engine);
}

/// Launches the fixture with a preloaded `library`, and compares. What the library keeps for itself
/// does not count.
pub(crate) fn launched_with(library: &Path, fixture: &Fixture, engine: Engine) {
    let mut preload = OsString::from("LD_PRELOAD=");
    preload.push(library);
    // Not in our own environment: leaktap shall not have it.
    let words = [
        OsStr::new("/usr/bin/env"),
        &preload,
        fixture.program().as_os_str(),
        "run".as_ref(),
    ];
    let traced = run(engine, &words);
    traced.succeeded();
    let mut truth = fixture.truth(Mode::Run);
    truth.tolerate(&library.display().to_string());
    compared(&truth, &traced, Mode::Run, engine);
}

/// Attaches to a started fixture, lets it work, detaches, and compares; the target must be as if
/// nothing had happened.
pub(crate) fn attached(fixture: &Fixture, mut target: Target, engine: Engine) {
    let before = Snapshot::of(target.pid());
    let tracing = attach(engine, target.pid(), &[]);
    target.work();
    let traced = tracing.detach();
    traced.succeeded();
    let truth = fixture.truth(Mode::Attach);
    compared(&truth, &traced, Mode::Attach, engine);
    let changes = match truth.maps_change {
        true => left_behind(target.pid()),
        false => before.changes(target.pid()),
    };
    if !changes.is_empty() {
        traced.fail("the target is not what it was", &changes);
    }
    target.end().succeeded();
}

/// Attaches to the fixture with `options`, lets it work, detaches, and compares. It ends well.
pub(crate) fn worked(fixture: &Fixture, engine: Engine, options: &[&str]) -> Traced {
    let mut target = fixture.start();
    let tracing = attach(engine, target.pid(), options);
    target.work();
    let traced = tracing.detach();
    compare::exact(fixture, &traced, Mode::Attach);
    target.end().succeeded();
    traced
}

fn compared(truth: &Truth, traced: &Traced, mode: Mode, engine: Engine) {
    let report = traced.report();
    assert_eq!(report.at("/engine"), &engine.to_string());
    assert_eq!(report.at("/mode"), &mode.to_string());
    let wrong = differences(truth, report);
    if !wrong.is_empty() {
        traced.fail(&format!("{mode}: - missing, + too many, ! wrong"), &wrong);
    }
}

fn again_and_again(fixture: &Fixture, mode: Mode, engine: Engine) {
    for _ in 0..TIMES {
        match mode {
            Mode::Run => launched(fixture, engine),
            Mode::Attach => attached(fixture, fixture.start(), engine),
        }
    }
}

/// Both engines see the same: every stack, frame by frame, with as many blocks and bytes.
fn alike(fixture: &Fixture) {
    let launched = |engine| run(engine, &[fixture.program().as_os_str(), "run".as_ref()]);
    let attached = |engine| {
        let mut target = fixture.start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        tracing.detach()
    };
    assert_alike(&fixture.truth(Mode::Run), launched);
    assert_alike(&fixture.truth(Mode::Attach), attached);
}

pub(crate) fn assert_alike(truth: &Truth, traced: impl Fn(Engine) -> Traced) {
    let (breakpoint, auto) = (traced(Engine::Breakpoint), traced(Engine::Auto));
    let unlike = unlike(truth, breakpoint.succeeded(), auto.succeeded());
    if !unlike.is_empty() {
        auto.fail("< breakpoint, > auto", &unlike);
    }
}

/// `name: "file"` becomes the tests `name::{launched, attached}::{breakpoint, auto}` and
/// `name::alike_under_both_engines`.
macro_rules! exact {
    ($($name:ident: $fixture:expr;)*) => {$(
        mod $name {
            use super::*;

            crate::engines::engines! {
                fn launched(engine) {
                    if let Some(fixture) = $fixture {
                        again_and_again(&fixture, Mode::Run, engine);
                    }
                }
                fn attached(engine) {
                    if let Some(fixture) = $fixture {
                        again_and_again(&fixture, Mode::Attach, engine);
                    }
                }
            }

            #[test]
            fn alike_under_both_engines() {
                if let Some(fixture) = $fixture {
                    alike(&fixture);
                }
            }
        }
    )*};
}

exact! {
    allocators: plain("allocators.c");
    realloc: plain("realloc.c");
    failures: plain("failures.c");
    frees_of_older_blocks: plain("before.c");
    libc_callers: plain("libc_callers.c");
    own_malloc_left_by_longjmp: plain("own_malloc.c");
    left_while_nested: plain("left_nested.c");
    dies_in_realloc: plain("dies_in_realloc.c");
    nested_calls: plain("nested.c");
    delete_that_passes_another_pointer_on: plain("own_header.cpp");
    own_operator_new: plain("own_new.cpp");
    new_and_delete: plain("new_delete.cpp");
    misuse: plain("misuse.cpp");
    exceptions: plain("exceptions.cpp");
    throwing_new: plain("throwing_new.cpp");
    recursion: plain("recursion.c");
    deep_recursion: plain("deep.c");
    threads: plain("threads.c");
    thread_death: plain("thread_death.c");
    headless: plain("headless.c");
    fork: plain("fork.c");
    spawn: plain("spawn.c");
    exec: plain("exec.c");
    timer_at_1_khz: plain("timer.c");
    signals_between_frees_of_nothing: plain("free_null.c");
    signal_stack: plain("altstack.c");
    queued_signals: plain("rtsignals.c");
    dlopen_and_dlclose: plain("dlopen.c");
    mappings: plain("mappings.c");
    mappings_of_threads_handlers_and_children: plain("own_maps.c");
    reserved_and_given_back: plain("reserved.c");
    allocator_in_the_program: plain("own_arena.c");
    allocator_with_arenas: plain("moz_arenas.c");
    allocator_that_maps_before_main: plain("own_boot.c");
    allocator_of_a_program_not_pie_that_maps_before_main: flagged("own_boot.c", "-no-pie");
    no_frame_pointer: plain("frames.c");
    realigned_stack: plain("realigned.c");
    frame_pointers_only: plain("no_cfi.c");
    debug_frame_only: plain("debug_frame.c");
    data_in_the_frame_pointer: plain("data_in_rbp.c");
    coroutines: plain("contexts.c");
    another_stack_as_in_go: plain("go_switch.c");
    callers_in_musl: compiled("musl_callers.c", "musl-gcc", &[]);
    callers_in_static_musl: compiled("musl_callers.c", "musl-gcc", &["-static"]);
    seccomp: plain("seccomp.c");
    rust: plain("rust_leaks.rs");
    rust_threads: plain("rust_threads.rs");
    portable: plain("portable.c");
    no_pie: flagged("portable.c", "-no-pie");
    static_glibc: flagged("portable.c", "-static");
    static_pie: flagged("portable.c", "-static-pie");
    musl: compiled("portable.c", "musl-gcc", &[]);
    static_musl: compiled("portable.c", "musl-gcc", &["-static"]);
    realloc_alone: compiled("only_realloc.c", "musl-gcc", &["-static"]);
    namespaces: plain("namespaces.c");
}

fn plain(name: &str) -> Option<Fixture> {
    let language = if name.ends_with(".rs") {
        "rustc"
    } else if name.ends_with(".cpp") {
        "g++"
    } else {
        "gcc"
    };
    tools::program(language)?;
    Some(Fixture::new(name))
}

fn flagged(name: &str, flag: &str) -> Option<Fixture> {
    compiled(name, "gcc", &[flag])
}

fn compiled(name: &str, compiler: &str, flags: &[&str]) -> Option<Fixture> {
    tools::program(compiler)?;
    let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    Some(Fixture::built(
        name,
        &Build {
            compiler: Some(compiler.to_owned()),
            flags,
        },
    ))
}
