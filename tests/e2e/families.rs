//! Which allocator is watched where there are several, and what is said of the others.

use std::process::Command;

use crate::compile::Build;
use crate::engines::{Engine, engines};
use crate::exact::{attached, launched_with};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{attach, leaktap_with, run};
use crate::tools;

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

    fn an_allocator_that_is_not_watched_is_named(engine) {
        let fixture = Fixture::new("namespaces.c");
        let mut target = fixture.start();
        let doctor = leaktap_with(["doctor", "-p", &target.pid().to_string()]).succeeded();
        let tracing = attach(engine, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        let notes = traced.succeeded().notes().join("\n");
        for text in [notes, doctor.stdout_text()] {
            assert!(text.contains("libc (namespace 2) in"), "{text}");
            assert!(text.contains("libnamespace_plugin.so"), "{text}");
        }
        target.end().succeeded();
    }
}
