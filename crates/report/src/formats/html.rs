//! A page for a browser: one file, which asks for no other.
//!
//! Nothing of the target is markup. It is in one element of JSON, and the page's script makes text
//! of it. The page has a policy by which a browser runs no other script.

mod columns;
mod course;
mod data;
mod tables;

use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use self::data::Data;
use crate::{Excerpts, Format, Report};

/// The document, with the names of its parts in braces.
const PAGE: &str = include_str!("html/page.html");

const STYLE: &str = concat!(
    include_str!("html/css/base.css"),
    include_str!("html/css/summary.css"),
    include_str!("html/css/sites.css"),
    include_str!("html/css/stacks.css"),
    include_str!("html/css/media.css"),
);

/// In the order in which they need each other.
const SCRIPT: &str = concat!(
    "\"use strict\";\n",
    include_str!("html/js/words.js"),
    include_str!("html/js/data.js"),
    include_str!("html/js/state.js"),
    include_str!("html/js/select.js"),
    include_str!("html/js/table.js"),
    include_str!("html/js/difference.js"),
    include_str!("html/js/source.js"),
    include_str!("html/js/stacks.js"),
    include_str!("html/js/timeline.js"),
    include_str!("html/js/course.js"),
    include_str!("html/js/flame.js"),
    include_str!("html/js/functions.js"),
    include_str!("html/js/page.js"),
);

/// What the policy allows: SHA-256 of [`STYLE`] and [`SCRIPT`] in base 64, a line each. A test says
/// so if they are others.
const HASHES: &str = include_str!("html/hashes");

/// One page for all processes: what is left, where, since when, to look through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Html<'a> {
    /// Several reports as one, [`merged`](crate::merged).
    pub all: Option<&'a Report>,
    /// Source lines to be shown.
    pub excerpts: Option<&'a Excerpts>,
}

impl Format for Html<'_> {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        let mut rest = PAGE;
        while let Some((before, (name, after))) = next_part(rest) {
            out.write_all(before.as_bytes())?;
            match name {
                "policy" => out.write_all(policy().as_bytes())?,
                "style" => out.write_all(STYLE.as_bytes())?,
                "script" => out.write_all(SCRIPT.as_bytes())?,
                _ => json(&Data::of(reports, self), &mut out)?,
            }
            rest = after;
        }
        out.write_all(rest.as_bytes())?;
        out.flush()
    }
}

/// What is before the first name in braces, the name, and what is after it.
fn next_part(page: &str) -> Option<(&str, (&str, &str))> {
    let (before, rest) = page.split_once("{{")?;
    Some((before, rest.split_once("}}")?))
}

fn policy() -> String {
    let mut hashes = HASHES.lines();
    let mut next = || hashes.next().unwrap_or_default();
    let (style, script) = (next(), next());
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; \
         base-uri 'none'; form-action 'none'"
    )
}

/// Writes what a browser takes for nothing but data.
fn json(data: &Data<'_>, out: &mut impl Write) -> io::Result<()> {
    data.serialize(&mut Serializer::with_formatter(out, InScript))?;
    Ok(())
}

/// Escapes what ends a script, or begins a comment there.
struct InScript;

impl Formatter for InScript {
    fn write_string_fragment<W>(&mut self, out: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        let mut pieces = fragment.split('<');
        out.write_all(pieces.next().unwrap_or_default().as_bytes())?;
        for piece in pieces {
            out.write_all(b"\\u003c")?;
            out.write_all(piece.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
