//! Every allocator function of the allocators on this machine can be patched.
#![allow(
    clippy::unwrap_used,
    reason = "a failure to prepare is a failure of the test"
)]

use std::path::Path;

use leaktap_memory::{Addr, ReadMemory, Unreadable};
use leaktap_probe::{Site, long_branches};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};

const LIBRARIES: [&str; 5] = [
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
    "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
    "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2",
    "/lib/ld-musl-x86_64.so.1",
];

const FUNCTIONS: [&str; 15] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "free",
    "cfree",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "_Znwm",
    "_ZnwmRKSt9nothrow_t",
    "_ZdlPv",
    "_ZdlPvm",
];

/// A file at bias zero.
struct File<'a>(object::File<'a>);

impl ReadMemory for File<'_> {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        let unreadable = Unreadable { at, len: buf.len() };
        let found = self.0.segments().find_map(|segment| {
            segment
                .data_range(at.get(), buf.len() as u64)
                .ok()
                .flatten()
        });
        buf.copy_from_slice(found.ok_or(unreadable)?);
        Ok(())
    }
}

#[test]
fn allocator_functions_can_be_patched() {
    let mut libraries = 0;
    for path in LIBRARIES
        .map(Path::new)
        .into_iter()
        .filter(|path| path.exists())
    {
        let bytes = std::fs::read(path).unwrap();
        let file = File(object::File::parse(&*bytes).unwrap());
        let found = check(path, &file);
        assert!(found >= 4, "{}: only {found} functions", path.display());
        libraries += 1;
    }
    assert!(libraries > 0, "no C library");
}

fn check(path: &Path, file: &File<'_>) -> usize {
    let text = file.0.section_by_name(".text").unwrap();
    let (text, text_at) = (text.data().unwrap(), Addr::new(text.address()));
    let mut found = 0;
    for symbol in file
        .0
        .dynamic_symbols()
        .filter(|s| s.kind() == SymbolKind::Text)
    {
        let name = symbol.name().unwrap_or_default();
        if !FUNCTIONS.contains(&name) || !symbol.is_definition() {
            continue;
        }
        let what = format!("{}: {name}", path.display());
        let at = Addr::new(symbol.address());
        let mut code = vec![0; symbol.size() as usize];
        file.read(at, &mut code).unwrap();
        let site = Site::find(&code, at, file).unwrap_or_else(|why| panic!("{what}: {why}"));
        assert!((5..=19).contains(&site.displaced().len()), "{what}");
        assert_eq!(long_branches(text, text_at, &[site.inner()]), [], "{what}");
        let to = Addr::new(at.get() + 0x1000_0000);
        site.moved(to).unwrap_or_else(|why| panic!("{what}: {why}"));
        found += 1;
    }
    found
}
