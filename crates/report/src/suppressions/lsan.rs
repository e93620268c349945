//! LeakSanitizer's suppression files, and what a program has built in of that kind: the manual of
//! clang, "LeakSanitizer", "Suppressions".

use super::{Matcher, Problem, Rule};
use crate::Place;

const LEAK: &str = "leak:";

/// Part of the name of a function, file or module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(String);

/// The rules in `text`, one a line.
pub(super) fn parse(text: &str) -> Result<Vec<Rule>, Problem> {
    let lines = (1u32..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let rules = lines.map(|(number, line)| match line.strip_prefix(LEAK) {
        Some("") => Err(Problem::at(
            number,
            "an empty pattern would match everything",
        )),
        Some(pattern) => {
            let matcher = Matcher::Frame(Template(pattern.to_owned()));
            Ok(Rule::new(pattern, number, matcher))
        }
        None => Err(Problem::at(
            number,
            "LeakSanitizer's suppressions are leak:PATTERN",
        )),
    });
    rules.collect()
}

/// Whether a line of a file is of this kind, rather than valgrind's.
pub(super) fn is_rule(line: &str) -> bool {
    line.split_once(':').is_some_and(|(kind, _)| {
        let mut letters = kind.chars();
        letters.all(|c| c.is_ascii_lowercase() || c == '_')
    })
}

impl Template {
    /// Whether a frame is of such a module, function or file.
    pub(super) fn matches(&self, place: &Place<'_>) -> bool {
        let frame = place.frame;
        let names = [
            place.module.map(|module| module.path.as_str()),
            frame.function.as_deref(),
            frame.symbol.as_deref(),
            frame.file.as_deref(),
        ];
        names.into_iter().flatten().any(|name| self.is_in(name))
    }

    /// `*` stands for any bytes, `^` at the beginning and `$` at the end for an end of `text`.
    fn is_in(&self, text: &str) -> bool {
        let (pattern, at_start) = match self.0.strip_prefix('^') {
            Some(rest) => (rest, true),
            None => (self.0.as_str(), false),
        };
        let (pattern, at_end) = match pattern.strip_suffix('$') {
            Some(rest) => (rest, true),
            None => (pattern, false),
        };
        let mut parts: Vec<_> = pattern.split('*').collect();
        let mut rest = text;
        if at_start {
            let Some(behind) = rest.strip_prefix(parts.remove(0)) else {
                return false;
            };
            rest = behind;
        }
        let last = if at_end { parts.pop() } else { None };
        for part in parts {
            let Some((_, behind)) = rest.split_once(part) else {
                return false;
            };
            rest = behind;
        }
        match last {
            Some(last) => rest.ends_with(last),
            // `^exact$` has had its only part.
            None => !at_end || rest.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_a_part_of_a_name() {
        for (pattern, text, expected) in [
            ("foo", "a_foo_b", true),
            ("foo", "fo", false),
            ("^foo", "foo_b", true),
            ("^foo", "a_foo", false),
            ("foo$", "a_foo", true),
            ("foo$", "foo_b", false),
            ("^foo$", "foo", true),
            ("^foo$", "foofoo", false),
            ("a*c", "xaxbxcx", true),
            ("^a*c$", "a_b_c", true),
            ("^a*c$", "a_b_c_d", false),
            ("c*a", "a_c", false),
            ("*", "", true),
            ("$", "x", true),
        ] {
            let template = Template(pattern.to_owned());
            assert_eq!(template.is_in(text), expected, "{pattern} {text}");
        }
    }
}
