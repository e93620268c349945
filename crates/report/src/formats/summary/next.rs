//! Which command tells more.

use super::Verdict;
use crate::names::is_harmful;
use crate::{Mode, Report};

/// Most bytes of a command.
const MOST: usize = 400;

/// The command that tells more, if there is more to be told.
pub(super) fn next(report: &Report, verdict: Verdict) -> Option<String> {
    let pid = report.target.pid;
    let is_there = report.target.detached;
    match (verdict, report.mode) {
        (Verdict::Clean | Verdict::Unknown, _) => None,
        // The whole stacks.
        (Verdict::Growing, _) if is_there => Some(format!(
            "leaktap attach {pid} --duration 60s --top {} -v",
            super::SITES
        )),
        // Whether anything grows.
        (Verdict::Unfreed, _) if is_there => {
            let longer = (report.duration * 4.0).clamp(60.0, 3600.0);
            Some(format!(
                "leaktap attach {pid} --duration {longer:.0}s -F summary"
            ))
        }
        (_, Mode::Run) => {
            let words = report.target.args.iter().map(|word| quoted(word));
            let words = words.collect::<Option<Vec<_>>>()?.join(" ");
            let command = format!("leaktap run --top {} -v -- {words}", super::SITES);
            Some(command).filter(|command| command.len() <= MOST && !words.is_empty())
        }
        _ => None,
    }
}

/// As a shell takes it for one word, if a terminal shows it as it is.
fn quoted(word: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if word.contains(is_harmful) || word.contains('\u{fffd}') {
        return None;
    }
    Some(match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_words() {
        for (word, expected) in [
            ("-x=1", Some("-x=1")),
            ("", Some("''")),
            ("a b", Some("'a b'")),
            ("$(rm x)", Some("'$(rm x)'")),
            ("it's", Some("'it'\\''s'")),
            ("a\x1bb", None),
        ] {
            assert_eq!(quoted(word).as_deref(), expected);
        }
    }
}
