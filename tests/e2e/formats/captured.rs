//! A capture, and the reports that are made of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::engines::Engine;
use crate::fixture::Fixture;
use crate::leaktap::leaktap_with;

/// A capture of a fixture that ran to its end.
pub(super) struct Captured {
    folder: TempDir,
}

impl Captured {
    /// Of blocks of C++, of a thread, and of the C library.
    pub(super) fn new(engine: Engine) -> Captured {
        Captured::of(engine, &Fixture::new("culprit.cpp"), &[])
    }

    /// Of a fixture under more options.
    pub(super) fn of(engine: Engine, fixture: &Fixture, options: &[&str]) -> Captured {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let captured = Captured { folder };
        let (engine, program) = (engine.to_string(), fixture.program().display().to_string());
        let (capture, report) = (captured.path("capture"), captured.path("report"));
        let mut words = vec!["run", "--engine", &engine, "-q", "-o", &capture];
        words.extend(["--report-file", &report]);
        words.extend(options);
        words.extend(["--", &program]);
        leaktap_with(words).succeeded();
        captured
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The report in `format`, with more options, in a file.
    pub(super) fn in_format(&self, format: &str, options: &[&str]) -> PathBuf {
        let (file, capture) = (self.path(format), self.path("capture"));
        let words = [
            "report",
            "-q",
            "-F",
            format,
            "--report-file",
            &file,
            &capture,
        ];
        leaktap_with(words.iter().chain(options)).succeeded();
        PathBuf::from(file)
    }

    /// The same as text.
    pub(super) fn text(&self, format: &str) -> String {
        fs::read_to_string(self.in_format(format, &[])).expect("a report")
    }

    /// The reports in JSON.
    pub(super) fn json(&self) -> Vec<Value> {
        let text = self.text("json");
        let reports = text.lines().map(serde_json::from_str);
        reports.collect::<Result<_, _>>().expect("JSON")
    }

    /// Blocks and bytes of all sites but those of runtimes.
    pub(super) fn sums(&self) -> (u64, u64) {
        self.sums_of(|site| site["kind"] != "runtime")
    }

    pub(super) fn sums_with_runtime(&self) -> (u64, u64) {
        self.sums_of(|_| true)
    }

    fn sums_of(&self, is_of_them: fn(&Value) -> bool) -> (u64, u64) {
        let reports = self.json();
        let sites = reports
            .iter()
            .filter_map(|report| report["sites"].as_array());
        let leaks = sites.flatten().filter(|site| is_of_them(site));
        let number = |value: &Value| value.as_u64().expect("a number");
        leaks.fold((0, 0), |(blocks, bytes), site| {
            (
                blocks + number(&site["blocks"]),
                bytes + number(&site["bytes"]),
            )
        })
    }
}
