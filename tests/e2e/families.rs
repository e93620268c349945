//! Which allocator is watched where there are several, and what is said of the others.

use std::process::Command;

use crate::compare::exact;
use crate::compile::Build;
use crate::engines::{Engine, engines};
use crate::exact::{attached, launched_with, worked};
use crate::fixture::{Fixture, Target};
use crate::leaktap::run;
use crate::tools;
use crate::truth::Mode;

/// With this library, which is built beside it, preloaded.
fn preloaded(fixture: &str, library: &str, engine: Engine) {
    let fixture = Fixture::new(fixture);
    let library = fixture.program().with_file_name(library);
    launched_with(&library, &fixture, engine);
    let target = Target::start(Command::new(fixture.program()).env("LD_PRELOAD", &library));
    attached(&fixture, target, engine);
}

engines! {
    /// libc's cfree is its free, which the wrapper calls: each block was freed twice.
    fn a_wrapper_of_some_functions(engine) {
        preloaded("half_wrapped.c", "libhalf_wrapper.so", engine);
    }

    /// Of each call to the wrapper there is one block, the C library's, with the caller's stack.
    fn a_wrapper_of_an_allocator_that_others_call(engine) {
        preloaded("handed_on.c", "libwhole_wrapper.so", engine);
    }

    fn a_malloc_that_nobody_is_bound_to(engine) {
        preloaded("half_wrapped.c", "libversioned.so", engine);
    }

    fn a_program_that_allocates_nothing_keeps_its_exit_status(engine) {
        if tools::program("musl-gcc").is_none() {
            return;
        }
        let build = Build {
            compiler: Some("musl-gcc".to_owned()),
            flags: vec!["-static".to_owned()],
        };
        let fixture = Fixture::built("no_allocator.c", &build);
        let traced = run(engine, &[fixture.program().as_os_str()]);
        let status = traced.finished.status.code();
        assert_eq!(status, Some(7), "{}", traced.finished.shown());
        let notes = traced.report().notes().join("\n");
        assert!(notes.contains("no function that allocates"), "{notes}");
    }

    /// Each has its own sums, and what the report says of it by name.
    fn each_allocator_is_watched(engine) {
        let fixture = Fixture::new("namespaces.c");
        let traced = worked(&fixture, engine, &[]);
        let families = traced.report().families();
        let sums = families.iter().map(|family| {
            let sum = |name| family.total(name);
            (
                family.name.as_str(),
                sum("allocations"),
                sum("frees"),
                sum("live_blocks"),
            )
        });
        assert_eq!(
            sums.collect::<Vec<_>>(),
            [("libc", 1, 0, 1), ("libc (namespace 2)", 13, 10, 3)]
        );
        assert_eq!(traced.report().total("allocations"), 13);
    }

    /// When a thread ends, its cache is freed once more, whichever malloc it is of.
    fn caches_of_threads_are_freed_once(engine) {
        for flag in ["-DNAMESPACE", "-DOWN"] {
            let build = Build {
                compiler: None,
                flags: vec![flag.to_owned()],
            };
            let fixture = Fixture::built("thread_caches.c", &build);
            let launched = run(engine, &[fixture.program().as_os_str(), "run".as_ref()]);
            exact(&fixture, &launched, Mode::Run);
            let attached = worked(&fixture, engine, &[]);
            for traced in [&launched, &attached] {
                let families = traced.report().families();
                let sums = families
                    .iter()
                    .map(|family| family.total("unmatched_frees"));
                assert_eq!(
                    sums.collect::<Vec<_>>(),
                    [0, 0],
                    "{flag}: {}",
                    traced.report().summary()
                );
            }
        }
    }
}

/// What comes into use later has breakpoints, and the report says so.
#[test]
fn an_allocator_that_comes_later_says_why_it_has_no_detours() {
    let fixture = Fixture::new("namespaces.c");
    let program = [fixture.program().as_os_str(), "run".as_ref()];
    let traced = run(Engine::Auto, &program);
    let report = traced.succeeded();
    let probes = report.at("/probes").as_array().expect("probes");
    let mallocs = probes.iter().filter(|probe| probe["function"] == "malloc");
    let told = mallocs.map(|probe| (probe["kind"].as_str(), probe["reason"].as_str()));
    let expected = [
        (Some("detour"), None),
        (Some("breakpoint"), Some("BoundLater")),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected, "{probes:?}");
}
