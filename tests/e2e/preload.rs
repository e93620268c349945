//! Programs whose allocator comes by LD_PRELOAD: jemalloc, tcmalloc, mimalloc.

use std::process::Command;

use crate::engines::{Engine, engines};
use crate::exact::{attached, launched_with};
use crate::fixture::{Fixture, Target};
use crate::leaktap::attach;
use crate::tools;

const ALL: &[&str] = &[
    "portable.c",
    "new_delete.cpp",
    "exceptions.cpp",
    "throwing_new.cpp",
    "deletes.cpp",
];
/// mimalloc is built as C: its operator new does not throw but abort.
const NOT_THROWING: &[&str] = &[
    "portable.c",
    "new_delete.cpp",
    "exceptions.cpp",
    "deletes.cpp",
];

macro_rules! preloaded {
    ($($name:ident: $library:literal, $fixtures:expr;)*) => {$(
        mod $name {
            use super::*;

            engines! {
                fn launches(engine) {
                    let Some(library) = tools::library($library) else { return };
                    for fixture in $fixtures {
                        launched_with(&library, &Fixture::new(fixture), engine);
                    }
                }
                fn attaches(engine) {
                    let Some(library) = tools::library($library) else { return };
                    for name in $fixtures {
                        let fixture = Fixture::new(name);
                        let mut command = Command::new(fixture.program());
                        let target = Target::start(command.env("LD_PRELOAD", &library));
                        attached(&fixture, target, engine);
                    }
                }
            }
        }
    )*};
}

preloaded! {
    jemalloc: "libjemalloc.so.2", ALL;
    tcmalloc: "libtcmalloc_minimal.so.4", ALL;
    allocx: "libjemalloc.so.2", ["allocx.c"];
    mimalloc: "libmimalloc.so.2", NOT_THROWING;
}

/// The debug libraries abort where a block of operator new was made by malloc.
#[test]
fn operators_are_led_to_malloc_only_where_that_is_the_same() {
    let fixture = Fixture::new("new_delete.cpp");
    for (library, kind) in [
        ("libjemalloc.so.2", "detour"),
        ("libtcmalloc_minimal.so.4", "detour"),
        ("libmimalloc.so.2", "detour"),
        ("libtcmalloc_minimal_debug.so.4", "breakpoint"),
        ("libtcmalloc_debug.so.4", "breakpoint"),
    ] {
        let Some(path) = tools::library(library) else {
            continue;
        };
        let mut target = Target::start(Command::new(fixture.program()).env("LD_PRELOAD", path));
        let tracing = attach(Engine::Auto, target.pid(), &[]);
        target.work();
        let traced = tracing.detach();
        let probes = traced.succeeded().at("/probes").as_array();
        let operator = probes.and_then(|all| all.iter().find(|p| p["function"] == "_Znwm"));
        assert_eq!(
            operator.map(|operator| &operator["kind"]),
            Some(&kind.into()),
            "{library}"
        );
        target.end().succeeded();
    }
}
