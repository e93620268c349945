//! Values of options: sizes and times as people write them, processes, functions.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::SignedDuration;
use leaktap_probe::Pool;
use leaktap_report::Pattern;
use leaktap_trace::Engine;

/// A process, as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    /// By its id.
    Pid(i32),
    /// By its program's name.
    Name(OsString),
}

impl Process {
    /// A word of nothing but digits is an id.
    ///
    /// # Errors
    /// An id that no process can have.
    pub(super) fn parse(word: OsString) -> Result<Process, String> {
        match word.to_str() {
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                pid(text).map(Process::Pid)
            }
            _ => Ok(Process::Name(word)),
        }
    }
}

pub(super) fn pid(text: &str) -> Result<i32, String> {
    match text.parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err("a process id is a positive number".to_owned()),
    }
}

/// How functions are probed.
pub(super) fn engine() -> impl TypedValueParser<Value = Engine> {
    PossibleValuesParser::new(["auto", "breakpoint"]).map(|name| match name.as_str() {
        "breakpoint" => Engine::Breakpoint,
        _ => Engine::Auto,
    })
}

/// Where something is written.
pub(super) fn pattern(text: OsString) -> Result<Pattern, String> {
    Pattern::parse(&text)
}

/// As a report has it: what is not UTF-8 is replaced.
pub(super) fn lossy(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}

/// More allocator functions.
pub(super) fn pool(spec: &str) -> Result<Pool, String> {
    Pool::parse(spec).map_err(|error| error.to_string())
}

/// A time as `500ms`, `30s`, `1h30m`; a number without a unit is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected = |_| "expected a time, as in 500ms, 30s or 1h30m".to_owned();
    let is_bare = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let time: SignedDuration = match is_bare {
        true => format!("{text}s").parse().map_err(expected)?,
        false => text.parse().map_err(expected)?,
    };
    Duration::try_from(time).map_err(|_| "a time cannot be negative".to_owned())
}

/// As [`duration`], but not none at all.
pub(super) fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a time without end: expected one as in 500ms, 30s or 1h".to_owned()),
        time => Ok(time),
    }
}

/// A size as `4096`, `64K`, `1.5 MiB`, `1KB`; the fraction of a byte is dropped.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let scale = scale(unit.trim_start())?;
    if let Ok(whole) = number.parse::<u64>() {
        let size = whole.checked_mul(scale);
        return size.ok_or_else(|| "too large".to_owned());
    }
    match number.parse::<f64>() {
        Ok(number) if number < MOST_EXACT => Ok((number * scale as f64) as u64),
        Ok(_) => Err("too large".to_owned()),
        Err(_) => Err("expected a size, as in 4096, 64K or 1.5M".to_owned()),
    }
}

/// Numbers up to this, with a fraction, cannot overflow a size in any unit.
const MOST_EXACT: f64 = 1e6;

/// What stands for how many bytes: as in dd(1), `K` and `KiB` are 1024, `KB` is 1000.
fn scale(unit: &str) -> Result<u64, String> {
    match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Ok(1),
        "k" | "kib" => Ok(1 << 10),
        "m" | "mib" => Ok(1 << 20),
        "g" | "gib" => Ok(1 << 30),
        "t" | "tib" => Ok(1 << 40),
        "kb" => Ok(1_000),
        "mb" => Ok(1_000_000),
        "gb" => Ok(1_000_000_000),
        "tb" => Ok(1_000_000_000_000),
        _ => Err(format!(
            "{unit:?} is not a unit of size: K, KB, KiB, M, ..."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("500ms", Some(0.5)),
            ("30s", Some(30.0)),
            ("5m", Some(300.0)),
            ("2h", Some(7200.0)),
            ("1.5", Some(1.5)),
            ("1.5s", Some(1.5)),
            ("1h30m", Some(5400.0)),
            ("1 hour 30 minutes", Some(5400.0)),
            ("5parsecs", None),
            ("", None),
            ("s", None),
            (".", None),
            ("-1s", None),
        ] {
            let found = duration(text).ok();
            assert_eq!(found, expected.map(Duration::from_secs_f64), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("10", Some(10)),
            ("100B", Some(100)),
            ("4K", Some(4096)),
            ("4 KiB", Some(4096)),
            ("1KB", Some(1000)),
            ("1.5M", Some(3 << 19)),
            ("0.1k", Some(102)),
            ("1T", Some(1 << 40)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551615K", None),
            ("1e3", None),
            ("1.2.3", None),
            ("9999999999.5T", None),
            ("x", None),
            ("", None),
            ("1P", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn processes() {
        for (word, expected) in [
            ("4711", Ok(Process::Pid(4711))),
            ("worker", Ok(Process::Name("worker".into()))),
            ("7zip", Ok(Process::Name("7zip".into()))),
            ("0", Err(())),
            ("99999999999", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(
                Process::parse(word.into()).map_err(drop),
                expected,
                "{word:?}"
            );
        }
    }
}
