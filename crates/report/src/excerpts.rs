//! Lines of source files, which are shown beside the frames that name them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::names::printable;
use crate::{FrameId, Report};

/// Most bytes that are kept, as a page has them.
const MOST: usize = 1 << 20;

/// Longest line that is shown in full, in characters.
const WIDEST: usize = 200;

/// So many lines above and below one that a frame names.
pub(crate) const AROUND: u32 = 3;

/// The lines around those that frames name, by file.
#[derive(Clone, Debug, Default)]
pub struct Excerpts {
    files: HashMap<String, Lines>,
    bytes: usize,
}

/// Lines by their numbers, as they can be printed.
pub(crate) type Lines = BTreeMap<u32, String>;

/// A file of which frames name lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its path, as debug information has it.
    pub file: String,
    /// The lines.
    pub lines: BTreeSet<u32>,
    /// Some are of the user's own code.
    pub is_own: bool,
}

impl Excerpts {
    /// Takes from `text`, which is all of a file, what is around the lines that are `named`. False
    /// if that is too much.
    pub fn add(&mut self, named: &Named, text: &[u8]) -> bool {
        let is_near = |number: u32| {
            let near = number.saturating_sub(AROUND)..=number.saturating_add(AROUND);
            named.lines.range(near).next().is_some()
        };
        let lines = (1..).zip(text.split(|&byte| byte == b'\n'));
        let lines = lines.filter(|(number, _)| is_near(*number));
        let lines: Lines = lines.map(|(number, line)| (number, shown(line))).collect();
        let size: usize = lines.values().map(|line| size(line)).sum();
        let is_small = self.bytes + size <= MOST;
        if is_small {
            self.bytes += size;
            self.files.insert(named.file.clone(), lines);
        }
        is_small
    }

    /// The lines of `file`, if it has one of that number.
    pub(crate) fn of(&self, file: &str, line: u32) -> Option<&Lines> {
        let lines = self.files.get(file)?;
        lines.contains_key(&line).then_some(lines)
    }
}

/// How long a line is at most in a page's JSON, with its number.
fn size(line: &str) -> usize {
    let more = |byte| match byte {
        b'<' => 5,
        b'"' | b'\\' => 1,
        _ => 0,
    };
    let more: usize = line.bytes().map(more).sum();
    line.len() + more + r#""4294967295":"","#.len()
}

fn shown(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line).replace('\t', "    ");
    let line = line.trim_end();
    let short: String = line.chars().take(WIDEST).collect();
    let end = if short.len() < line.len() { "…" } else { "" };
    printable(&short).into_owned() + end
}

/// The files that frames of the sites of `reports` name, and which lines: the user's own code comes
/// first, and in it the culprits of the first sites. With `culprits`, only those of so many sites.
pub fn named_lines(reports: &[&Report], culprits: Option<usize>) -> Vec<Named> {
    let mut files: Vec<Named> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for report in reports {
        for id in frames(report, culprits) {
            let Some(frame) = report.tables().frame(id) else {
                continue;
            };
            let (Some(file), Some(line)) = (&frame.file, frame.line) else {
                continue;
            };
            let number = *known.entry(file.clone()).or_insert(files.len());
            if number == files.len() {
                files.push(Named {
                    file: file.clone(),
                    lines: BTreeSet::new(),
                    is_own: false,
                });
            }
            if let Some(named) = files.get_mut(number) {
                named.lines.insert(line);
                named.is_own |= frame.own == Some(true);
            }
        }
    }
    files.sort_by_key(|named| !named.is_own);
    files
}

/// The frames of the sites of `report`, each once: culprits come first.
fn frames(report: &Report, culprits: Option<usize>) -> Vec<FrameId> {
    let sites = report.sites.iter().take(culprits.unwrap_or(usize::MAX));
    let first = sites.filter_map(|site| site.culprit.or(site.frames.first().copied()));
    let all = report.sites.iter().filter(|_| culprits.is_none());
    let all = all.flat_map(|site| {
        let members = site.members.iter().flat_map(|member| &member.frames);
        site.frames.iter().chain(members).copied()
    });
    let mut seen = HashSet::new();
    first.chain(all).filter(|id| seen.insert(*id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::text::tests::{add, frame, report};

    #[test]
    fn own_files_come_first_and_lines_are_those_around() {
        let mut all = report();
        let own = |function, line| crate::Frame {
            own: Some(true),
            ..frame(function, "/src/a.c", line)
        };
        let library = frame("sort", "/usr/include/sort.h", 9);
        add(&mut all, &[library, own("f", 20)], &[(1.0, 1, 10)]);
        add(&mut all, &[own("g", 2), own("f", 20)], &[(1.0, 1, 10)]);
        let named = named_lines(&[&all], None);
        let files: Vec<_> = named.iter().map(|named| &*named.file).collect();
        assert_eq!(files, ["/src/a.c", "/usr/include/sort.h"]);
        assert_eq!(named[0].lines, BTreeSet::from([2, 20]));
        let of_first = named_lines(&[&all], Some(1));
        assert_eq!(of_first.len(), 1);

        let mut excerpts = Excerpts::default();
        let text: Vec<_> = (1..=21).map(|line| format!("\tline {line}\r")).collect();
        assert!(excerpts.add(&named[0], text.join("\n").as_bytes()));
        let lines = excerpts.of("/src/a.c", 20).unwrap();
        let numbers: Vec<_> = lines.keys().copied().collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 17, 18, 19, 20, 21]);
        assert_eq!(lines[&20], "    line 20");
        // It is shorter than debug information says.
        assert_eq!(excerpts.of("/src/a.c", 22), None);
        assert_eq!(excerpts.of("/src/b.c", 2), None);
    }

    #[test]
    fn what_files_have_is_hostile() {
        let named = |file: &str| Named {
            file: file.to_owned(),
            lines: BTreeSet::from([1, u32::MAX]),
            is_own: true,
        };
        let mut excerpts = Excerpts::default();
        let long = "\u{202e}\u{1b}[2J\u{ff}".to_owned() + &"x".repeat(5000);
        assert!(excerpts.add(&named("a"), long.as_bytes()));
        let line = &excerpts.of("a", 1).unwrap()[&1];
        assert!(line.starts_with("\\u{202e}\\u{1b}[2J"), "{line}");
        assert!(line.ends_with("x…") && line.chars().count() < WIDEST + 50);
        let full = (0..MOST / WIDEST).all(|file| {
            let line = "<\"".repeat(WIDEST / 2);
            excerpts.add(&named(&file.to_string()), line.as_bytes())
        });
        assert!(!full && excerpts.bytes <= MOST);
        let json = serde_json::to_string(&excerpts.files).unwrap();
        let names: usize = excerpts.files.keys().map(|file| file.len() + 10).sum();
        let in_page = json.replace('<', "\\u003c").len() - names;
        assert!(in_page <= MOST && in_page > MOST / 2, "{in_page}");
    }
}
