//! Which allocators are found in compiled programs.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests do"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use leaktap_api::Functions;
use leaktap_image::{FileCache, Image};
use leaktap_probe::{Families, Family, User};
use leaktap_testing::{Watched, compile};
use leaktap_tracee::{Memory, Tid};

/// A heap that is no other's: `FN` is `malloc`, or what it is called.
const HEAP: &str = "#include <stddef.h>\n\
    static char heap[1 << 20]; static size_t used;\n\
    KIND void *GET(size_t n) { void *p = heap + used; used += (n + 15) & ~15ul; return p; }\n\
    KIND void PUT(void *p) { __asm__ volatile(\"\"); }\n\
    void *take(size_t n) { return GET(n); } void drop(void *p) { PUT(p); }";

const WRAPPER: &str = "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <stddef.h>\n\
    static void *(*get)(size_t); static void (*put)(void *);\n\
    __attribute__((constructor)) static void init(void) {\n\
        get = dlsym(RTLD_NEXT, \"malloc\"); put = dlsym(RTLD_NEXT, \"free\"); }\n\
    void *malloc(size_t n) { if (!get) init(); return get(n); }\n\
    void free(void *p) { if (!put) init(); put(p); }";

const MAIN: &str = "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <stdio.h>\n\
    #include <stdlib.h>\n#include <unistd.h>\n\
    void *volatile keep;\n\
    int main(int argc, char **argv) { char c; WORK; write(1, \"ready\\n\", 6); read(0, &c, 1); }";

struct Running {
    process: Watched,
    folder: tempfile::TempDir,
}

fn compiled(compiler: &str, folder: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let flags = [&["-g", "-O1", "-fno-builtin", "-w"], flags].concat();
    compile(compiler, folder, name, source, &flags)
}

/// Libraries by name, source and flags; the program is linked with those that begin with `lib`.
fn started(work: &str, libraries: &[(&str, &str, &[&str])], preload: Option<&str>) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = vec![
        "-Wl,-rpath,$ORIGIN".to_owned(),
        "-Wl,--no-as-needed".to_owned(),
    ];
    for (name, source, more) in libraries {
        let more: Vec<_> = ["-shared", "-fPIC"]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        let path = compiled("gcc", folder.path(), name, source, &more);
        if name.starts_with("lib") && Some(*name) != preload {
            flags.push(path.display().to_string());
        }
    }
    flags.push("-ldl".to_owned());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let source = MAIN.replace("WORK", work);
    let program = compiled("gcc", folder.path(), "program", &source, &flags);
    let mut command = Command::new(program);
    if let Some(preload) = preload {
        command.env("LD_PRELOAD", folder.path().join(preload));
    }
    run(command.current_dir(folder.path()), folder)
}

fn run(command: &mut Command, folder: tempfile::TempDir) -> Running {
    let process = Watched::spawn(command);
    process.stdout_line("ready");
    Running { process, folder }
}

impl Running {
    fn families(&self) -> (Image, Vec<Family>) {
        let pid = self.process.pid().as_raw();
        let memory = Memory::open(Tid::new(pid)).unwrap();
        let image = Image::load(pid, &memory, &mut FileCache::new()).unwrap();
        let mut families = Families::new(Vec::new());
        families.update(&image, &memory);
        // A second look at what has not changed finds as much.
        let found = families.all().to_vec();
        families.update(&image, &memory);
        assert_eq!(families.all(), found);
        (image, found)
    }

    /// Their names, and the functions of each: `free@libc.so.6`.
    fn named(&self) -> Vec<(String, Vec<String>)> {
        let (image, families) = self.families();
        let member = |member: &leaktap_probe::Member| {
            let known = Functions::default();
            let name = known.name(member.function);
            let module = image.modules()[member.module].path().file_name().unwrap();
            format!("{name}@{}", module.to_string_lossy())
        };
        let functions = |family: &Family| family.functions.iter().map(member).collect();
        families
            .iter()
            .map(|family| (family.name.clone(), functions(family)))
            .collect()
    }

    fn names(&self) -> Vec<String> {
        self.named().into_iter().map(|(name, _)| name).collect()
    }
}

#[test]
fn a_program_has_the_allocator_of_its_c_library() {
    let program = started("free(malloc(1))", &[], None);
    let (_, families) = program.families();
    assert_eq!(families.len(), 1, "{families:?}");
    assert_eq!(families[0].name, "libc");
    let path = program.folder.path().join("program");
    assert_eq!(families[0].user, User::Bound(path));
    let functions = &program.named()[0].1;
    for name in ["malloc", "free", "calloc", "realloc", "memalign", "cfree"] {
        assert!(
            functions.contains(&format!("{name}@libc.so.6")),
            "{functions:?}"
        );
    }
}

/// Its callers get calloc from libc; but not cfree, which is the free that the wrapper hides.
#[test]
fn a_wrapper_of_some_functions() {
    let program = started(
        "free(calloc(1, 1))",
        &[("libwrapper.so", WRAPPER, &[])],
        Some("libwrapper.so"),
    );
    let found = program.named();
    assert_eq!(found.len(), 1, "{found:?}");
    let (name, functions) = &found[0];
    assert_eq!(name, "libwrapper.so");
    for function in [
        "malloc@libwrapper.so",
        "free@libwrapper.so",
        "calloc@libc.so.6",
        "memalign@libc.so.6",
    ] {
        assert!(
            functions.iter().any(|f| f == function),
            "{function}: {functions:?}"
        );
    }
    assert!(
        !functions.iter().any(|f| f.starts_with("cfree")),
        "{functions:?}"
    );
}

#[test]
fn a_namespace_with_a_libc_of_its_own() {
    let plugin = "#include <stdlib.h>\nvoid *take(unsigned long n) { return malloc(n); }";
    let work = "dlmopen(LM_ID_NEWLM, \"./plugin.so\", RTLD_NOW)";
    let program = started(work, &[("plugin.so", plugin, &["-lc"])], None);
    assert_eq!(program.names(), ["libc", "libc (namespace 2)"]);
    let (_, families) = program.families();
    assert_ne!(families[0].module, families[1].module);
    assert!(
        families[1]
            .functions
            .iter()
            .all(|member| member.module == families[1].module)
    );
}

fn heap(get: &str, put: &str, kind: &str) -> String {
    HEAP.replace("GET", get)
        .replace("PUT", put)
        .replace("KIND", kind)
}

#[test]
fn a_plugin_that_is_bound_to_itself_first() {
    let work = "void *plugin = dlopen(\"./plugin.so\", RTLD_LAZY | RTLD_DEEPBIND); \
        void *(*take)(long) = dlsym(plugin, \"take\"); take(5)";
    let source = heap("malloc", "free", "");
    let program = started(work, &[("plugin.so", &source, &[])], None);
    let found = program.named();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[1].0, "plugin.so");
    assert_eq!(found[1].1, ["malloc@plugin.so", "free@plugin.so"]);
    // Without it, all share one.
    let program = started(
        &work.replace("| RTLD_DEEPBIND", ""),
        &[("plugin.so", &source, &[])],
        None,
    );
    assert_eq!(program.names(), ["libc"]);
}

#[test]
fn an_allocator_that_a_library_keeps_for_itself() {
    for (kind, flags) in [
        ("static __attribute__((noinline))", &[][..]),
        ("__attribute__((visibility(\"hidden\"), noinline))", &[]),
        ("__attribute__((noinline))", &["-Wl,-Bsymbolic"]),
    ] {
        let source = heap("malloc", "free", kind);
        let program = started("take(5)", &[("libpool.so", &source, flags)], None);
        let (_, families) = program.families();
        // Exported, it comes before libc for all.
        assert_eq!(program.names().last().unwrap(), "libpool.so", "{kind}");
        assert!(
            families.len() == 2 || families[0].name == "libpool.so",
            "{families:?}"
        );
    }
}

/// A copy of a known allocator, under names with its prefix.
#[test]
fn an_allocator_that_is_linked_in_under_names_of_its_own() {
    let kind = "static __attribute__((noinline))";
    for (prefix, name) in [
        ("_rjem_", "jemalloc"),
        ("je_", "jemalloc"),
        ("mi_", "mimalloc"),
        ("tc_", "tcmalloc"),
    ] {
        let (get, put) = (format!("{prefix}malloc"), format!("{prefix}free"));
        let program = started(
            "take(5)",
            &[("libpool.so", &heap(&get, &put, kind), &[])],
            None,
        );
        let found = program.named();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[1].0, name);
        assert_eq!(
            found[1].1,
            [get, put].map(|name| format!("{name}@libpool.so"))
        );
    }
    // What is left of mimalloc in a Rust program.
    let source = heap("mi_malloc_aligned", "mi_free", kind);
    let found = started("take(5)", &[("libpool.so", &source, &[])], None).named();
    assert_eq!(found[1].0, "mimalloc", "{found:?}");
    assert_eq!(found[1].1.len(), 2, "{found:?}");
    // Two names of one function.
    let source = heap("malloc", "free", "")
        + "\nvoid *mi_malloc(size_t) __attribute__((alias(\"malloc\")));";
    let program = started("take(5)", &[("libpool.so", &source, &[])], None);
    let found = program.named();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].1.contains(&"mi_malloc@libpool.so".to_owned()),
        "{found:?}"
    );
}

/// It only has the name.
#[test]
fn a_function_that_hands_on_to_malloc_is_no_allocator() {
    let source = "#include <stdlib.h>\n\
        static __attribute__((noinline)) void *helper(size_t n) { return realloc(0, n); }\n\
        __attribute__((visibility(\"hidden\"), noinline))\n\
        void *malloc(size_t n) { return helper(n); }\n\
        void *take(size_t n) { return malloc(n); }";
    let program = started("take(5)", &[("libhands.so", source, &[])], None);
    assert_eq!(program.names(), ["libc"]);
    let source = "#include <stdlib.h>\nvoid *je_malloc(size_t n) { return malloc(n); }\n\
        void *take(size_t n) { return je_malloc(n); }";
    let program = started("take(5)", &[("libhands.so", source, &[])], None);
    assert_eq!(program.names(), ["libc"]);
}

const OWN_NEW: &str = "#include <new>\n#include <cstdlib>\n#include <string>\n#include <unistd.h>\n\
    static char heap[1 << 20]; static size_t used; void *volatile keep;\n\
    void *operator new(size_t n) { NEW }\n\
    void operator delete(void *p) noexcept { DELETE }\n\
    void operator delete(void *p, size_t) noexcept { DELETE }\n\
    int main() { char c; keep = new int; keep = malloc(1); std::string s(100, 'x');\n\
        write(1, \"ready\\n\", 6); return read(0, &c, 1) + s.size() == 0; }";

fn own_new(new: &str, delete: &str) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let source = OWN_NEW.replace("NEW", new).replace("DELETE", delete);
    let program = compiled("g++", folder.path(), "program", &source, &[]);
    run(&mut Command::new(program), folder)
}

#[test]
fn operators_that_do_not_use_malloc() {
    let program = own_new(
        "void *p = heap + used; used += (n + 15) & ~15ul; return p;",
        "",
    );
    let found = program.named();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((&*found[0].0, &*found[1].0), ("libc", "program"));
    assert_eq!(
        found[1].1,
        ["_Znwm@program", "_ZdlPv@program", "_ZdlPvm@program"]
    );
}

#[test]
fn operators_that_do() {
    let program = own_new(
        "if (void *p = malloc(n)) return p; throw std::bad_alloc();",
        "free(p);",
    );
    assert_eq!(program.names(), ["libc"]);
}

#[test]
fn a_static_program_may_have_realloc_alone() {
    let folder = tempfile::tempdir().unwrap();
    let source = MAIN.replace("WORK", "keep = realloc(keep, 100); free(keep)");
    if Command::new("musl-gcc").arg("--version").output().is_err() {
        return;
    }
    let program = compiled("musl-gcc", folder.path(), "program", &source, &["-static"]);
    let program = run(&mut Command::new(program), folder);
    let found = program.named();
    assert_eq!(found.len(), 1, "{found:?}");
    for name in ["realloc@program", "free@program"] {
        assert!(
            found[0].1.iter().any(|function| function == name),
            "{found:?}"
        );
    }
}
