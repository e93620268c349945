//! Samples in README.md and docs/: each is what its commands print, made again here.
//!
//! A block of code is a sample if commands in it begin with `$ `; what they print follows. The line
//! before it says what there is where they run:
//!
//! ```text
//! <!-- sample: orders.c, live service.cpp, amounts vary -->
//! ```
//!
//! Programs of `fixtures/` are in the current folder; one that is `live` runs, as process 4711.
//! What varies from run to run is in [`VARIES`]; with `amounts vary`, sizes and counts, too.
//!
//! `LEAKTAP_RENEW_SAMPLES=1 cargo test --test e2e -- samples` writes what is printed today into
//! the documents.

mod document;
mod session;
mod varying;

use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use self::document::{Document, Sample};
use self::varying::normalised;

/// With this variable set, documents are changed, not checked.
const RENEW: &str = "LEAKTAP_RENEW_SAMPLES";

/// README.md and all of docs/.
pub(crate) fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["", "docs", "docs/decisions"].map(|folder| root.join(folder));
    let entries = folders.into_iter().flat_map(fs::read_dir).flatten();
    let files = entries.flatten().map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect()
}

/// What is wrong with the samples of the document at `path`.
fn wrong_with(path: &Path) -> Vec<String> {
    let mut document = Document::read(path);
    let mut wrong = document.outputs_without_commands();
    for sample in document.samples() {
        let printed = session::run(&sample);
        if normalised(&sample, &printed) == normalised(&sample, &sample.text) {
            continue;
        }
        match env::var_os(RENEW) {
            Some(_) => document.replace(&sample, &printed),
            None => wrong.push(difference(&sample, &printed)),
        }
    }
    document.write_if_changed();
    wrong
}

/// The lines in which a sample differs from what is printed.
fn difference(sample: &Sample, printed: &str) -> String {
    let (was, is) = (
        normalised(sample, &sample.text),
        normalised(sample, printed),
    );
    let same = |(one, other): &(&String, &String)| one == other;
    let first = was.iter().zip(&is).take_while(same).count();
    let rest = was[first..].iter().rev().zip(is[first..].iter().rev());
    let last = rest.take_while(same).count();
    let only = |lines: &[String], sign: char| {
        let lines = lines[first..lines.len() - last].iter();
        lines.map(|line| format!("{sign} {line}\n")).collect()
    };
    let (gone, new): (String, String) = (only(&was, '-'), only(&is, '+'));
    format!("line {}:\n{gone}{new}printed was\n{printed}", sample.line)
}

#[test]
fn samples_are_what_is_printed() {
    let checks = documents().into_iter().map(|path| {
        thread::spawn(move || {
            let name = path.display().to_string();
            let wrong = wrong_with(&path).into_iter();
            wrong.map(|what| format!("{name}, {what}")).collect()
        })
    });
    let checks: Vec<_> = checks.collect();
    let wrong = checks.into_iter().map(|check| check.join());
    let wrong: Vec<Vec<String>> = wrong.map(|found| found.expect("a check")).collect();
    let wrong = wrong.concat();
    assert!(
        wrong.is_empty(),
        "{}\nTo renew all samples: {RENEW}=1 cargo test --test e2e -- samples",
        wrong.join("\n")
    );
}

#[test]
fn a_difference_is_shown_where_it_is() {
    let sample = Sample {
        text: "$ x\n  5 B at a\n  5 B at b\n  5 B at c\n".to_owned(),
        ..Sample::default()
    };
    let shown = difference(&sample, "$ x\n  5 B at a\n  6 B at b\n  5 B at c\n");
    assert!(
        shown.contains("-   5 B at b\n+   6 B at b\nprinted"),
        "{shown}"
    );
}
