//! Formats that a CI shows: JUnit, SARIF, annotations, code quality.

use std::path::Path;

use serde_json::Value;

use super::captured::Captured;
use super::{lines_with, read_by, read_by_in};
use crate::engines::engines;
use crate::fixture::Fixture;
use crate::leaktap::leaktap;
use crate::tools::{npm, program};

engines! {
    fn sarif_is_valid(engine) {
        let Some(package) = npm("@microsoft/sarif-multitool-linux") else { return };
        let captured = Captured::new(engine);
        let file = captured.in_format("sarif", &[]);
        let copy = captured.folder().join("report.sarif");
        std::fs::copy(file, &copy).expect("a copy");
        let tool = package.join("Sarif.Multitool");
        let environment = "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1";
        let words = [environment.as_ref(), tool.as_os_str(), "validate".as_ref(), copy.as_os_str()];
        let said = read_by_in(captured.folder(), Path::new("/usr/bin/env"), words);
        assert!(said.contains("Analysis completed successfully"), "{said}");
        assert_eq!(lines_with(&said, &[": error "]).len(), 0, "{said}");
        let log: Value = serde_json::from_str(&captured.text("sarif")).expect("JSON");
        let first = &log["runs"][0]["results"][0];
        let place = &first["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().unwrap_or_default();
        assert!(uri.ends_with("fixtures/culprit.cpp"), "{first}");
        assert_eq!(place["region"]["startLine"], 21, "{first}");
        assert_eq!(first["ruleId"], "leaktap/unmatched", "{first}");
    }

    /// What is found again has the fingerprint that it had.
    fn fingerprints_stay(engine) {
        let print = |report: &Captured| {
            let entries: Value = serde_json::from_str(&report.text("gitlab")).expect("JSON");
            let entries = entries.as_array().expect("a list").iter();
            let prints = entries.map(|entry| entry["fingerprint"].to_string());
            let mut prints: Vec<_> = prints.collect();
            prints.sort();
            prints.dedup();
            prints
        };
        let [one, other] = [(); 2].map(|()| print(&Captured::new(engine)));
        assert_eq!(one, other);
        assert!(one.len() >= 5, "{one:?}");
    }

    fn junit_has_a_test_a_leak(engine) {
        let Some(xmllint) = program("xmllint") else { return };
        for (fixture, leaks) in [("culprit.cpp", 5), ("keeps_nothing.c", 0)] {
            let captured = Captured::of(engine, &Fixture::new(fixture), &[]);
            let file = captured.in_format("junit", &[]);
            let number = |path: &str| {
                let text = read_by(&xmllint, ["--xpath".as_ref(), path.as_ref(), file.as_os_str()]);
                text.trim().parse::<u64>().expect("a number")
            };
            assert_eq!(number("count(//testcase/failure)"), leaks, "{fixture}");
            assert_eq!(number("number(//testsuite/@failures)"), leaks, "{fixture}");
            assert_eq!(number("number(//testsuite/@tests)"), leaks.max(1), "{fixture}");
            assert_eq!(number("count(//testcase)"), leaks.max(1), "{fixture}");
        }
    }

    /// From the folder of the sources on.
    fn annotations_are_at_lines(engine) {
        let captured = Captured::new(engine);
        let mut command = leaktap();
        let root = env!("CARGO_MANIFEST_DIR");
        let capture = captured.folder().join("capture");
        let command = command.args(["report", "-F", "github"]).arg(capture).current_dir(root);
        let output = command.output().expect("leaktap runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let start = "::warning file=fixtures/culprit.cpp,line=21,title=leaktap%3A in_thread::";
        assert_eq!(lines_with(&text, &[start, "4,000 B in 1 block"]).len(), 1, "{text}");
        assert_eq!(lines_with(&text, &["::notice ", "at 5 call sites"]).len(), 1, "{text}");
    }
}
