//! A Markdown file with samples.

use std::fs;
use std::path::{Path, PathBuf};

/// Begins the line before a sample.
const MARK: &str = "<!-- sample";

/// How a block of code is set off.
const INDENT: &str = "    ";

/// How lines begin that only leaktap prints.
const PRINTED: [&str; 3] = ["leaktap: ", "  allocated  ", "  not freed  "];

pub(super) struct Document {
    path: PathBuf,
    lines: Vec<String>,
    changed: bool,
}

/// Commands and what they print.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Without the indentation.
    pub(super) text: String,
    /// Where it begins, counted from 1.
    pub(super) line: usize,
    /// Files of `fixtures/`, programs that do not run yet.
    pub(super) programs: Vec<String>,
    /// One that runs.
    pub(super) live: Option<String>,
    pub(super) amounts_vary: bool,
}

impl Document {
    pub(super) fn read(path: &Path) -> Document {
        let text = fs::read_to_string(path).expect("a document");
        Document {
            path: path.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            changed: false,
        }
    }

    /// From the last to the first, so that one can be replaced without moving those to come.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let marked = self.lines.iter().enumerate().rev();
        let marked = marked.filter(|(_, line)| line.starts_with(MARK));
        marked.map(|(at, mark)| self.sample(at, mark)).collect()
    }

    fn sample(&self, at: usize, mark: &str) -> Sample {
        let begin = at + 2; // the mark, an empty line
        let block = self.lines[begin..].iter().map(|line| unindented(line));
        let block: Vec<_> = block.map_while(|line| line).collect();
        let text = block.join("\n");
        let mut sample = Sample {
            text: format!("{}\n", text.trim_end()),
            line: begin + 1,
            ..Sample::default()
        };
        assert!(
            sample.text.starts_with("$ "),
            "{}: no command",
            self.place(begin)
        );
        let words = mark
            .strip_prefix(MARK)
            .and_then(|rest| rest.strip_suffix("-->"));
        let words = words.unwrap_or_else(|| panic!("{}: no end", self.place(at)));
        for word in words.trim_start_matches(':').split(',').map(str::trim) {
            match word.strip_prefix("live ") {
                Some(live) => sample.live = Some(live.to_owned()),
                None if word == "amounts vary" => sample.amounts_vary = true,
                None if word.is_empty() => {}
                None => sample.programs.push(word.to_owned()),
            }
        }
        sample
    }

    fn place(&self, line: usize) -> String {
        format!("{}:{}", self.path.display(), line + 1)
    }

    pub(super) fn replace(&mut self, sample: &Sample, text: &str) {
        let begin = sample.line - 1;
        let length = sample.text.lines().count();
        let indented = text.lines().map(|line| format!("{INDENT}{line}"));
        let indented = indented.map(|line| line.trim_end().to_owned());
        self.lines.splice(begin..begin + length, indented);
        self.changed = true;
    }

    pub(super) fn write_if_changed(&self) {
        if self.changed {
            let text = self.lines.join("\n") + "\n";
            fs::write(&self.path, text).expect("a document");
        }
    }

    /// Lines that somebody has typed, though leaktap prints them.
    pub(super) fn outputs_without_commands(&self) -> Vec<String> {
        let samples = self.samples();
        let is_sample = |at: usize| {
            samples.iter().any(|sample| {
                let begin = sample.line - 1;
                (begin..begin + sample.text.lines().count()).contains(&at)
            })
        };
        let outputs = self.lines.iter().enumerate().filter(|(at, line)| {
            let code = line.strip_prefix(INDENT).unwrap_or_default();
            PRINTED.iter().any(|start| code.starts_with(start)) && !is_sample(*at)
        });
        outputs
            .map(|(at, line)| format!("line {}: no sample, but output: {line}", at + 1))
            .collect()
    }
}

/// A line of code without its indentation; none if it is no code.
fn unindented(line: &str) -> Option<&str> {
    match line.is_empty() {
        true => Some(line),
        false => line.strip_prefix(INDENT),
    }
}
