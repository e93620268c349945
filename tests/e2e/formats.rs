//! Each format of the report, opened by the program that people open it with.

mod captured;
mod ci;
mod processes;
mod stacks;
mod valgrind;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::child::Watched;

/// What `program` prints when it reads a report; the test fails unless all is well.
fn read_by<A: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = A>) -> String {
    read_by_in(Path::new("."), program, arguments)
}

/// As [`read_by`], in a folder that `program` may write to.
fn read_by_in<A: AsRef<OsStr>>(
    folder: &Path,
    program: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    let mut process = Watched::spawn_for(&mut command, Duration::from_secs(120));
    process.close_stdin();
    process.finish().succeeded().stdout_text()
}

/// The lines of `text` that have all of these words.
fn lines_with<'t>(text: &'t str, words: &[&str]) -> Vec<&'t str> {
    let has = |line: &&str| words.iter().all(|word| line.contains(word));
    text.lines().filter(has).collect()
}
