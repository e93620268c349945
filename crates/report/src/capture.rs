//! The capture file: all that a report needs, to be rendered again elsewhere.
//!
//! First line `leaktap-capture 1`, then a JSON object a process, one a line: the report of schema 1
//! with all its sites, unfiltered, and the ages of each site's blocks.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde_json::Value;

use crate::{Error, Report, SCHEMA, json, replace};

const MAGIC: &str = "leaktap-capture ";
const VERSION: u32 = 1;

/// Longest version that an error repeats, in characters.
const LONGEST_VERSION: usize = 20;

/// Writes `reports` to a capture at `path`, as a whole or not at all. Returns whether it is in the
/// place of another file.
///
/// # Errors
/// [`Error::Capture`].
pub fn write(path: &Path, reports: &[Report]) -> Result<bool, Error> {
    let written = replace(path, |out| {
        writeln!(out, "{MAGIC}{VERSION}")?;
        reports.iter().try_for_each(|report| json(report, out))
    });
    written.map_err(|source| Error::Capture {
        path: path.to_owned(),
        source,
    })
}

/// Reads a capture or a JSON report, told apart by content. `ages`: the age of each block is
/// needed, which only a capture keeps.
///
/// # Errors
/// [`Error`], but neither [`Error::Write`] nor [`Error::Capture`].
pub fn read(path: &Path, ages: bool) -> Result<Vec<Report>, Error> {
    match fs::read(path) {
        Ok(bytes) => parse(path, &bytes, ages),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// As [`read`], of what `path` had in it.
///
/// # Errors
/// As [`read`]'s, but for [`Error::Read`].
pub fn parse(path: &Path, bytes: &[u8], ages: bool) -> Result<Vec<Report>, Error> {
    let path = path.to_owned();
    let Some(rest) = bytes.strip_prefix(MAGIC.as_bytes()) else {
        let reports = match bytes.trim_ascii_start().starts_with(b"{") {
            true => reports(bytes, &path)?,
            false => return Err(Error::NotACapture { path }),
        };
        return match ages {
            true => Err(Error::NoAges { path }),
            false => Ok(reports),
        };
    };
    let line = rest.iter().position(|&byte| byte == b'\n');
    let (version, body) = rest.split_at(line.unwrap_or(rest.len()));
    if version != VERSION.to_string().as_bytes() {
        return Err(other_version(
            path,
            &String::from_utf8_lossy(version),
            VERSION,
        ));
    }
    reports(body, &path)
}

fn reports(body: &[u8], path: &Path) -> Result<Vec<Report>, Error> {
    let corrupt = |source| Error::Corrupt {
        path: path.to_owned(),
        source,
    };
    let mut reports = Vec::new();
    for value in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        let value = value.map_err(corrupt)?;
        match value.get("schema").and_then(Value::as_u64) {
            Some(schema) if schema == u64::from(SCHEMA) => {}
            Some(schema) => {
                return Err(other_version(path.to_owned(), &schema.to_string(), SCHEMA));
            }
            None => {
                return Err(Error::NotACapture {
                    path: path.to_owned(),
                });
            }
        }
        reports.push(serde_json::from_value(value).map_err(corrupt)?);
    }
    match reports.is_empty() {
        false => Ok(reports),
        true => Err(corrupt(serde_json::Error::custom(
            "it ends before the first process",
        ))),
    }
}

fn other_version(path: PathBuf, found: &str, known: u32) -> Error {
    let found = found.chars().take(LONGEST_VERSION);
    Error::Version {
        path,
        found: found.flat_map(char::escape_debug).collect(),
        known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::{report, site};

    fn sample() -> Report {
        let mut report = report();
        report.sites = vec![site("f", "a.c", 1, &[(1.0, 1, 10), (5.0, 2, 20)])];
        report
    }

    /// What reading `content` from a file says.
    fn reading(content: &[u8], ages: bool) -> Result<Vec<Report>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, content).unwrap();
        let error = |error: Error| error.to_string().replace(&path.display().to_string(), "x");
        read(&path, ages).map_err(error)
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let reports = [sample(), report()];
        write(&path, &reports).unwrap();
        assert_eq!(read(&path, true).unwrap(), reports);
    }

    /// One that a parser of floats gets wrong in the last bit if it takes the short way.
    #[test]
    fn times_are_read_to_the_last_bit() {
        let mut exact = sample();
        exact.sites[0].youngest = 0.002_123_414_000_000_000_6;
        let json = serde_json::to_string(&exact).unwrap();
        assert_eq!(reading(json.as_bytes(), false), Ok(vec![exact]));
    }

    #[test]
    fn json_reports_are_read_however_they_are_laid_out() {
        let one = serde_json::to_string(&sample()).unwrap();
        let pretty = serde_json::to_string_pretty(&sample()).unwrap();
        assert_eq!(reading(one.as_bytes(), false), Ok(vec![sample()]));
        let two = format!("\n{pretty}\n{one}\n");
        assert_eq!(reading(two.as_bytes(), false), Ok(vec![sample(), sample()]));
        assert!(
            reading(one.as_bytes(), true)
                .unwrap_err()
                .contains("--older needs a capture")
        );
        let newer = one.replacen('{', "{\"added_later\": [1], ", 1);
        assert_eq!(reading(newer.as_bytes(), false), Ok(vec![sample()]));
    }

    #[test]
    fn what_cannot_be_read_is_one_line_that_says_why() {
        let whole = format!(
            "leaktap-capture 1\n{}\n",
            serde_json::to_string(&sample()).unwrap()
        );
        let mut flipped = whole.clone().into_bytes();
        flipped[40] = 0xff;
        let cases: &[(&[u8], &str)] = &[
            (b"", "x is no capture"),
            (b"what is this", "x is no capture"),
            (b"{}", "x is no capture"),
            (&[0xff; 4000], "x is no capture"),
            (b"{\"schema\": 77}", "capture x has version 77"),
            (b"{\"schema\": 1}", "capture x is corrupt: missing field"),
            (b"leaktap-capture 2\n{}", "capture x has version 2"),
            (b"leaktap-capture \x1b[31m\n", "version \\u{1b}[31m,"),
            (b"leaktap-capture 1\n", "capture x is corrupt: it ends"),
            (
                &whole.as_bytes()[..whole.len() / 2],
                "capture x is corrupt: EOF",
            ),
            (&flipped, "capture x is corrupt: "),
        ];
        for (content, expected) in cases {
            let error = reading(content, false).unwrap_err();
            assert!(
                error.contains(expected) && error.lines().count() == 1,
                "{error}"
            );
        }
    }

    #[test]
    fn a_full_disk_is_told_with_its_remedy() {
        let error = write(Path::new("/dev/full"), &[sample()]).unwrap_err();
        let expected = "cannot write /dev/full: No space left on device \
                        (free some space or choose another place with -o)";
        assert_eq!(error.to_string(), expected);
        let error = write(Path::new("/no/such/folder/x"), &[]).unwrap_err();
        let expected = "cannot write /no/such/folder/x: No such file or directory \
                        (choose another place with -o)";
        assert_eq!(error.to_string(), expected);
    }
}
