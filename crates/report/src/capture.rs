//! The capture file: all that a report needs, to be rendered again elsewhere.
//!
//! First line `leaktap-capture 2`, then a zstd frame: the JSON report of each process, one a line,
//! with all its sites, unfiltered, and what only captures keep. The last four bytes are the CRC-32
//! of all before them. See docs/capture.md.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde::Deserialize;
use serde_json::Deserializer;

use crate::error::Damage;
use crate::formats::json::lines;
use crate::{Error, Report, SCHEMA, replace};

/// What captures begin with; their version follows.
pub const MAGIC: &[u8] = b"leaktap-capture ";
const VERSION: u32 = 2;

/// Bytes of the checksum.
const CHECKSUM: usize = 4;

/// Most bytes of a file, and of what it is when decompressed.
const LONGEST: u64 = 1 << 30;

/// What `LESS_DENSE` bytes and a thousand times the compressed ones do not hold, no trace has made.
const LESS_DENSE: u64 = 16 << 20;
const DENSEST: u64 = 1000;

/// Longest version that an error repeats, in characters.
const LONGEST_VERSION: usize = 20;

/// What a reader wants to know that only captures keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The age of each block.
    pub ages: bool,
    /// All frames of each stack.
    pub stacks: bool,
}

/// Writes `reports` to a capture at `path`, as a whole or not at all. Returns whether it is in the
/// place of another file.
///
/// # Errors
/// [`Error::Capture`].
pub fn write(path: &Path, reports: &[Report]) -> Result<bool, Error> {
    let written = encoded(reports).and_then(|bytes| replace(path, |out| out.write_all(&bytes)));
    written.map_err(|source| Error::Capture {
        path: path.to_owned(),
        source,
    })
}

fn encoded(reports: &[Report]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    lines(reports.iter().cloned(), &mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(seal(&bytes))
}

/// The capture of JSON reports, one a line.
pub fn seal(lines: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(format!("{VERSION}\n").bytes());
    bytes.extend(compress_to_vec(lines, CompressionLevel::Fastest));
    checked(bytes)
}

/// `bytes` with their checksum behind them.
pub fn checked(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Reads a capture or a JSON report, told apart by content. `-` is standard input.
///
/// # Errors
/// [`Error`], but neither [`Error::Write`] nor [`Error::Capture`].
pub fn read(path: &Path, needs: Needs) -> Result<Vec<Report>, Error> {
    let mut bytes = Vec::new();
    let (path, result) = match path == Path::new("-") {
        false => {
            let read = |file: File| file.take(LONGEST).read_to_end(&mut bytes);
            (path, File::open(path).and_then(read))
        }
        true => {
            let stdin = io::stdin().lock();
            let path = Path::new("standard input");
            (path, stdin.take(LONGEST).read_to_end(&mut bytes))
        }
    };
    match result {
        Ok(_) => parse(path, &bytes, needs),
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
pub fn parse(path: &Path, bytes: &[u8], needs: Needs) -> Result<Vec<Report>, Error> {
    let reports = match bytes.strip_prefix(MAGIC) {
        Some(rest) => captured(path, bytes, rest)?,
        None if !bytes.trim_ascii_start().starts_with(b"{") => {
            let path = path.to_owned();
            return Err(Error::NotACapture { path });
        }
        None => printed(path, bytes, needs)?,
    };
    if needs.ages && reports.iter().any(has_no_ages) {
        return Err(Error::NotKept {
            path: path.to_owned(),
            of: "a sum of captures",
            what: "the age of each block",
            option: "--older",
        });
    }
    let missing = reports.iter().find_map(Report::missing);
    match (missing, reports.is_empty()) {
        (Some(what), _) => Err(corrupt(path, Damage::Number(what))),
        (None, true) => Err(corrupt(path, Damage::Empty)),
        (None, false) => Ok(reports),
    }
}

/// Whether it has blocks, and not their ages.
fn has_no_ages(report: &Report) -> bool {
    let mut sites = report.sites.iter();
    sites.any(|site| site.blocks > 0 && site.ages.is_empty())
}

/// The reports of a JSON report.
fn printed(path: &Path, bytes: &[u8], needs: Needs) -> Result<Vec<Report>, Error> {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<u64>,
    }
    let damaged = |error| corrupt(path, Damage::Json(error));
    for head in Deserializer::from_slice(bytes).into_iter::<Head>() {
        let path = path.to_owned();
        match head.map_err(damaged)?.schema {
            Some(schema) if schema == u64::from(SCHEMA) => {}
            Some(schema) => return Err(other_version(path, &schema.to_string(), SCHEMA)),
            None => return Err(Error::NotACapture { path }),
        }
    }
    let kept = [
        (needs.ages, "the age of each block", "--older"),
        (needs.stacks, "whole stacks", "--debug-dir or --sysroot"),
    ];
    if let Some(&(_, what, option)) = kept.iter().find(|(is_needed, ..)| *is_needed) {
        let (path, of) = (path.to_owned(), "a JSON report");
        return Err(Error::NotKept {
            path,
            of,
            what,
            option,
        });
    }
    let reports = Deserializer::from_slice(bytes).into_iter();
    reports.collect::<Result<_, _>>().map_err(damaged)
}

/// The reports of a capture; `rest` is what comes behind the magic word in its `bytes`.
fn captured(path: &Path, bytes: &[u8], rest: &[u8]) -> Result<Vec<Report>, Error> {
    let end = rest.iter().position(|&byte| byte == b'\n');
    let (version, body) = rest.split_at(end.unwrap_or(rest.len()));
    if version != VERSION.to_string().as_bytes() {
        let version = String::from_utf8_lossy(version);
        return Err(other_version(path.to_owned(), &version, VERSION));
    }
    let damaged = |damage| corrupt(path, damage);
    let (Some((_, body)), Some((content, checksum))) =
        (body.split_first(), bytes.split_last_chunk::<CHECKSUM>())
    else {
        return Err(damaged(Damage::Checksum));
    };
    let Some(body) = body.get(..body.len().saturating_sub(CHECKSUM)) else {
        return Err(damaged(Damage::Checksum));
    };
    if crc32fast::hash(content) != u32::from_le_bytes(*checksum) {
        return Err(damaged(Damage::Checksum));
    }
    let reports: Vec<Report> = decompressed(body).map_err(damaged)?;
    match reports.iter().find(|report| report.schema != SCHEMA) {
        Some(other) => {
            let found = other.schema.to_string();
            Err(other_version(path.to_owned(), &found, SCHEMA))
        }
        None => Ok(reports),
    }
}

/// However much a hostile one would come to, no more is read than a trace could have made.
fn decompressed(body: &[u8]) -> Result<Vec<Report>, Damage> {
    let most = (body.len() as u64)
        .saturating_mul(DENSEST)
        .saturating_add(LESS_DENSE);
    let lines =
        StreamingDecoder::new(body).map_err(|error| Damage::Compression(error.to_string()))?;
    let lines = BufReader::new(lines.take(most.min(LONGEST)));
    let reports = Deserializer::from_reader(lines).into_iter();
    reports.collect::<Result<_, _>>().map_err(Damage::Json)
}

fn corrupt(path: &Path, source: Damage) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        source,
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
#[path = "capture_tests.rs"]
mod tests;
