//! Which of the formats is written, and of what.

use std::env;
use std::io::{self, Write};
use std::slice;

use leaktap_report::{
    Csv, Dhat, Excerpts, Flamegraph, Folded, Format as _, Github, Gitlab, Heaptrack, Html, Json,
    Junit, Kind, Leaks, Listed, Massif, Memcheck, Pprof, Ready, Sarif, Speedscope, Style, Summary,
    Text, ValgrindXml,
};

use crate::cli::Format;

/// How it is printed.
pub(crate) struct Rendering {
    pub(crate) format: Format,
    pub(crate) style: Style,
    pub(crate) quiet: bool,
    /// Most groups, for text: other formats are given no more.
    pub(crate) top: Option<usize>,
    /// Which kinds are leaks, for formats that list nothing else.
    pub(crate) kinds: Vec<Kind>,
}

/// What is printed.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) listed: &'a Listed,
    /// Source lines, if they are asked for.
    pub(crate) excerpts: Option<&'a Excerpts>,
}

impl Rendering {
    pub(crate) fn write(&self, shown: Shown<'_>, out: &mut dyn Write) -> io::Result<()> {
        let Shown { listed, excerpts } = shown;
        let (each, all) = (&*listed.reports, listed.all.as_ref());
        let sum = all.map_or(each, slice::from_ref);
        // Where a build runs, paths begin at its folder.
        let root = env::current_dir().ok();
        let leaks = Leaks {
            kinds: &self.kinds,
            root: root.as_deref(),
        };
        match self.format {
            Format::Text => {
                let text = Text {
                    style: self.style,
                    top: self.top,
                    all,
                    excerpts,
                };
                text.write(each, out)
            }
            Format::Json => Json.write(each, out),
            Format::Summary => Summary { of: each }.write(sum, out),
            Format::Csv => Csv.write(each, out),
            Format::Pprof => Pprof { of: each }.write(sum, out),
            Format::Folded => Folded.write(sum, out),
            Format::Flamegraph => Flamegraph { of: each }.write(sum, out),
            Format::Html => Html { all, excerpts }.write(each, out),
            Format::Speedscope => Speedscope.write(each, out),
            Format::Dhat => Dhat.write(sum, out),
            Format::Massif => Massif { of: each }.write(sum, out),
            Format::Heaptrack => Heaptrack.write(sum, out),
            Format::ValgrindXml => ValgrindXml { of: each }.write(sum, out),
            Format::Junit => Junit { leaks }.write(each, out),
            Format::Sarif => Sarif { leaks }.write(sum, out),
            Format::Github => Github { leaks }.write(sum, out),
            Format::Gitlab => Gitlab { leaks }.write(sum, out),
            Format::Memcheck => Memcheck { quiet: self.quiet }.write(each, out),
            Format::Suppressions => Ready.write(each, out),
        }
    }
}
