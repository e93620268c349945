//! What formats make of several processes, of small reports, and of terminals.

use serde_json::Value;

use super::captured::Captured;
use super::{lines_with, read_by};
use crate::engines::engines;
use crate::fixture::Fixture;
use crate::tools::program;

engines! {
    /// As their sum, or a row each.
    fn several_processes(engine) {
        let captured = Captured::of(engine, &Fixture::new("ends.c"), &["-f"]);
        let reports = captured.json();
        let processes = reports.len();
        let summary: Value = serde_json::from_str(&captured.text("summary")).expect("JSON");
        assert_eq!(summary["pid"], reports[0]["target"]["pid"], "{summary}");
        let several = (processes > 1).then_some(processes);
        assert_eq!(summary["processes"].as_u64(), several.map(|n| n as u64), "{summary}");
        let csv = captured.text("csv");
        for report in &reports {
            let row = format!("\n{},", report["target"]["pid"]);
            let sites = report["sites"].as_array().expect("sites").iter();
            let leaks = sites.filter(|site| site["kind"] != "runtime").count();
            assert_eq!(csv.matches(&row).count(), leaks, "{csv}");
        }
    }

    fn a_summary_says_what_is_left_and_what_to_do(engine) {
        let captured = Captured::new(engine);
        let text = captured.text("summary");
        assert!(text.len() <= 4096 && text.lines().count() == 1, "{text}");
        let summary: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(summary["verdict"], "unfreed", "{text}");
        assert_eq!(summary["sites"][0]["culprit"], "in_thread", "{text}");
        assert_eq!(summary["confidence"]["lost_events"], 0, "{text}");
        let next = summary["next"].as_str().unwrap_or_default();
        assert!(next.starts_with("leaktap run --top 5 -v -- "), "{text}");
    }

    /// By Python's reader.
    fn csv_is_a_table(engine) {
        let Some(python) = program("python3") else { return };
        let captured = Captured::new(engine);
        let file = captured.in_format("csv", &[]);
        let script = "import csv, sys
for row in csv.DictReader(open(sys.argv[1], newline=''), strict=True):
    print(row['blocks'], row['bytes'], row['culprit'], None in row, None in row.values())";
        let rows = read_by(&python, ["-c".as_ref(), script.as_ref(), file.as_os_str()]);
        assert_eq!(lines_with(&rows, &["1 4000 in_thread False False"]).len(), 1, "{rows}");
        assert_eq!(lines_with(&rows, &["True"]).len(), 0, "{rows}");
        let numbers = rows.lines().map(|row| {
            let mut numbers = row.split(' ').map(str::parse::<u64>);
            let mut next = || numbers.next().and_then(Result::ok).expect("a number");
            (next(), next())
        });
        let sums = numbers.fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
        assert_eq!(sums, captured.sums());
    }
}
