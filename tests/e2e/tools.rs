//! Tools that a test needs and a machine may lack.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The path of `program`, in PATH or where Debian keeps servers; without it the test is skipped, or
/// fails if CI=true.
pub(crate) fn program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = directories
        .map(|directory| directory.join(program))
        .find(|file| file.is_file());
    found.or_else(|| skipped(program))
}

/// The shared library `name` in one of the usual directories; as [`program`] without it.
pub(crate) fn library(name: &str) -> Option<PathBuf> {
    let usual = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let found = usual
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|file| file.exists());
    found.or_else(|| skipped(name))
}

/// The system's Python, which has `package`; as [`program`] without it.
pub(crate) fn python_with(package: &str) -> Option<String> {
    let python = "/usr/bin/python3";
    let mut import = Command::new(python);
    let import = import.args(["-c", &format!("import {package}")]);
    let found = import.stderr(Stdio::null()).status();
    let has_it = found.is_ok_and(|status| status.success());
    has_it
        .then(|| python.to_owned())
        .or_else(|| skipped(package))
}

/// The folder of a package of npm's, which `tests/run` puts into `target/tools`; as [`program`]
/// without it.
pub(crate) fn npm(package: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/node_modules");
    let found = Some(tools.join(package)).filter(|folder| folder.is_dir());
    found.or_else(|| skipped(package))
}

/// Says that the present test is skipped for want of `what`, or fails it if CI=true.
pub(crate) fn skipped<T>(what: &str) -> Option<T> {
    assert!(
        env::var("CI").as_deref() != Ok("true"),
        "{what} is missing: tests/run installs it"
    );
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not by a macro: those are captured, and a test that is skipped passes.
    let _ = writeln!(
        io::stderr(),
        "SKIPPED: {test}: no {what} (tests/run installs it)"
    );
    None
}
