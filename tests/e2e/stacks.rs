//! Stacks are exact: every frame is the one that backtrace(3) finds, through signal frames, libc's qsort and threads.

use std::collections::BTreeMap;

use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::{Traced, attach, run};
use crate::report::hexadecimal;

/// The fixture's `trace SIZE 0x... 0x...` lines.
fn traces(output: &str) -> BTreeMap<u64, Vec<u64>> {
    let trace = |line: &str| {
        let mut words = line.strip_prefix("trace ")?.split(' ');
        let size = words.next()?.parse().ok()?;
        Some((size, words.map(hexadecimal).collect()))
    };
    output.lines().filter_map(trace).collect()
}

fn same_stacks(traced: &Traced, output: &str, engine: Engine) {
    let expected = traces(output);
    assert_eq!(expected.len(), 6, "{output}");
    let sites = traced.succeeded().sites();
    for (size, backtrace) in expected {
        let is_it = |site: &&crate::report::Site| {
            site.bytes == size
                && site
                    .frames
                    .first()
                    .is_some_and(|frame| frame.function == "leak")
        };
        let site = sites
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{engine}: no site of {size} bytes in leak()"));
        // The innermost frames are of two calls in the same function.
        let (seen, expected) = (&site.addresses()[1..], &backtrace[1..]);
        assert!(
            seen == expected,
            "{engine}, {size} bytes:\nseen     {seen:x?}\nexpected {expected:x?}"
        );
    }
}

engines! {
    fn launched_stacks_are_those_of_backtrace(engine) {
        let fixture = Fixture::new("backtrace.c");
        let traced = run(engine, &[fixture.program().as_os_str(), "run".as_ref()]);
        same_stacks(&traced, &traced.finished.stdout_text(), engine);
    }

    fn attached_stacks_are_those_of_backtrace(engine) {
        let fixture = Fixture::new("backtrace.c");
        let mut target = fixture.start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        same_stacks(&traced, &target.end().stdout_text(), engine);
    }
}
