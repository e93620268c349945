//! Every kind of debug information that compilers and distributions make.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests do"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use leaktap_image::ElfFile;
use leaktap_memory::Svma;
use leaktap_symbols::{Name, Resolver};

/// `Cart::grab` is inlined into `fill`; the call is on line 4.
const SOURCE: &str = "#include <stdlib.h>\nvoid *volatile kept;\nnamespace shop { struct Cart {\n\
    __attribute__((always_inline)) inline void grab(int n) { kept = malloc(n); } }; }\n\
    __attribute__((noinline)) void fill(int n) { shop::Cart c; c.grab(n); kept = 0; }\n\
    int main(int argc, char **argv) { (void)argv; fill(argc); return 0; }\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn compile(&self, name: &str, flags: &[&str]) -> PathBuf {
        let flags: Vec<_> = ["-O2"].iter().chain(flags).copied().collect();
        leaktap_testing::compile("g++", self.path(), name, SOURCE, &flags)
    }

    fn run(&self, program: &str, args: &[&str]) {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.path());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{command:?}: {done:?}");
    }
}

/// Where `fill` is, and how long.
fn fill(path: &Path) -> (Svma, u64) {
    let fill = ElfFile::open(path).unwrap().functions("_Z4filli")[0].clone();
    (fill.svma, fill.size)
}

fn names(path: &Path, (start, size): (Svma, u64)) -> Vec<Vec<Name>> {
    let file = Arc::new(ElfFile::open(path).unwrap());
    let mut resolver = Resolver::new();
    let all = (0..size).map(|at| resolver.names(&file, Svma(start.0 + at)));
    all.collect()
}

/// The inlined function, with its line, and what it is in.
fn expect_all(path: &Path, at: (Svma, u64)) {
    let all = names(path, at);
    let two = all.iter().find(|names| names.len() == 2);
    let two = two.unwrap_or_else(|| panic!("{}: {:?}", path.display(), all[0]));
    let functions: Vec<_> = two.iter().map(|name| name.function.as_deref()).collect();
    assert_eq!(
        functions,
        [Some("shop::Cart::grab(int)"), Some("fill(int)")]
    );
    assert_eq!((two[0].line, two[0].inlined), (Some(4), true));
    assert!(two[1].file.as_deref().unwrap().ends_with(".cpp"));
}

#[test]
fn each_version_and_compression_is_read() {
    let folder = Folder::new();
    for (name, flags) in [
        ("dwarf2", &["-gdwarf-2"][..]),
        ("dwarf3", &["-gdwarf-3"]),
        ("dwarf4", &["-gdwarf-4"]),
        ("dwarf5", &["-gdwarf-5"]),
        ("types4", &["-gdwarf-4", "-fdebug-types-section"]),
        ("types5", &["-gdwarf-5", "-fdebug-types-section"]),
        ("wide", &["-gdwarf-5", "-gdwarf64"]),
        ("lto", &["-g", "-flto"]),
    ] {
        let path = folder.compile(name, flags);
        expect_all(&path, fill(&path));
    }
    let at = fill(&folder.compile("plain", &["-g"]));
    for kind in ["zlib", "zlib-gnu", "zstd"] {
        let option = format!("--compress-debug-sections={kind}");
        folder.run("objcopy", &[&option, "plain", kind]);
        expect_all(&folder.path().join(kind), at);
    }
}

#[test]
fn split_units_are_found() {
    let folder = Folder::new();
    for (name, flags) in [
        ("split4", &["-gsplit-dwarf", "-gdwarf-4"][..]),
        ("split5", &["-gsplit-dwarf", "-gdwarf-5"]),
        (
            "splittypes",
            &["-gsplit-dwarf", "-gdwarf-5", "-fdebug-types-section"],
        ),
    ] {
        let path = folder.compile(name, flags);
        let at = fill(&path);
        expect_all(&path, at);
        // All in one package, and the single ones gone. Of DWARF 5, dwp(1) of binutils 2.40 dies.
        if name == "split4" {
            folder.run("dwp", &["-e", name]);
            let dwo = |path: &Path| path.extension().is_some_and(|end| end == "dwo");
            let all = std::fs::read_dir(folder.path()).unwrap().flatten();
            let all: Vec<_> = all
                .map(|entry| entry.path())
                .filter(|path| dwo(path))
                .collect();
            assert!(!all.is_empty());
            all.iter()
                .for_each(|path| std::fs::remove_file(path).unwrap());
            expect_all(&path, at);
            // A program alone has what its symbols say.
            std::fs::remove_file(folder.path().join(format!("{name}.dwp"))).unwrap();
            let alone = names(&path, at).swap_remove(0);
            assert_eq!(alone[0].function.as_deref(), Some("fill(int)"));
        }
    }
}

#[test]
fn what_files_share_is_found() {
    if Command::new("dwz").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "no dwz");
        return;
    }
    let folder = Folder::new();
    let ats = ["one", "two"].map(|name| fill(&folder.compile(name, &["-g"])));
    folder.run("dwz", &["-m", "shared.debug", "one", "two"]);
    for (name, at) in ["one", "two"].into_iter().zip(ats) {
        let path = folder.path().join(name);
        assert!(
            ElfFile::open(&path)
                .unwrap()
                .has_section(".gnu_debugaltlink")
        );
        expect_all(&path, at);
    }
}

/// As Fedora packs them: symbols, compressed in the program itself.
#[test]
fn a_stripped_program_may_have_symbols_in_itself() {
    let folder = Folder::new();
    let path = folder.compile("mini", &[]);
    let at = fill(&path);
    folder.run(
        "objcopy",
        &["-S", "--keep-symbol=_Z4filli", "mini", "symbols"],
    );
    folder.run("xz", &["symbols"]);
    folder.run("strip", &["mini"]);
    let section = "--add-section=.gnu_debugdata=symbols.xz";
    folder.run("objcopy", &[section, "mini"]);
    assert!(
        ElfFile::open(&path)
            .unwrap()
            .functions("_Z4filli")
            .is_empty()
    );
    let names = names(&path, at).swap_remove(0);
    assert_eq!(names[0].function.as_deref(), Some("fill(int)"));
}
