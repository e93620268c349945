//! Lines of source files, for `--source`.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use leaktap_image::SourceText;
use leaktap_report::{Excerpts, Listed, Named, named_lines};

/// Most files that are read.
const MOST: usize = 1000;

/// Reads what frames of `listed` name: where debug information has it, or below `sysroot`. With
/// `culprits`, only where so many sites are. What is not shown of the user's own code is noted.
pub(crate) fn read(
    listed: &mut Listed,
    culprits: Option<usize>,
    sysroot: Option<&Path>,
) -> Excerpts {
    let reports: Vec<_> = listed.reports.iter().chain(&listed.all).collect();
    let started = reports.first().and_then(|report| begin(&report.started));
    let mut excerpts = Excerpts::default();
    let mut told = Told::default();
    let mut hangs = false;
    for (number, named) in named_lines(&reports, culprits).iter().enumerate() {
        let text = match number < MOST {
            _ if hangs => Err(io::ErrorKind::TimedOut.into()),
            true => text(&named.file, sysroot),
            false => Err(io::Error::other(format!("more than {MOST} files"))),
        };
        // Of a file system that does not answer, one file is waited for.
        hangs |= matches!(&text, Err(error) if error.kind() == io::ErrorKind::TimedOut);
        match text {
            Ok(text) if !excerpts.add(named, &text.bytes) => {
                told.missing(named, &"more lines than are shown");
            }
            Ok(text) => {
                if text
                    .modified
                    .zip(started)
                    .is_some_and(|(at, start)| at > start)
                {
                    told.changed.push(named.file.clone());
                }
            }
            Err(error) => told.missing(named, &error),
        }
    }
    if let Some(first) = listed.reports.first_mut() {
        first.notes.extend(told.notes());
    }
    excerpts
}

/// Surely no sooner than the trace began: a report has that in whole seconds.
fn begin(started: &str) -> Option<SystemTime> {
    let started: Timestamp = started.parse().ok()?;
    SystemTime::from(started).checked_add(Duration::from_secs(1))
}

fn text(file: &str, sysroot: Option<&Path>) -> io::Result<SourceText> {
    let path = Path::new(file);
    let below = sysroot.map(|folder| {
        let is_name = |part: &Component<'_>| matches!(part, Component::Normal(_));
        folder.join(path.components().filter(is_name).collect::<PathBuf>())
    });
    match below.map(|path| SourceText::read(&path)) {
        Some(Ok(text)) => Ok(text),
        _ if path.is_absolute() => SourceText::read(path),
        _ => Err(io::Error::other("it is not said in which folder it is")),
    }
}

/// What the reader should know of the files.
#[derive(Default)]
struct Told {
    missing: usize,
    /// The first of them, and why.
    first: Option<String>,
    /// Those that were written since the trace began.
    changed: Vec<String>,
}

impl Told {
    /// A file is not shown. Of others' code, as the C library's, that is nothing to tell.
    fn missing(&mut self, named: &Named, why: &dyn std::fmt::Display) {
        if named.is_own {
            self.missing += 1;
            let first = || format!("{} ({why})", named.file);
            self.first.get_or_insert_with(first);
        }
    }

    fn notes(self) -> impl Iterator<Item = String> {
        let others = |number: usize| match number {
            1 => String::new(),
            more => format!(", nor that of {} more", more - 1),
        };
        let missing = self.first.map(|first| {
            let others = others(self.missing);
            format!("the source of {first} is not shown{others}")
        });
        let changed = self.changed.first().map(|first| {
            let others = match self.changed.len() {
                1 => String::new(),
                more => format!(" and {} more", more - 1),
            };
            format!("{first}{others} changed after the trace began: lines may be others")
        });
        missing.into_iter().chain(changed)
    }
}
