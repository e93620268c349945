//! Programs whose allocator comes by LD_PRELOAD: jemalloc, tcmalloc, mimalloc.

use std::process::Command;

use crate::engines::engines;
use crate::exact::{attached, launched_with};
use crate::fixture::{Fixture, Target};
use crate::tools;

const ALL: &[&str] = &[
    "portable.c",
    "new_delete.cpp",
    "exceptions.cpp",
    "throwing_new.cpp",
];
/// mimalloc is built as C: its operator new does not throw but abort.
const NOT_THROWING: &[&str] = &["portable.c", "new_delete.cpp", "exceptions.cpp"];

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
                        let target = Target::start(Command::new(fixture.program()).env("LD_PRELOAD", &library));
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
    mimalloc: "libmimalloc.so.2", NOT_THROWING;
}
