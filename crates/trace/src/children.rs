//! Children that the target starts: they run untraced, and the report says which.

use std::path::{Path, PathBuf};

use leaktap_report::{Child as Listed, grouped, printable};
use leaktap_tracee::Tid;

use crate::program::Program;

/// Most children that are listed, and that a note names.
const MOST_LISTED: usize = 1000;
const MOST_NAMED: usize = 8;

/// The children of a target that were let go.
#[derive(Debug, Default)]
pub(crate) struct Children {
    count: u64,
    /// How many of them are traced.
    traced: u64,
    first: Vec<Child>,
}

#[derive(Debug)]
struct Child {
    pid: Tid,
    /// When it was started, by which it is told from a later process of the same id.
    started: u64,
    /// What it ran when it was let go.
    program: PathBuf,
    /// It was in the middle of a fork, as a copy of its parent.
    is_copy: bool,
    /// It has a report of its own.
    is_traced: bool,
}

impl Children {
    /// `pid` is about to be let go: a copy of the target, which runs `copied`, or what runs another
    /// program by now.
    pub(crate) fn add(&mut self, pid: Tid, copied: Option<&Path>) {
        self.count += 1;
        if self.first.len() < MOST_LISTED {
            self.first.push(Child {
                pid,
                started: pid.start_time().unwrap_or_default(),
                // One that has just been killed is what it was made as.
                program: program(pid)
                    .or_else(|| copied.map(Path::to_path_buf))
                    .unwrap_or_default(),
                is_copy: copied.is_some(),
                is_traced: false,
            });
        }
    }

    /// `pid`, which was added, is traced by itself.
    pub(crate) fn is_traced(&mut self, pid: Tid) {
        self.traced += 1;
        let last = self.first.iter_mut().rev().find(|child| child.pid == pid);
        if let Some(child) = last {
            child.is_traced = true;
        }
    }

    /// The first thousand, for the report.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let listed = |child: &Child| Listed {
            pid: child.pid.get(),
            program: child.program_now().0.display().to_string(),
            traced: child.is_traced,
        };
        self.first.iter().map(listed).collect()
    }

    /// What the report says of them.
    pub(crate) fn note(&self) -> Option<String> {
        let untraced = self.count - self.traced;
        let children = match untraced {
            0 => return None,
            1 => "1 child was".to_owned(),
            many => format!("{} children were", grouped(many)),
        };
        let named = self.first.iter().filter(|child| !child.is_traced);
        let named = named.take(MOST_NAMED).map(Child::name);
        let mut named: Vec<_> = named.collect();
        if let Some(more @ 1..) = untraced.checked_sub(named.len() as u64) {
            named.push(format!("{} more", grouped(more)));
        }
        Some(format!("{children} not traced: {}", named.join(", ")))
    }
}

impl Child {
    /// Its id and program, for a note.
    fn name(&self) -> String {
        let (program, is_copy) = self.program_now();
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let what = if is_copy { "a copy of " } else { "" };
        format!("{} {what}{}", self.pid, printable(&name))
    }

    /// Its program as far as that is known, and whether it may be no more than a copy of its
    /// parent: it may have run another one since.
    fn program_now(&self) -> (PathBuf, bool) {
        let is_there = self.is_copy && self.pid.start_time() == Some(self.started);
        let now = program(self.pid).filter(|now| is_there && *now != self.program);
        let is_copy = self.is_copy && now.is_none();
        (now.unwrap_or_else(|| self.program.clone()), is_copy)
    }
}

fn program(pid: Tid) -> Option<PathBuf> {
    Some(Program::of(pid).ok()?.called)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_counted_and_the_first_are_named() {
        let mut children = Children::default();
        assert_eq!(children.note(), None);
        let own = Tid::new(std::process::id().cast_signed());
        children.add(own, None);
        let note = children.note().unwrap();
        assert!(
            note.starts_with(&format!("1 child was not traced: {own} leaktap")),
            "{note}"
        );
        for _ in 0..1200 {
            children.add(own, Some("leaktap".as_ref()));
        }
        let note = children.note().unwrap();
        assert!(
            note.starts_with("1,201 children were not traced: "),
            "{note}"
        );
        assert!(
            note.contains("a copy of leaktap") && note.ends_with(", 1,193 more"),
            "{note}"
        );
    }
}
