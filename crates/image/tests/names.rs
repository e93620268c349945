//! Functions, files and lines.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests do"
)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use leaktap_image::{ElfFile, Name, Symbolizer};
use leaktap_memory::Svma;
use support::compile;

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
    let mut symbolizer = Symbolizer::new();
    let mut all = (0..size).map(|at| symbolizer.names(file, Svma(start.0 + at)));
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
        let file = open(&compile(dir.path(), name, SOURCE, flags));
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
    let path = compile(dir.path(), "split", SOURCE, &flags);
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
        Symbolizer::new().names(&open(&path), outer.svma),
        [Name::default()]
    );
}

#[test]
fn symbols_name_what_has_no_debug_information() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&compile(dir.path(), "plain", SOURCE, &["-O2"]));
    let mut symbolizer = Symbolizer::new();
    let outer = &file.functions("outer")[0];
    let expected = Name {
        function: Some("outer".into()),
        ..Name::default()
    };
    let names = symbolizer.names(&file, Svma(outer.svma.0 + outer.size - 1));
    assert_eq!(names, [expected]);
    // Between functions there is padding, which is no function's.
    let beyond = Svma(outer.svma.0 + outer.size);
    if file.bytes_at(beyond, 1).unwrap() != [0xf3] {
        assert_eq!(symbolizer.names(&file, beyond), [Name::default()]);
    }
    for nowhere in [0, 1 << 40, u64::MAX] {
        assert_eq!(symbolizer.names(&file, Svma(nowhere)), [Name::default()]);
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
        let names = Symbolizer::new().names(&file, add);
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
    let (pid, memory) = support::this_process();
    let image = leaktap_image::Image::load(pid, &memory, &mut Default::default()).unwrap();
    let at = leaktap_memory::Addr::new(stock::shelf::<Vec<u8>>());
    let module = image.module_at(at).unwrap();
    let names = Symbolizer::new().names(module.file(), module.svma(at));
    let name = names.last().unwrap();
    let function = name.function.as_deref().unwrap();
    assert!(function.starts_with("names::stock::shelf"), "{function}");
    assert!(name.file.as_deref().unwrap().ends_with("tests/names.rs"));
}

#[test]
fn text_that_a_function_returns_is_read_from_its_file() {
    let source = "const char *plain(void) { return \"leak:a\\nleak:b\\n\"; }\n\
        const char *none(void) { return 0; }\n\
        const char *varying(int n) { return n ? \"a\" : \"b\"; }\n\
        int main(void) { return 0; }\n";
    let dir = tempfile::tempdir().unwrap();
    for flags in [
        &["-O0"][..],
        &["-O2"],
        &["-O2", "-fcf-protection=full"],
        &["-O0", "-fno-pie", "-no-pie"],
    ] {
        let file = open(&compile(dir.path(), "texts", source, flags));
        let text = |name| file.text_returned_by(function(&file, name));
        assert_eq!(
            text("plain").as_deref(),
            Some("leak:a\nleak:b\n"),
            "{flags:?}"
        );
        assert_eq!(text("varying"), None, "{flags:?}");
        let none = text("none");
        assert!(none.is_none() || none.as_deref() == Some(""), "{flags:?}");
    }
}
