//! A flame graph: one SVG file, to be opened in a browser.

use std::io::{self, BufWriter, Write};

use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{Options, from_lines};

use super::folded;
use super::frames::processes;
use crate::names::printable;
use crate::{Format, Report};

/// Stacks by bytes, callers below.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flamegraph<'a> {
    /// The processes that the report sums up, if there are several.
    pub of: &'a [Report],
}

/// What sums in the graph do not exceed.
const MOST: u64 = 1 << 53;

/// The only line of a report that has none.
const NOTHING: &str = "[nothing listed] 1";

impl Format for Flamegraph<'_> {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        for report in reports {
            let of = match self.of {
                [] => std::slice::from_ref(report),
                several => several,
            };
            let mut options = Options::default();
            options.colors = Palette::Basic(BasicPalette::Mem);
            options.count_name = "bytes".to_owned();
            options.title = format!("Not freed: {}", processes(of));
            options.subtitle = Some(format!("leaktap, {}", printable(&report.started)));
            let mut lines = folded::lines(report, MOST);
            // A graph has to have a width.
            if report.sites.iter().all(|site| site.bytes == 0) {
                lines = vec![NOTHING.to_owned()];
            }
            let lines = lines.iter().map(String::as_str);
            from_lines(&mut options, lines, &mut out).map_err(io::Error::other)?;
        }
        out.flush()
    }
}
