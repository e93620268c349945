//! The name of an output file, with what stands for the target in it.

use std::path::PathBuf;

use crate::names::is_harmful;

/// A file name in which `%p`, `%n` and `%t` stand for pid, program and start; `%%` for `%`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// What is put into a [`Pattern`].
#[derive(Clone, Copy, Debug)]
pub struct OutputName<'a> {
    /// The process id.
    pub pid: i32,
    /// The last part of the program's path.
    pub program: &'a str,
    /// The start, as `20261123T162550Z`.
    pub started: &'a str,
}

impl Pattern {
    /// Takes a pattern.
    ///
    /// # Errors
    /// The conversion that is none of the four.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if c == '%' {
                match rest.next() {
                    Some('p' | 'n' | 't' | '%') => {}
                    Some(other) => return Err(format!("%{other} is none of %p, %n, %t, %%")),
                    None => return Err("a single % at the end: write %%".to_owned()),
                }
            }
        }
        Ok(Pattern(text.to_owned()))
    }

    /// True if the folder of the file depends on the target.
    pub fn has_folder_of_target(&self) -> bool {
        let folder = self.0.rsplit_once('/').map_or("", |(folder, _)| folder);
        folder.replace("%%", "").contains('%')
    }

    /// The file name for a target.
    pub fn fill(&self, name: OutputName<'_>) -> PathBuf {
        let is_no_part = |c: char| c == '/' || is_harmful(c);
        let mut filled = String::new();
        let mut rest = self.0.chars();
        while let Some(c) = rest.next() {
            match (c, if c == '%' { rest.next() } else { None }) {
                ('%', Some('p')) => filled.push_str(&name.pid.to_string()),
                // A name, not a way to another folder.
                ('%', Some('n')) => filled.push_str(&name.program.replace(is_no_part, "_")),
                ('%', Some('t')) => filled.push_str(name.started),
                ('%', _) => filled.push('%'),
                (other, _) => filled.push(other),
            }
        }
        filled.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in() {
        let name = OutputName {
            pid: 7,
            program: "x",
            started: "T",
        };
        for (pattern, expected) in [("a", "a"), ("%n.%p.%t", "x.7.T"), ("50%%-%p", "50%-7")] {
            let filled = Pattern::parse(pattern).unwrap().fill(name);
            assert_eq!(filled.to_str(), Some(expected));
        }
        let elsewhere = OutputName {
            program: "../x\x1b",
            ..name
        };
        let filled = Pattern::parse("d/%n").unwrap().fill(elsewhere);
        assert_eq!(filled.to_str(), Some("d/.._x_"));
        for (pattern, depends) in [("%p/x", true), ("%%/%p", false), ("%p", false)] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.has_folder_of_target(), depends, "{pattern:?}");
        }
        assert!(Pattern::parse("%x").is_err());
        assert!(Pattern::parse("x%").is_err());
    }
}
