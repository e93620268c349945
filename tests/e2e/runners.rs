//! What runs tests, with leaktap before each of them: no file of the project is changed for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::child::{Finished, Watched};
use crate::compile::sources;
use crate::tools;

/// Runs `words` in `folder` to its end.
fn within(folder: &Path, words: &[&str]) -> Finished {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(folder);
    Watched::spawn(&mut command).finish()
}

/// A project with a test that leaks and one that does not.
fn project(folder: &Path, name: &str, text: &str) {
    for source in ["orders.c", "compared.c"] {
        fs::copy(sources().join(source), folder.join(source)).expect("a copy");
    }
    fs::write(folder.join(name), text).expect("a file");
}

/// As `ctest -T memcheck` does it with valgrind: the command's name tells it which tool that is.
#[test]
fn ctest_counts_leaks() {
    if tools::program("ctest").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let lists = "cmake_minimum_required(VERSION 3.10)\nproject(shop C)\ninclude(CTest)\n\
        add_compile_options(-g -O1 -fno-builtin)\n\
        add_executable(orders orders.c)\nadd_test(NAME orders COMMAND orders)\n\
        add_executable(keeps compared.c)\nadd_test(NAME keeps COMMAND keeps)\n";
    project(folder.path(), "CMakeLists.txt", lists);
    let tool = env!("CARGO_BIN_EXE_leaktap-valgrind");
    let tool = format!("-DMEMORYCHECK_COMMAND={tool}");
    within(folder.path(), &["cmake", "-S", ".", "-B", "build", &tool]).succeeded();
    within(folder.path(), &["cmake", "--build", "build"]).succeeded();
    let checked = within(&folder.path().join("build"), &["ctest", "-T", "memcheck"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    let counted = said.lines().find(|line| line.contains("Memory Leak"));
    if !counted.is_some_and(|line| line.trim_end().ends_with(" 1")) {
        checked.fail("Memory Leak - 1, as with memcheck: what is lost indirectly is none");
    }
    let log = folder
        .path()
        .join("build/Testing/Temporary/MemoryChecker.1.log");
    let log = fs::read_to_string(log).expect("CTest's log");
    assert!(
        log.contains("48 bytes in 3 blocks are definitely lost in loss record 2 of 2"),
        "{log}"
    );
}

/// By `--wrapper`; what a test says itself stays on standard output.
#[test]
fn meson_fails_tests_that_leak() {
    if tools::program("meson").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let build = "project('shop', 'c')\n\
        test('orders', executable('orders', 'orders.c', c_args: ['-fno-builtin']))\n\
        test('keeps', executable('keeps', 'compared.c', c_args: ['-fno-builtin']))\n";
    project(folder.path(), "meson.build", build);
    within(folder.path(), &["meson", "setup", "build"]).succeeded();
    let wrapper = format!(
        "{} run -q --error-exitcode 99 --",
        env!("CARGO_BIN_EXE_leaktap")
    );
    let words = ["meson", "test", "-C", "build", "--wrapper", &wrapper];
    let tested = within(folder.path(), &words);
    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    let line = |name: &str| {
        said.lines()
            .find(|line| line.contains(name))
            .unwrap_or_default()
    };
    if !line(" orders ").contains("ERROR") || !line(" keeps ").contains("OK") {
        tested.fail("orders: ERROR (99), keeps: OK");
    }
}
