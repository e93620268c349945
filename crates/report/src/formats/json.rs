//! JSON, with the truth in it and nothing that a terminal acts on.

use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::compact::compact;
use crate::names::is_harmful;
use crate::{Format, Report};

/// One line of JSON a process, schema 2.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl Format for Json {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        // Thousands of frames are written in small pieces, each of which would be a call through a
        // table.
        let mut out = BufWriter::new(out);
        let reports = reports.iter().cloned();
        lines(reports.map(Report::for_json), &mut out)?;
        out.flush()
    }
}

/// `reports`, one a line, with what takes less space.
pub(crate) fn lines(reports: impl Iterator<Item = Report>, out: &mut impl Write) -> io::Result<()> {
    for mut report in reports {
        compact(&mut report);
        report.serialize(&mut Serializer::with_formatter(&mut *out, Escaping))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// `value`, on a line.
pub(crate) fn write(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    value.serialize(&mut Serializer::with_formatter(&mut out, Escaping))?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Escapes what JSON allows in a string, and a terminal would act on: names are the target's own.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W>(&mut self, out: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        /// DELETE; what is beyond ASCII has larger bytes.
        const LAST: u8 = 0x7f;
        if fragment.bytes().all(|byte| byte < LAST) {
            return out.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some((at, harmful)) = rest.char_indices().find(|(_, c)| is_harmful(*c)) {
            let (before, from) = rest.split_at(at);
            out.write_all(before.as_bytes())?;
            for unit in harmful.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = from.split_at(harmful.len_utf8()).1;
        }
        out.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use crate::formats::text::tests::report;
    use crate::{Format, Json, Report};

    /// It is text for a terminal, and the same when read back.
    #[test]
    fn names_are_escaped_and_stay_what_they_are() {
        let mut odd = report();
        odd.target.program = "/x\x1b[2J\x07\x7f\u{9b}31m\u{202e}gpj.\u{2066}ü\u{e0041}".to_owned();
        let mut text = Vec::new();
        Json.write(std::slice::from_ref(&odd), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(crate::names::is_harmful), "{line}");
        assert!(line.contains("\\u202egpj.\\u2066ü\\udb40\\udc41"), "{line}");
        assert_eq!(serde_json::from_str::<Report>(line).unwrap(), odd);
    }
}
