//! Captures beside each other: what has changed, and what they have in common.

use std::io::{self, Write};
use std::path::Path;

use leaktap_report::{Needs, Report, printable, read, replicas, write};

use crate::cli::{Attach, Diff, Merge, Whom};
use crate::error::{Error, USAGE};
use crate::output::Output;
use crate::{renaming, shown, traced};

/// Prints what has changed between two captures, or since one.
pub(crate) fn diff(options: &Diff) -> Result<u8, Error> {
    let before = named(&options.before, options)?;
    match (&options.after, options.pid) {
        (Some(_), _) if options.trace.output.is_some() || options.trace.duration.is_some() => {
            let why = "-o and --duration are for a trace: leaktap diff BEFORE -p PID";
            Err(Error::Usage(why.to_owned()))
        }
        (Some(after), _) => {
            let output = Output::of_report(&options.listing)?.compared_with(before);
            shown(&output, named(after, options)?)
        }
        (None, Some(pid)) => {
            let output = Output::of_attach(&options.trace, &options.listing)?;
            let attach = Attach {
                whom: Whom {
                    process: None,
                    pid: vec![pid],
                },
                trace: options.trace.clone(),
                listing: options.listing.clone(),
            };
            traced(&attach, &output.compared_with(before))
        }
        (None, None) => Ok(USAGE), // clap requires one
    }
}

fn named(path: &Path, options: &Diff) -> Result<Vec<Report>, Error> {
    let elsewhere = options.listing.elsewhere();
    let needs = Needs {
        ages: options.listing.older.is_some(),
        stacks: elsewhere.has_any(),
    };
    let mut reports = read(path, needs)?;
    for report in &mut reports {
        renaming::rename(report, &elsewhere);
    }
    Ok(reports)
}

/// Writes the sum of captures to another one.
pub(crate) fn merge(options: &Merge) -> Result<u8, Error> {
    let mut reports = Vec::new();
    for path in &options.captures {
        reports.extend(read(path, Needs::default())?);
    }
    let sum: Vec<_> = replicas(&reports).into_iter().collect();
    write(&options.output, &sum)?;
    let path = options.output.display().to_string();
    // Where nobody can read it, the file is there all the same.
    let _ = writeln!(io::stderr(), "leaktap: wrote {}", printable(&path));
    Ok(0)
}
