//! Each format of the report, opened by the program that people open it with.

mod captured;
mod processes;
mod stacks;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::child::Watched;

/// What `program` prints when it reads a report; the test fails unless all is well.
fn read_by<A: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = A>) -> String {
    let mut process = Watched::spawn_for(
        Command::new(program).args(arguments),
        Duration::from_secs(120),
    );
    process.close_stdin();
    process.finish().succeeded().stdout_text()
}

/// The lines of `text` that have all of these words.
fn lines_with<'t>(text: &'t str, words: &[&str]) -> Vec<&'t str> {
    let has = |line: &&str| words.iter().all(|word| line.contains(word));
    text.lines().filter(has).collect()
}
