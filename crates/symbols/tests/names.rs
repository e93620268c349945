//! Functions, files and lines.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests do"
)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use leaktap_image::ElfFile;
use leaktap_memory::Svma;
use leaktap_symbols::{Name, Resolver};

/// `inner` is inlined into `middle`, that into `outer`; the call is on line 3.
const SOURCE: &str = "#include <stdlib.h>\nvoid *volatile kept;\n\
    static inline __attribute__((always_inline)) void inner(int n) { kept = malloc(n); }\n\
    static inline __attribute__((always_inline)) void middle(int n) { inner(n + 1); }\n\
    __attribute__((noinline)) void outer(int n) { middle(n * 2); kept = 0; }\n\
    int main(int argc, char **argv) { (void)argv; outer(argc); return 0; }\n";

fn open(path: &Path) -> Arc<ElfFile> {
    Arc::new(ElfFile::open(path).unwrap())
}

fn function(file: &ElfFile, name: &str) -> Svma {
    file.functions(name)[0].svma
}

/// The names at the first address of `outer` that has three.
fn names_in_outer(file: &Arc<ElfFile>, start: Svma, size: u64) -> Vec<Name> {
    let mut resolver = Resolver::new();
    let mut all = (0..size).map(|at| resolver.names(file, Svma(start.0 + at)));
    all.find(|names| names.len() == 3).unwrap_or_default()
}

fn expect_inlined(names: &[Name]) {
    let functions: Vec<_> = names.iter().map(|name| name.function.as_deref()).collect();
    assert_eq!(functions, [Some("inner"), Some("middle"), Some("outer")]);
    let lines: Vec<_> = names.iter().map(|name| name.line).collect();
    assert_eq!(lines, [Some(3), Some(4), Some(5)]);
    let inlined: Vec<_> = names.iter().map(|name| name.inlined).collect();
    assert_eq!(inlined, [true, true, false]);
    assert!(
        names
            .iter()
            .all(|name| name.file.as_deref().unwrap().ends_with(".c"))
    );
}

#[test]
fn inlined_functions_come_first() {
    let dir = tempfile::tempdir().unwrap();
    for (name, flags) in [
        ("dwarf5", &["-g", "-O2"][..]),
        ("dwarf4", &["-gdwarf-4", "-O2"][..]),
        ("compressed", &["-g", "-gz=zlib", "-O2"][..]),
        ("fixed", &["-g", "-O2", "-no-pie"][..]),
    ] {
        let file = open(&leaktap_testing::compile(
            "gcc",
            dir.path(),
            name,
            SOURCE,
            flags,
        ));
        let outer = &file.functions("outer")[0];
        expect_inlined(&names_in_outer(&file, outer.svma, outer.size));
    }
}

fn objcopy(args: &[&str], dir: &Path) {
    let done = Command::new("objcopy").args(args).current_dir(dir).status();
    assert!(done.unwrap().success(), "objcopy {args:?}");
}

#[test]
fn a_debug_file_beside_a_stripped_one_is_found_by_its_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["-g", "-O2", "-Wl,--build-id=none"];
    let path = leaktap_testing::compile("gcc", dir.path(), "split", SOURCE, &flags);
    let outer = open(&path).functions("outer")[0].clone();
    objcopy(&["--only-keep-debug", "split", "split.debug"], dir.path());
    objcopy(
        &["--strip-all", "--add-gnu-debuglink=split.debug", "split"],
        dir.path(),
    );
    let file = open(&path);
    assert!(file.functions("outer").is_empty());
    expect_inlined(&names_in_outer(&file, outer.svma, outer.size));

    // Another file of that name is not believed.
    let debug = dir.path().join("split.debug");
    let mut bytes = std::fs::read(&debug).unwrap();
    bytes.push(0);
    std::fs::write(&debug, bytes).unwrap();
    assert_eq!(
        Resolver::new().names(&open(&path), outer.svma),
        [Name::default()]
    );
}

#[test]
fn symbols_name_what_has_no_debug_information() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&leaktap_testing::compile(
        "gcc",
        dir.path(),
        "plain",
        SOURCE,
        &["-O2"],
    ));
    let mut resolver = Resolver::new();
    let outer = &file.functions("outer")[0];
    let expected = Name {
        function: Some("outer".into()),
        ..Name::default()
    };
    let names = resolver.names(&file, Svma(outer.svma.0 + outer.size - 1));
    assert_eq!(names, [expected]);
    // Between functions there is padding, which is no function's.
    let beyond = Svma(outer.svma.0 + outer.size);
    if file.bytes_at(beyond, 1).unwrap() != [0xf3] {
        assert_eq!(resolver.names(&file, beyond), [Name::default()]);
    }
    for nowhere in [0, 1 << 40, u64::MAX] {
        assert_eq!(resolver.names(&file, Svma(nowhere)), [Name::default()]);
    }
}

#[test]
fn cpp_names_are_demangled() {
    let dir = tempfile::tempdir().unwrap();
    let source = "namespace shop { template <class T> struct Cart { T *add(int n); };\n\
        template <class T> T *Cart<T>::add(int n) { return new T[n]; }\n\
        template struct Cart<double>; }\nint main() { return 0; }\n";
    for flags in [&["-g"][..], &[]] {
        let out = leaktap_testing::compile("g++", dir.path(), "cart", source, flags);
        let file = open(&out);
        let add = function(&file, "_ZN4shop4CartIdE3addEi");
        let names = Resolver::new().names(&file, add);
        assert_eq!(
            names[0].function.as_deref(),
            Some("shop::Cart<double>::add(int)")
        );
    }
}

mod stock {
    #[inline(never)]
    pub(super) fn shelf<T>() -> u64 {
        shelf::<T> as *const () as u64
    }
}

#[test]
fn rust_names_are_demangled() {
    assert_ne!(stock::shelf::<Vec<u8>>(), 0);
    let file = open(&std::env::current_exe().unwrap());
    let all = file.function_names();
    let mut shelves = all.iter().filter(|name| name.contains("5shelf"));
    let at = function(&file, shelves.next().unwrap());
    let names = Resolver::new().names(&file, at);
    let name = names.last().unwrap();
    let function = name.function.as_deref().unwrap();
    assert!(function.starts_with("names::stock::shelf"), "{function}");
    assert!(name.file.as_deref().unwrap().ends_with("tests/names.rs"));
}
