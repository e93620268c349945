//! Frees that go wrong: what the text report says of them.

use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::leaktap_with;

/// The report of a program that was launched under `option`.
fn launched(engine: Engine, option: &str) -> String {
    report_on("misuse.cpp", engine, option)
}

fn report_on(fixture: &'static str, engine: Engine, option: &str) -> String {
    let fixture = Fixture::new(fixture);
    let program = fixture.program().display().to_string();
    let engine = engine.to_string();
    let finished = leaktap_with(["run", "--engine", &engine, option, "--", &program, "run"]);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.shown());
    finished.stderr_text()
}

engines! {
    fn the_first_of_two_frees_has_a_stack_if_that_is_asked_for(engine) {
        let text = launched(engine, "--free-stacks");
        let first =
            "freed first at drop (misuse.cpp:20) < twice (misuse.cpp:26) < main (misuse.cpp:";
        assert!(text.contains(first), "{text}");
    }

    fn a_launched_program_has_no_time_before(engine) {
        let text = launched(engine, "--no-progress");
        assert!(text.contains(", 3 of them of no live block"), "{text}");
        assert!(!text.contains("before the trace"), "{text}");
    }

    /// Nor are frees at so many places wrong whose blocks nobody was seen to allocate.
    fn merged_operators_are_no_mismatch(engine) {
        let text = report_on("merged.cpp", engine, "--no-progress");
        assert!(!text.contains("mismatched"), "{text}");
        let unseen = "20 frees were of blocks that no known function has allocated, and of so many";
        assert!(text.contains(unseen), "{text}");
        assert!(!text.contains("no live block at"), "{text}");
    }
}
