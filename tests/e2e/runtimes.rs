//! What runtimes keep for good is no leak; what a program leaves is one.

use crate::compile::Build;
use crate::engines::engines;
use crate::fixture::Fixture;
use crate::leaktap::leaktap_with;

/// The exit status of `leaktap run --error-exitcode 42`, and the report.
fn checked(engine: &str, fixture: &Fixture, argument: &[&str]) -> (Option<i32>, String) {
    let program = fixture.program().display().to_string();
    let words = [
        "run",
        "--engine",
        engine,
        "--error-exitcode",
        "42",
        "--",
        &program,
    ];
    let finished = leaktap_with(words.iter().chain(argument));
    (finished.status.code(), finished.stderr_text())
}

fn with(name: &str, flags: &[&str]) -> Fixture {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Fixture::built(
        name,
        &Build {
            flags,
            compiler: None,
        },
    )
}

engines! {
    fn a_clean_program_has_no_leak(engine) {
        let fixtures = [
            with("keeps_nothing.c", &[]),
            with("keeps_nothing.c", &["-static"]),
            with("keeps_nothing.cpp", &[]),
            with("keeps_nothing.cpp", &["-static"]),
            Fixture::new("keeps_nothing.rs"),
            Fixture::new("asks_much.c"),
        ];
        for fixture in fixtures {
            let (status, report) = checked(&engine.to_string(), &fixture, &[]);
            let name = fixture.program().display();
            assert_eq!(status, Some(0), "{name}: {report}");
            assert!(
                report.contains("which runtimes keep for good"),
                "{name}: {report}"
            );
            assert!(report.contains("no unfreed blocks\n"), "{name}: {report}");
        }
    }

    fn what_a_program_asked_the_c_library_for_is_no_leak(engine) {
        for program in ["cat /dev/null", "id"] {
            let engine = engine.to_string();
            let words = ["run", "--engine", &engine, "--error-exitcode", "42", "--"];
            let finished = leaktap_with(words.into_iter().chain(program.split(' ')));
            let report = finished.stderr_text();
            assert_eq!(finished.status.code(), Some(0), "{program}: {report}");
        }
    }

    fn a_file_that_is_left_open_and_a_string_are_leaks(engine) {
        let fixture = Fixture::new("keeps_nothing.c");
        for leak in ["fopen", "strdup"] {
            let (status, report) = checked(&engine.to_string(), &fixture, &[leak]);
            assert_eq!(status, Some(42), "{report}");
            assert!(report.contains(leak), "{leak}: {report}");
        }
    }

    fn what_a_caller_has_to_free_is_a_leak(engine) {
        let fixture = Fixture::new("asks_much.c");
        for leak in ["iconv_open", "newlocale"] {
            let (status, report) = checked(&engine.to_string(), &fixture, &[leak]);
            assert_eq!(status, Some(42), "{report}");
            assert!(report.contains(leak), "{leak}: {report}");
            assert!(report.contains("at 1 call site\n"), "{leak}: {report}");
        }
    }

    fn the_json_report_has_each_site(engine) {
        let program = Fixture::new("keeps_nothing.c")
            .program()
            .display()
            .to_string();
        let engine = engine.to_string();
        let words = [
            "run",
            "-q",
            "--engine",
            &engine,
            "-F",
            "json",
            "--report-file",
            "/dev/stdout",
        ];
        let finished = leaktap_with(words.into_iter().chain(["--", &program])).succeeded();
        let text = finished.stdout_text();
        let json = text
            .lines()
            .find(|line| line.starts_with('{'))
            .expect("a report");
        let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let sites = json["sites"].as_array().expect("sites");
        let kept = sites.iter().filter(|site| site["kind"] == "runtime");
        let blocks: u64 = kept.filter_map(|site| site["blocks"].as_u64()).sum();
        assert_eq!(json["totals"]["runtime_blocks"], blocks);
        assert!(blocks > 0, "{json}");
    }
}
