//! The name of an output file, with what stands for the target in it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::names::is_harmful;

/// A file name in which `%p`, `%n`, `%t` and `%i` stand for pid, program, start and the number of
/// the report; `%%` for `%`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

/// Bytes, for a file name need not be UTF-8, and what is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Byte(u8),
    Pid,
    Program,
    Start,
    Number,
}

/// What is put into a [`Pattern`].
#[derive(Clone, Copy, Debug)]
pub struct OutputName<'a> {
    /// The process id.
    pub pid: i32,
    /// The last part of the program's path.
    pub program: &'a str,
    /// The start, as `20261123T162550Z`.
    pub started: &'a str,
    /// How many reports there were before, and this one.
    pub number: u32,
}

impl Pattern {
    /// Takes a pattern.
    ///
    /// # Errors
    /// The conversion that is none of the five.
    pub fn parse(pattern: &OsStr) -> Result<Pattern, String> {
        let mut rest = pattern.as_bytes().iter();
        let mut parts = Vec::new();
        while let Some(byte) = rest.next() {
            let after = (*byte == b'%').then(|| rest.next());
            parts.push(match after {
                None => Part::Byte(*byte),
                Some(Some(b'%')) => Part::Byte(b'%'),
                Some(Some(b'p')) => Part::Pid,
                Some(Some(b'n')) => Part::Program,
                Some(Some(b't')) => Part::Start,
                Some(Some(b'i')) => Part::Number,
                Some(Some(other)) => {
                    let other = other.escape_ascii();
                    return Err(format!("%{other} is none of %p, %n, %t, %i, %%"));
                }
                Some(None) => return Err("a single % at the end: write %%".to_owned()),
            });
        }
        Ok(Pattern(parts))
    }

    /// True if the folder of the file depends on the target.
    pub fn has_folder_of_target(&self) -> bool {
        let is_slash = |part: &Part| *part == Part::Byte(b'/');
        let folder = self.0.iter().rposition(is_slash).unwrap_or(0);
        let mut folder = self.0.iter().take(folder);
        folder.any(|part| !matches!(part, Part::Byte(_)))
    }

    /// The file name for a target.
    pub fn fill(&self, name: OutputName<'_>) -> PathBuf {
        let is_no_part = |c: char| c == '/' || is_harmful(c);
        // A name, not a way to another folder.
        let program = name.program.replace(is_no_part, "_");
        let mut filled = Vec::new();
        for part in &self.0 {
            match part {
                Part::Byte(byte) => filled.push(*byte),
                Part::Pid => filled.extend(name.pid.to_string().bytes()),
                Part::Program => filled.extend(program.bytes()),
                Part::Start => filled.extend(name.started.bytes()),
                Part::Number => filled.extend(name.number.to_string().bytes()),
            }
        }
        OsString::from_vec(filled).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pattern: &str) -> Result<Pattern, String> {
        Pattern::parse(pattern.as_ref())
    }

    #[test]
    fn fills_in() {
        let name = OutputName {
            pid: 7,
            program: "x",
            started: "T",
            number: 3,
        };
        for (pattern, expected) in [("a", "a"), ("%n.%p.%t", "x.7.T"), ("50%%-%p-%i", "50%-7-3")] {
            let filled = parse(pattern).unwrap().fill(name);
            assert_eq!(filled.to_str(), Some(expected));
        }
        let bytes = OsStr::from_bytes(b"\xe9%p");
        let filled = Pattern::parse(bytes).unwrap().fill(name);
        assert_eq!(filled.as_os_str().as_bytes(), b"\xe97");
        let elsewhere = OutputName {
            program: "../x\x1b",
            ..name
        };
        let filled = parse("d/%n").unwrap().fill(elsewhere);
        assert_eq!(filled.to_str(), Some("d/.._x_"));
        for (pattern, depends) in [("%p/x", true), ("%%/%p", false), ("%p", false)] {
            let pattern = parse(pattern).unwrap();
            assert_eq!(pattern.has_folder_of_target(), depends, "{pattern:?}");
        }
        assert!(parse("%x").is_err());
        assert!(parse("x%").is_err());
    }
}
