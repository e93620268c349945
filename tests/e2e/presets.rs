//! `--alloc-fn @PRESET` against the real libraries, whose calls the fixtures count.

use crate::compare::exact;
use crate::engines::{Engine, engines};
use crate::exact::worked;
use crate::fixture::Fixture;
use crate::leaktap::run_with;
use crate::tools;
use crate::truth::Mode;

/// `sums`: allocations, frees and what is left, of blocks of the library's.
fn counted(engine: Engine, preset: &str, library: &str, fixture: &str, sums: [u64; 3]) {
    if tools::library(library).is_none() {
        return;
    }
    let fixture = Fixture::new(fixture);
    let options = ["--alloc-fn", preset];
    let traced = worked(&fixture, engine, &options);
    let families = traced.report().families();
    let its = families
        .iter()
        .find(|family| preset.ends_with(&family.name));
    let its = its.unwrap_or_else(|| traced.fail("no such family", &[]));
    let seen = ["allocations", "frees", "live_blocks"].map(|name| its.total(name));
    assert_eq!(seen, sums, "{}", traced.report().summary());
    let program = [fixture.program().as_os_str(), "run".as_ref()];
    let traced = run_with(engine, &options, &program);
    exact(&fixture, &traced, Mode::Run);
}

engines! {
    fn slices_of_glib(engine) {
        counted(engine, "@glib", "libglib-2.0.so.0", "slices.c", [156, 150, 6]);
    }

    fn blocks_of_libxml2(engine) {
        counted(engine, "@libxml2", "libxml2.so.2", "xml_blocks.c", [110, 101, 9]);
    }

    /// Its functions end with jumps to malloc and free.
    fn blocks_of_openssl(engine) {
        counted(engine, "@openssl", "libcrypto.so.3", "crypto_blocks.c", [147, 132, 15]);
    }

    fn pools_of_apr(engine) {
        counted(engine, "@apr", "libapr-1.so.0", "apr_pools.c", [97, 90, 7]);
    }

    fn blocks_of_python(engine) {
        counted(engine, "@python", "libpython3.11.so.1.0", "python_blocks.c", [759, 751, 8]);
    }
}
