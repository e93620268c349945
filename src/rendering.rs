//! Which of the formats is written, and of what.

use std::io::{self, Write};
use std::slice;

use leaktap_report::{
    Csv, Flamegraph, Folded, Format as _, Html, Json, Pprof, Report, Speedscope, Style, Summary,
    Text,
};

use crate::cli::Format;

/// What is printed.
pub(crate) struct Listed {
    pub(crate) reports: Vec<Report>,
    /// All of them as one, if they are several, and the format has that.
    pub(crate) all: Option<Report>,
}

/// How it is printed.
pub(crate) struct Rendering {
    pub(crate) format: Format,
    pub(crate) style: Style,
    /// Most groups, for text: other formats are given no more.
    pub(crate) top: Option<usize>,
}

impl Rendering {
    pub(crate) fn write(&self, listed: &Listed, out: &mut dyn Write) -> io::Result<()> {
        let (each, all) = (&*listed.reports, listed.all.as_ref());
        let sum = all.map_or(each, slice::from_ref);
        match self.format {
            Format::Text => {
                let (style, top) = (self.style, self.top);
                Text { style, top, all }.write(each, out)
            }
            Format::Json => Json.write(each, out),
            Format::Summary => Summary { of: each }.write(sum, out),
            Format::Csv => Csv.write(each, out),
            Format::Pprof => Pprof { of: each }.write(sum, out),
            Format::Folded => Folded.write(sum, out),
            Format::Flamegraph => Flamegraph { of: each }.write(sum, out),
            Format::Html => Html { all }.write(each, out),
            Format::Speedscope => Speedscope.write(each, out),
        }
    }
}
