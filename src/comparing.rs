//! Captures beside each other: what has changed, and what they have in common.

use std::io::{self, Write};

use leaktap_report::{Needs, printable, read, replicas, write};

use crate::cli::{Attach, Diff, Merge, Whom};
use crate::error::{Error, USAGE};
use crate::output::Output;
use crate::{captured, traced};

/// Prints what has changed between two captures, or since one.
pub(crate) fn diff(options: &Diff) -> Result<u8, Error> {
    let before = captured(&options.before, &options.listing)?;
    match (&options.after, options.pid) {
        (Some(_), _) if options.trace.output.is_some() || options.trace.duration.is_some() => {
            let why = "-o and --duration are for a trace: leaktap diff BEFORE -p PID";
            Err(Error::Usage(why.to_owned()))
        }
        (Some(after), _) => {
            let output = Output::of_report(&options.listing)?.compared_with(before);
            output.check_format()?;
            let reports = captured(after, &options.listing)?;
            Ok(output.print(reports)?.unwrap_or(0))
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
