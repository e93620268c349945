//! Functions whose debug information does not say in what they are.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests do"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use leaktap_image::ElfFile;
use leaktap_memory::Svma;
use leaktap_symbols::Resolver;

/// All functions in the code of the file, of those whose symbols have `part`.
fn all_names(path: &Path, part: &str) -> BTreeSet<String> {
    let file = Arc::new(ElfFile::open(path).unwrap());
    let mut resolver = Resolver::new();
    let mut all = BTreeSet::new();
    for name in file
        .function_names()
        .iter()
        .filter(|name| name.contains(part))
    {
        let function = &file.functions(name)[0];
        for at in function.svma.0..function.svma.0 + function.size {
            let names = resolver.names(&file, Svma(at));
            all.extend(names.into_iter().filter_map(|name| name.function));
        }
    }
    all
}

fn expect(found: &BTreeSet<String>, expected: &[&str]) {
    for name in expected {
        assert!(found.contains(*name), "{name} of {found:#?}");
    }
}

const LOCAL: &str = "#include <stdlib.h>\nvoid *volatile kept;\n\
    #define KEEP __attribute__((noinline))\n\
    #define INTO inline __attribute__((always_inline))\n\
    struct A { KEEP static void open(int n) { kept = malloc(n); } };\n\
    namespace { struct B { KEEP static void open(int n) { kept = malloc(n + 1); } };\n\
    struct C { INTO static void open(int n) { kept = malloc(n + 2); } }; }\n\
    namespace shop { namespace { INTO void fill(int n) { kept = malloc(n); } }\n\
    void both(int n) { fill(n); C::open(n); } }\n\
    int main(int argc, char **) { A::open(argc); B::open(argc); shop::both(argc);\n\
    auto x = [](int n) KEEP { kept = malloc(n); };\n\
    auto y = [](int n) __attribute__((always_inline)) { kept = malloc(n + 5); };\n\
    auto z = [](int n) __attribute__((always_inline)) { kept = malloc(n + 6); };\n\
    x(2000); y(2000); z(argc); kept = 0; }\n";

#[test]
fn what_a_linker_does_not_see_has_its_full_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, flags) in [
        ("local", &["-g", "-O1"][..]),
        ("types", &["-g", "-O1", "-fdebug-types-section"]),
        ("dwarf4", &["-gdwarf-4", "-O2"]),
        ("lto", &["-g", "-O2", "-flto"]),
    ] {
        let path = leaktap_testing::compile("g++", folder.path(), name, LOCAL, flags);
        let expected = [
            "A::open(int)",
            "(anonymous namespace)::B::open",
            "(anonymous namespace)::C::open",
            "shop::(anonymous namespace)::fill",
            "shop::both(int)",
            "main::{lambda#1}::operator()",
            "main::{lambda#2}::operator()",
            "main::{lambda#3}::operator()",
        ];
        expect(&all_names(&path, ""), &expected);
    }
}

const RUST: &str = "mod stock { pub struct Shelf(pub Vec<u64>); impl Shelf {\n\
    #[inline(never)] pub fn fill(&mut self, n: u64) { self.0.push(n); } }\n\
    #[inline(always)] pub fn into(s: &mut Shelf) { s.0.push(std::process::id() as u64); } }\n\
    fn main() { let mut s = stock::Shelf(vec![]); s.fill(3); stock::into(&mut s);\n\
    let twice = |n: u64| stock::Shelf(vec![n, n]); std::mem::forget((s, twice(4))); }\n";

#[test]
fn rust_names_are_full_whatever_debug_information_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("rusty.rs");
    std::fs::write(&source, RUST).unwrap();
    for level in ["line-tables-only", "1", "2"] {
        let path = folder.path().join(level);
        let debuginfo = format!("-Cdebuginfo={level}");
        let mut rustc = Command::new("rustc");
        rustc.args(["-Copt-level=1", &debuginfo, "-o"]);
        assert!(rustc.args([&path, &source]).status().unwrap().success());
        let found = all_names(&path, "rusty");
        expect(&found, &["rusty::main", "rusty::stock::Shelf::fill"]);
        if level != "line-tables-only" {
            expect(&found, &["rusty::stock::into"]);
        }
    }
}

/// `retry`, `again` and `done` are labels, in a function and behind it.
const LABELS: &str = "__asm__(\".text\\n.globl leak\\n.type leak,@function\\nleak:\\n push %rbx\\n\
    retry:\\n test %edi,%edi\\n je done\\nagain:\\n nop\\n nop\\ndone:\\n pop %rbx\\n ret\\n\
    .size leak,.-leak\\nbare:\\n nop\\n nop\\n ret\\n\");\n\
    int main(void) { return 0; }\n";

#[test]
fn a_label_in_a_function_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = leaktap_testing::compile("gcc", folder.path(), "labels", LABELS, &["-no-pie"]);
    let found = all_names(&path, "");
    expect(&found, &["leak", "main"]);
    let file = Arc::new(ElfFile::open(&path).unwrap());
    let leak = &file.functions("leak")[0];
    let behind = Resolver::new().names(&file, Svma(leak.svma.0 + leak.size));
    assert_eq!(behind[0].function.as_deref(), Some("bare"));
    for label in ["retry", "again", "done"] {
        assert!(!found.contains(label), "{found:?}");
    }
}
