//! Who is bound to what: foretold, and then compared with what the dynamic linker has done.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests do"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use leaktap_image::{Bindings, Bound, Code, Image};
use leaktap_memory::Addr;
use support::{Target, compile};

/// A step: print an address, wait for a line.
const MAIN: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void step(void *p) {
    char c; printf("%p\n", p); fflush(stdout); if (read(0, &c, 1) < 1) exit(0);
}
#define READY char c; puts("ready"); fflush(stdout); if (read(0, &c, 1) < 1) exit(0)
"#;

const LAZY: [&str; 2] = ["-Wl,-z,lazy", "-ldl"];
const SHARED: [&str; 4] = ["-shared", "-fPIC", "-Wl,-z,lazy", "-fno-builtin"];

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn library(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        compile(self.path(), name, source, &[&SHARED[..], flags].concat())
    }

    fn program(&self, main: &str, flags: &[&str]) -> PathBuf {
        let source = format!(
            "{MAIN}\nint main(int argc, char **argv) {{ READY; {main} for (;;) step(0); }}"
        );
        let flags = [&LAZY[..], &["-fno-builtin"], flags].concat();
        compile(self.path(), "program", &source, &flags)
    }
}

fn bound(target: &mut Target, user: &str, name: &'static str) -> Vec<Bound> {
    let image = target.image();
    let mut bindings = Bindings::new(vec![name.to_owned()]);
    bindings.update(&image, &target.memory);
    of(&bindings, &image, user)
}

fn of(bindings: &Bindings, image: &Image, user: &str) -> Vec<Bound> {
    let mut modules = image.modules().iter();
    let user = modules.find(|module| module.path().ends_with(user));
    bindings.of(user.unwrap()).to_vec()
}

/// What `user` gets for `name` before it has called it is what it gets then.
fn is_foretold(target: &mut Target, user: &str, name: &'static str) -> (Addr, PathBuf) {
    let before = bound(target, user, name);
    assert_eq!(before.len(), 1, "{before:?}");
    assert!(!before[0].held, "{before:?}");
    target.step();
    let after = bound(target, user, name);
    assert_eq!(after.len(), 1, "{after:?}");
    assert!(after[0].held, "{after:?}");
    assert_eq!(before[0].code, after[0].code);
    let at = after[0].code.addr().unwrap();
    let image = target.image();
    (at, image.module_at(at).unwrap().path().to_path_buf())
}

const TWO: &str = "void *take_old(unsigned long n) { return (void *)n; }\n\
                   void *take_new(unsigned long n) { return (void *)(n + 1); }\n\
                   __asm__(\".symver take_old,NAME@V1\"); __asm__(\".symver take_new,NAME@@V2\");";

fn versions(folder: &Folder) -> String {
    let map = folder.path().join("versions.map");
    std::fs::write(
        &map,
        "V1 { };\nV2 { global: malloc; take; local: *; } V1;\n",
    )
    .unwrap();
    format!("-Wl,--version-script={}", map.display())
}

/// libc's malloc has a version, which the preloaded one has not.
#[test]
fn a_reference_with_a_version_gets_no_other() {
    let folder = Folder::new();
    let map = versions(&folder);
    let two = folder.library("libtwo.so", &TWO.replace("NAME", "malloc"), &[&map]);
    let program = folder.program("step(malloc(1));", &[]);
    let mut target = Target::start(Command::new(&program).env("LD_PRELOAD", two));
    let (_, path) = is_foretold(&mut target, "program", "malloc");
    assert!(path.ends_with("libc.so.6"), "{}", path.display());
}

/// A definition without a version is for all.
#[test]
fn a_definition_without_versions_is_for_all() {
    let folder = Folder::new();
    let source = "static char b[1 << 20]; static unsigned long u;\n\
        void *malloc(unsigned long n) { void *p = b + u; u += (n + 15) & ~15ul; return p; }\n\
        void free(void *p) { }";
    let plain = folder.library("libplain.so", source, &[]);
    let program = folder.program("step(malloc(1));", &[]);
    let mut target = Target::start(Command::new(&program).env("LD_PRELOAD", &plain));
    assert_eq!(is_foretold(&mut target, "program", "malloc").1, plain);
    // But calloc is libc's.
    let realloc = bound(&mut target, "libc.so.6", "realloc");
    let image = target.image();
    let at = realloc[0].code.addr().unwrap();
    assert!(image.module_at(at).unwrap().path().ends_with("libc.so.6"));
}

/// Linked when the library had no versions, run when it has: the oldest one, though hidden.
#[test]
fn a_reference_without_version_gets_the_oldest() {
    let folder = Folder::new();
    let map = versions(&folder);
    let stub = folder.library(
        "libtake.so",
        "void *take(unsigned long n) { return 0; }",
        &[],
    );
    let flags = [
        stub.to_str().unwrap(),
        "-Wl,-rpath,$ORIGIN",
        "-Wno-implicit-function-declaration",
    ];
    let program = folder.program("void *take(unsigned long); step(take(1));", &flags);
    let two = folder.library("libtake.so", &TWO.replace("NAME", "take"), &[&map]);
    let mut target = Target::start(&mut Command::new(&program));
    let (at, path) = is_foretold(&mut target, "program", "take");
    assert_eq!(path, two);
    let image = target.image();
    let module = image.module_at(at).unwrap();
    let old = module
        .file()
        .functions("take")
        .into_iter()
        .find(|take| !take.default);
    assert_eq!(old.map(|old| module.addr(old.svma)), Some(at));
}

const POOL: &str = "static char b[1 << 20]; static unsigned long u;\n\
    void *malloc(unsigned long n) { void *p = b + u; u += (n + 15) & ~15ul; return p; }\n\
    void free(void *p) { }\n\
    void *pool_get(unsigned long n) { return malloc(n); }";
const PLUGIN: &str = "void *malloc(unsigned long); void *pool_get(unsigned long);\n\
    void free(void *);\n\
    void *run(void) { return malloc(5); } void *get(void) { return pool_get(5); }\n\
    void done(void *p) { free(p); }";

/// What dlopen(3) opens is searched for itself after what all have in common.
#[test]
fn a_library_opened_locally() {
    let folder = Folder::new();
    let pool = folder.library("libpool.so", POOL, &[]);
    let flags = [pool.to_str().unwrap(), "-Wl,-rpath,$ORIGIN"];
    let plugin = folder.library("libplugin.so", PLUGIN, &flags);
    let main = r#"void *lib = dlopen(argv[1], RTLD_LAZY); 
        void *(*run)(void) = dlsym(lib, "run"), *(*get)(void) = dlsym(lib, "get");
        step(0); step(run()); step(get());"#;
    let program = folder.program(main, &[]);
    let mut target = Target::start(Command::new(&program).arg(&plugin));
    target.step();
    // Which of the two is not known before, and then it is.
    assert_eq!(bound(&mut target, "libplugin.so", "malloc").len(), 2);
    target.step();
    let malloc = bound(&mut target, "libplugin.so", "malloc");
    assert!(malloc.len() == 1 && malloc[0].held, "{malloc:?}");
    let image = target.image();
    let module = image.module_at(malloc[0].code.addr().unwrap()).unwrap();
    assert!(module.path().ends_with("libc.so.6"));
    // One slot tells of the others.
    let mut bindings = Bindings::new(["malloc", "free"].map(String::from).to_vec());
    bindings.update(&image, &target.memory);
    let free = of(&bindings, &image, "libplugin.so");
    let free: Vec<_> = free.iter().filter(|bound| bound.name == 1).collect();
    let module = image.module_at(free[0].code.addr().unwrap()).unwrap();
    assert!(
        free.len() == 1 && module.path().ends_with("libc.so.6"),
        "{free:?}"
    );
    assert_eq!(is_foretold(&mut target, "libplugin.so", "pool_get").1, pool);
}

/// RTLD_DEEPBIND: the other way round, which only the slots say.
#[test]
fn a_library_opened_for_itself() {
    let folder = Folder::new();
    let pool = folder.library("libpool.so", POOL, &[]);
    let flags = [pool.to_str().unwrap(), "-Wl,-rpath,$ORIGIN"];
    let plugin = folder.library("libplugin.so", PLUGIN, &flags);
    let main = r#"void *lib = dlopen(argv[1], RTLD_LAZY | RTLD_DEEPBIND);
        void *(*run)(void) = dlsym(lib, "run");
        step(0); step(run());"#;
    let program = folder.program(main, &[]);
    let mut target = Target::start(Command::new(&program).arg(&plugin));
    target.step();
    let image = target.image();
    let mut bindings = Bindings::new(["malloc", "free"].map(String::from).to_vec());
    bindings.update(&image, &target.memory);
    assert_eq!(of(&bindings, &image, "libplugin.so").len(), 4);
    target.step();
    // What was not known is looked at again.
    bindings.update(&image, &target.memory);
    let found = of(&bindings, &image, "libplugin.so");
    assert_eq!(found.len(), 2, "{found:?}");
    for bound in found {
        let module = image.module_at(bound.code.addr().unwrap()).unwrap();
        assert_eq!(module.path(), pool);
    }
}

/// A namespace of its own has a libc of its own.
#[test]
fn a_namespace_has_an_order_of_its_own() {
    let folder = Folder::new();
    let source = "void *malloc(unsigned long); void *run(void) { return malloc(5); }";
    let plugin = folder.library("libalone.so", source, &["-lc"]);
    let main = r#"void *lib = dlmopen(LM_ID_NEWLM, argv[1], RTLD_LAZY);
        void *(*run)(void) = dlsym(lib, "run");
        step(dlsym(lib, "malloc")); step(run());"#;
    let program = folder.program(main, &[]);
    let mut target = Target::start(Command::new(&program).arg(&plugin));
    let malloc = target.address();
    assert_eq!(is_foretold(&mut target, "libalone.so", "malloc").0, malloc);
    let image = target.image();
    assert_eq!(image.namespaces().len(), 2);
    let is_linker = |index: &usize| {
        let path = image.modules()[*index].path();
        path.to_string_lossy().contains("ld-linux")
    };
    // The linker itself is in both.
    assert_eq!(
        image
            .namespaces()
            .iter()
            .filter(|list| list.iter().any(is_linker))
            .count(),
        2
    );
}

/// Words in data; and a program at a fixed address, whose PLT entry is the function for all.
#[test]
fn pointers_in_data() {
    let folder = Folder::new();
    let source = "void *malloc(unsigned long); void *(*volatile pointer)(unsigned long) = malloc;";
    let library = folder.library("libpointer.so", source, &["-Wl,-z,now"]);
    let flags = [
        "-Wl,--no-as-needed",
        library.to_str().unwrap(),
        "-Wl,-rpath,$ORIGIN",
    ];
    for (is_fixed, pie) in [(false, ["-fpie", "-pie"]), (true, ["-fno-pie", "-no-pie"])] {
        let main = "void *(*volatile own)(unsigned long) = malloc; step(own(1)); step(malloc(1));";
        let program = folder.program(main, &[&flags[..], &pie].concat());
        let mut target = Target::start(&mut Command::new(&program));
        target.step();
        let found = bound(&mut target, "libpointer.so", "malloc");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].held, !is_fixed);
        let image = target.image();
        let malloc = image.resolve("malloc", &target.memory).unwrap().code;
        assert_eq!(found[0].code, malloc);
        assert!(
            bound(&mut target, "program", "malloc")
                .iter()
                .all(|bound| bound.code == malloc)
        );
    }
}

/// What a hook has put into a slot is what is called.
#[test]
fn a_slot_that_somebody_has_changed() {
    let folder = Folder::new();
    let hook = folder.library(
        "libhook.so",
        "void *hooked(unsigned long n) { return 0; }",
        &[],
    );
    let source = "void *malloc(unsigned long);\n\
        static void *(*volatile pointer)(unsigned long) = malloc;\n\
        void set(void *hook) { pointer = hook; } void *get(void) { return pointer(1); }";
    let library = folder.library("libpointer.so", source, &[]);
    let flags = [
        library.to_str().unwrap(),
        hook.to_str().unwrap(),
        "-Wl,-rpath,$ORIGIN",
    ];
    let main = "extern void *hooked(unsigned long), set(void *); set((void *)hooked);\n\
        step((void *)hooked);";
    let program = folder.program(main, &flags);
    let mut target = Target::start(&mut Command::new(&program));
    let hooked = target.address();
    let found = bound(&mut target, "libpointer.so", "malloc");
    assert!(
        found.len() == 1 && found[0].code == Code::At(hooked),
        "{found:?}"
    );
}
