//! What is found of modules that come and go is what a first look at all of them finds.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests do"
)]

use std::path::Path;
use std::process::Command;

use leaktap_image::{FileCache, Glance, Image, Mapping, mappings};
use leaktap_memory::{Addr, ReadMemory, Unreadable};
use leaktap_probe::{Families, Member};
use leaktap_testing::{Watched, compile};
use leaktap_tracee::{Memory, Tid};

/// Each line is an order: `+` loads a library, `-` unloads it.
const MAIN: &str = "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <stdio.h>\n\
    #include <stdlib.h>\n#include <string.h>\n\
    static struct { char name[64]; void *it; } all[99];\n\
    int main(void) { char line[64], path[99]; free(malloc(1)); puts(\"ready\"); fflush(stdout);\n\
        while (scanf(\"%63s\", line) == 1) {\n\
            sprintf(path, \"./%s\", line + 1); int i = 0;\n\
            while (all[i].it && strcmp(all[i].name, line + 1)) i++;\n\
            if (*line == '+') { strcpy(all[i].name, line + 1);\n\
                if (!(all[i].it = dlopen(path, RTLD_NOW))) return puts(dlerror()); }\n\
            else { dlclose(all[i].it); strcpy(all[i].name, \"?\"); }\n\
            puts(\"done\"); fflush(stdout); } return 0; }";

/// Libraries that the program may load: name, source, flags.
const LIBRARIES: [(&str, &str, &[&str]); 7] = [
    (
        "a.so",
        "void *malloc(long), free(void *); void *a(void) { free(malloc(1)); return 0; }",
        &[],
    ),
    (
        "b.so",
        "void *malloc(long), free(void *); void *b(void) { free(malloc(1)); return 0; }",
        &[],
    ),
    ("silent.so", "int c(void) { return 1; }", &[]),
    (
        "other.so",
        "void *aligned_alloc(long, long); void *d(void) { return aligned_alloc(8, 8); }",
        &[],
    ),
    (
        "own.so",
        "static char heap[4096]; static long used;\n\
        #define HIDDEN __attribute__((visibility(\"hidden\")))\n\
        HIDDEN void *malloc(long n) { return heap + (used += n); }\n\
        HIDDEN void free(void *p) { __asm__ volatile(\"\"); }\n\
        void *e(void) { void *p = malloc(8); free(p); return p; }",
        &[],
    ),
    (
        "itself.so",
        "static char heap[4096]; static long used;\n\
        void *malloc(long n) { return heap + (used += n); }\n\
        void free(void *p) { __asm__ volatile(\"\"); }\n\
        void *f(void) { void *p = malloc(8); free(p); return p; }",
        &["-Wl,-Bsymbolic"],
    ),
    (
        "needs.so",
        "int c(void); void *free(void *); int g(void) { free(0); return c(); }",
        &["silent.so"],
    ),
];

/// The kernel's answers without `PROCMAP_QUERY`.
struct Slow(Memory);

impl ReadMemory for Slow {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        self.0.read(at, buf)
    }
}

impl Glance for Slow {
    fn mapping_from(&self, at: Addr) -> Option<Option<Mapping>> {
        let all = mappings(self.0.process().get()).ok()?;
        Some(all.into_iter().find(|mapping| at < mapping.end))
    }

    fn read_each(&self, places: &[Addr], len: usize) -> Vec<u8> {
        self.0.read_each(places, len)
    }
}

fn started(folder: &Path) -> Watched {
    for (name, source, flags) in LIBRARIES {
        let more = flags.iter().map(|flag| match flag.ends_with(".so") {
            true => folder.join(flag).display().to_string(),
            false => (*flag).to_owned(),
        });
        let more: Vec<String> = more.collect();
        let fixed = [
            "-g",
            "-O1",
            "-fno-builtin",
            "-w",
            "-shared",
            "-fPIC",
            "-Wl,-rpath,$ORIGIN",
        ];
        let flags: Vec<&str> = fixed.into_iter().chain(more.iter().map(|m| &**m)).collect();
        let soname = format!("-Wl,-soname,{name}");
        let flags = [&flags[..], &[&soname]].concat();
        compile("gcc", folder, name, source, &flags);
    }
    let flags = ["-g", "-fno-builtin", "-w", "-Wl,-rpath,$ORIGIN", "-ldl"];
    let program = compile("gcc", folder, "program", MAIN, &flags);
    let mut process = Watched::spawn(Command::new(program).current_dir(folder));
    assert_eq!(process.next_line(), "ready");
    process
}

/// Families as people see them.
fn shown(families: &Families, image: &Image) -> Vec<String> {
    let path = |module: usize| image.modules()[module].path().display().to_string();
    let member = |member: &Member| {
        let name = families.functions().name(member.function);
        format!("{name} in {} at {:?}", path(member.module), member.code)
    };
    let all = families.all().iter();
    all.map(|family| {
        let functions: Vec<_> = family.functions.iter().map(member).collect();
        let (module, user) = (path(family.module), &family.user);
        format!("{} in {module} {user:?} {functions:?}", family.name)
    })
    .collect()
}

/// All modules, in order, and what each namespace has.
fn modules(image: &Image) -> (Vec<(String, u64)>, Vec<Vec<usize>>) {
    let module =
        |module: &leaktap_image::Module| (module.path().display().to_string(), module.bias());
    (
        image.modules().iter().map(module).collect(),
        image.namespaces().to_vec(),
    )
}

#[test]
fn families_that_are_followed_are_those_that_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = started(folder.path());
    let pid = process.pid().as_raw();
    let memory = Slow(Memory::open(Tid::new(pid)).unwrap());
    let mut files = FileCache::new();
    let mut image = Image::load(pid, &memory, &mut files).unwrap();
    let mut families = Families::new(Vec::new());
    families.update(&image, &memory);
    let mut same = Vec::new();
    let orders = "+a.so +b.so -a.so +a.so -b.so +silent.so +needs.so -silent.so -needs.so +own.so \
        +b.so -own.so +itself.so +other.so -b.so -itself.so +own.so -other.so +other.so -own.so \
        -a.so";
    for order in orders.split_ascii_whitespace() {
        process.send(format!("{order}\n").as_bytes());
        assert_eq!(process.next_line(), "done");
        if let Some(changes) = image.follow(&memory, &mut files) {
            assert!(changes.moves.is_some(), "{order}");
            same.extend(families.follow(&image, &changes, &memory).then_some(order));
        } else {
            assert_eq!(order, "-silent.so"); // needs.so has it still
        }
        let now = Image::load(pid, &memory, &mut files).unwrap();
        assert_eq!(modules(&image), modules(&now), "{order}");
        let mut found = Families::new(Vec::new());
        found.update(&now, &memory);
        let known = shown(&families, &image);
        assert_eq!(known, shown(&found, &now), "{order}");
    }
    let expected = "+a.so +b.so -a.so +a.so -b.so +silent.so +needs.so -needs.so +b.so -b.so -a.so";
    assert_eq!(same.join(" "), expected);
}
