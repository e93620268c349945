//! Leaks that the user knows of, and does not want to hear of: suppressions, as valgrind and
//! LeakSanitizer have them.

mod glob;
mod lsan;
mod ready;
mod stack;
#[cfg(test)]
mod tests;
mod valgrind;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use self::ready::Ready;
use self::stack::Stack;
use crate::{FrameId, Kind, Report, Site, Suppressed};

/// What libraries allocate once and keep, and what is no leak of their users.
const DEFAULT: &str = include_str!("suppressions/default.supp");

/// Most rules of a target that are used: each looks at all frames.
const MOST_OF_TARGET: usize = 200;

/// What a target has built in is called.
const OF_TARGET: &str = "__lsan_default_suppressions";

/// Rules, of which the first that matches a leak suppresses it.
#[derive(Clone, Debug, Default)]
pub struct Suppressions {
    rules: Vec<Rule>,
}

/// One of them.
#[derive(Clone, Debug)]
struct Rule {
    name: String,
    /// The file that it is from, if it is from one, and the line where it begins.
    file: Option<String>,
    line: u32,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    /// The innermost frames of a stack.
    Stack(valgrind::Pattern),
    /// Any frame.
    Frame(lsan::Template),
}

/// What is wrong with a suppression, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {why}")]
pub struct Problem {
    line: u32,
    why: &'static str,
}

/// A file whose suppressions cannot be used.
#[derive(Debug, Error)]
pub enum SuppressionsError {
    /// It cannot be read.
    #[error("cannot read suppressions {}: {}", path.display(), crate::error::cause(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is neither valgrind's nor LeakSanitizer's.
    #[error("cannot use suppressions {}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Problem,
    },
}

impl Problem {
    fn at(line: u32, why: &'static str) -> Problem {
        Problem { line, why }
    }
}

impl Rule {
    fn new(name: &str, line: u32, matcher: Matcher) -> Rule {
        Rule {
            name: name.to_owned(),
            file: None,
            line,
            matcher,
        }
    }
}

/// The rules in `text`, of valgrind or of LeakSanitizer: its first line tells.
fn parse(text: &str) -> Result<Vec<Rule>, Problem> {
    let lines = text.lines().map(str::trim);
    let first = lines
        .into_iter()
        .find(|line| !line.is_empty() && !line.starts_with('#'));
    match first {
        Some(line) if lsan::is_rule(line) => lsan::parse(text),
        _ => valgrind::parse(text),
    }
}

impl Suppressions {
    /// Adds those of a file.
    ///
    /// # Errors
    /// [`SuppressionsError`].
    pub fn read(&mut self, path: &Path) -> Result<(), SuppressionsError> {
        let named = || path.to_owned();
        let bytes = std::fs::read(path).map_err(|source| SuppressionsError::Read {
            path: named(),
            source,
        })?;
        let rules = parse(&String::from_utf8_lossy(&bytes));
        let rules = rules.map_err(|source| SuppressionsError::Parse {
            path: named(),
            source,
        })?;
        let file = path.display().to_string();
        self.rules.extend(rules.into_iter().map(|rule| Rule {
            file: Some(file.clone()),
            ..rule
        }));
        Ok(())
    }

    /// Adds those for libraries, that leaktap has built in.
    pub fn add_default(&mut self) {
        // A test parses it.
        self.rules
            .extend(valgrind::parse(DEFAULT).unwrap_or_default());
    }

    /// Takes from the sites of `reports` what is suppressed, and returns it, report by report. In
    /// each is noted what was suppressed by which rule, and which rules of files match nothing in
    /// any of them.
    pub fn apply(&self, reports: &mut [Report]) -> Vec<Vec<Site>> {
        let done: Vec<_> = reports.iter_mut().map(|one| self.apply_to(one)).collect();
        for report in reports.iter_mut() {
            let unused = self.rules.iter().enumerate().filter(|(at, rule)| {
                let mut all = done.iter().flat_map(|(used, _)| used);
                rule.file.is_some() && all.all(|(by, _)| by != at)
            });
            let unused = unused.map(|(_, rule)| suppressed_by(rule));
            report.suppressions.extend(unused);
        }
        done.into_iter().map(|(_, sites)| sites).collect()
    }

    /// Which rules have suppressed something in `report`, each by its number, and the sites.
    fn apply_to(&self, report: &mut Report) -> (BTreeMap<usize, Suppressed>, Vec<Site>) {
        let own = of_target(report);
        let all: Vec<_> = self.rules.iter().chain(&own).collect();
        let frames: Vec<_> = all.iter().map(|rule| rule.frames(report)).collect();
        let mut used = BTreeMap::new();
        let (mut kept, mut suppressed) = (Vec::new(), Vec::new());
        for site in std::mem::take(&mut report.sites) {
            let stack = Stack::of(&site, report.tables());
            let mut rules = all.iter().zip(&frames).enumerate();
            let found = rules.find(|(_, (rule, frames))| rule.matches(&site, &stack, frames));
            let Some((number, (rule, _))) = found.filter(|_| site.kind != Kind::Runtime) else {
                kept.push(site);
                continue;
            };
            let by = used.entry(number).or_insert_with(|| suppressed_by(rule));
            by.add(&site);
            suppressed.push(site);
        }
        report.sites = kept;
        let totals = &mut report.totals;
        for site in &suppressed {
            totals.suppressed_blocks = totals.suppressed_blocks.saturating_add(site.blocks);
            totals.suppressed_bytes = totals.suppressed_bytes.saturating_add(site.bytes);
        }
        // A JSON report may have had some already.
        report.suppressions.extend(used.values().cloned());
        (used, suppressed)
    }
}

/// The rules that the target of `report` has built in. What cannot be used is noted.
fn of_target(report: &mut Report) -> Vec<Rule> {
    let text = report.target_suppressions.as_deref().unwrap_or_default();
    match lsan::parse(text) {
        Ok(mut rules) => {
            if rules.len() > MOST_OF_TARGET {
                report.notes.push(format!(
                    "of the target's {} suppressions the first {MOST_OF_TARGET} are used",
                    rules.len()
                ));
            }
            rules.truncate(MOST_OF_TARGET);
            let rules = rules.into_iter().map(|rule| Rule {
                file: Some(OF_TARGET.to_owned()),
                ..rule
            });
            rules.collect()
        }
        Err(problem) => {
            let note = format!("suppressions of the target ({OF_TARGET}) are not used: {problem}");
            report.notes.push(note);
            Vec::new()
        }
    }
}

fn suppressed_by(rule: &Rule) -> Suppressed {
    Suppressed {
        name: rule.name.clone(),
        file: rule.file.clone(),
        line: rule.file.is_some().then_some(rule.line),
        ..Suppressed::default()
    }
}

impl Suppressed {
    fn add(&mut self, site: &Site) {
        self.sites = self.sites.saturating_add(1);
        self.blocks = self.blocks.saturating_add(site.blocks);
        self.bytes = self.bytes.saturating_add(site.bytes);
    }
}

impl Rule {
    /// Of each frame of `report`, whether it alone matches; empty if frames do not matter alone.
    fn frames(&self, report: &Report) -> Vec<bool> {
        match &self.matcher {
            Matcher::Stack(_) => Vec::new(),
            Matcher::Frame(template) => {
                let places = report.tables().all();
                places.map(|place| template.matches(&place)).collect()
            }
        }
    }

    /// `frames` are what [`Rule::frames`] says.
    fn matches(&self, site: &Site, stack: &Stack<'_>, frames: &[bool]) -> bool {
        match &self.matcher {
            Matcher::Stack(pattern) => pattern.matches(stack),
            Matcher::Frame(_) => {
                let mut stack = site.whole_stack();
                stack.any(|FrameId(id)| frames.get(id as usize) == Some(&true))
            }
        }
    }
}
