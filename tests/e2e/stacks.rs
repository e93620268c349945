//! Stacks are exact: every frame is the one that backtrace(3) finds, through signal frames, libc's
//! qsort and threads.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::SystemTime;

use crate::compare::exact;
use crate::engines::{Engine, engines};
use crate::exact::assert_alike;
use crate::fixture::{Fixture, Target};
use crate::leaktap::{Traced, attach, run};
use crate::report::hexadecimal;
use crate::truth::Mode;

/// Frames that are kept of a stack, unless `--depth` says otherwise.
const DEPTH: usize = 64;

/// Random programs.
const SEEDS: usize = 3;

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

/// A new one each time. A failed test shows it; `leaktap run -- random run SEED` is the same again.
fn seed() -> String {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("later than 1970");
    since.as_nanos().to_string()
}

/// Frames of each stack in `leak()`, innermost first, but for the first one: blocks, and their
/// bytes, which tell them apart.
type Stacks = BTreeMap<Vec<u64>, (u64, u64)>;

fn add(stacks: &mut Stacks, frames: &[u64], blocks: u64, bytes: u64) {
    let callers = frames.get(1..frames.len().min(DEPTH)).unwrap_or_default();
    let sums = stacks.entry(callers.to_vec()).or_default();
    *sums = (sums.0 + blocks, sums.1 + bytes);
}

/// Fails unless all blocks that `output` tells of are reported, each with its stack.
fn same_random_stacks(traced: &Traced, output: &str) {
    let (mut seen, mut expected) = (Stacks::new(), Stacks::new());
    for (size, frames) in traces(output) {
        add(&mut expected, &frames, 1, size);
    }
    for site in traced.succeeded().sites() {
        if site
            .frames
            .first()
            .is_some_and(|frame| frame.function == "leak")
        {
            for stack in site.stacks() {
                add(&mut seen, &stack.addresses, stack.blocks, stack.bytes);
            }
        }
    }
    let only = |sign: &str, one: &Stacks, other: &Stacks| {
        let unlike = one
            .iter()
            .filter(|(stack, sums)| other.get(*stack) != Some(sums));
        unlike
            .map(|stack| format!("{sign} {stack:x?}"))
            .collect::<Vec<_>>()
    };
    let unlike = [only("+", &seen, &expected), only("-", &expected, &seen)].concat();
    if !unlike.is_empty() || expected.len() < 50 {
        traced.fail("- missing, + wrong: (stack, (blocks, bytes))", &unlike);
    }
}

#[test]
fn random_call_paths_under_both_engines_and_by_backtrace() {
    let fixture = Fixture::new("random.c");
    for _ in 0..SEEDS {
        let seed = seed();
        eprintln!("seed {seed}");
        assert_alike(&fixture.truth(Mode::Run), |engine| {
            let program = fixture.program().as_os_str();
            let traced = run(engine, &[program, "run".as_ref(), seed.as_ref()]);
            same_random_stacks(&traced, &traced.finished.stdout_text());
            traced
        });
        assert_alike(&fixture.truth(Mode::Attach), |engine| {
            let mut target = Target::start(Command::new(fixture.program()).arg(&seed));
            let tracing = attach(engine, target.pid(), &[]);
            target.work();
            let traced = tracing.detach();
            let output = target.end().stdout_text();
            let (_, work) = output.split_once("ready\n").unwrap_or_default();
            same_random_stacks(&traced, work);
            traced
        });
    }
}

engines! {
    /// Four calls of one line, each at an address of its own.
    fn unrolled_code_is_one_site(engine) {
        let fixture = Fixture::new("unrolled.c");
        let traced = run(engine, &[fixture.program().as_os_str()]);
        exact(&fixture, &traced, Mode::Run);
        let sites = traced.succeeded().sites();
        let sizes: Vec<_> = sites.iter().map(|site| (site.blocks, site.bytes)).collect();
        assert_eq!(sizes, [(4, 16_000), (1, 5000)]);
        let stacks = sites[0].stacks();
        let mut addresses: Vec<_> = stacks.iter().map(|stack| stack.addresses.clone()).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 4, "{stacks:?}");
        assert!(stacks.iter().all(|stack| (stack.blocks, stack.bytes) == (1, 4000)));
    }

    /// Each number that it led to was a frame, and each such stack a call site.
    fn a_frame_pointer_that_is_none_leads_to_no_frame(engine) {
        let fixture = Fixture::new("wild_rbp.c");
        let mut target = fixture.start();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        drop(target.end());
        let report = traced.succeeded();
        let sites: Vec<_> = report.sites().into_iter().filter(|site| site.bytes > 0).collect();
        let blocks: Vec<_> = sites.iter().map(|site| (site.blocks, site.frames.len())).collect();
        assert_eq!(blocks, [(40, 1)], "{sites:?}");
        let truncated = |note: &String| note.contains("no frame pointer");
        assert!(report.notes().iter().any(truncated), "{:?}", report.notes());
    }

    fn contexts_have_a_root_with_a_name(engine) {
        let fixture = Fixture::new("contexts.c");
        let traced = run(engine, &[fixture.program().as_os_str(), "run".as_ref()]);
        for site in traced.succeeded().sites() {
            let outermost = site.frames.last().map(|frame| frame.function.as_str());
            assert_eq!(outermost, Some("__start_context"), "{site:?}");
        }
    }

    fn what_signals_interrupt_is_behind_a_frame_that_says_so(engine) {
        let fixture = Fixture::new("altstack.c");
        let traced = run(engine, &[fixture.program().as_os_str(), "run".as_ref()]);
        let handler = |frame: &crate::report::Frame| frame.function == "<signal handler called>";
        let sites = traced.succeeded().sites();
        let in_handler = |site: &crate::report::Site| site.frames.iter().any(handler);
        assert!(sites.iter().any(in_handler), "{sites:?}");
    }

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
