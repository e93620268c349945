//! Compiled programs are looked at while they run.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests do"
)]

mod support;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use leaktap_image::{Code, Error, Image};
use support::{Memory, Target, compile};

/// A step: wait for a line, do it, print.
const STEPS: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void await(void) { char c; fflush(stdout); if (read(0, &c, 1) < 1) exit(0); }
static void step(void *p) { printf("%p\n", p); await(); }
static void ready(void) { puts("ready"); await(); }
"#;

fn program(main: &str) -> String {
    format!("{STEPS}\nint main(int argc, char **argv) {{ ready(); {main} for (;;) step(0); }}")
}

const LIBRARY: &str = "#include <stdlib.h>\nvoid *grab(unsigned n) { return malloc(n); }\n\
                       void *malloc_of_ours(void) { return 0; }";

#[test]
fn dlopen_and_dlclose_change_the_modules() {
    let dir = tempfile::tempdir().unwrap();
    let library = compile(dir.path(), "libgrab.so", LIBRARY, &["-shared", "-fPIC"]);
    let main = r#"for (;;) {
        void *lib = dlopen(argv[1], RTLD_NOW); step(dlsym(lib, "grab"));
        dlclose(lib); step(0); }"#;
    let exe = compile(dir.path(), "dl", &program(main), &["-ldl"]);
    let mut target = Target::start(Command::new(exe).arg(&library));
    let mut image = target.image();
    assert!(image.resolve("grab", &target.memory).is_none());

    let grab = target.address();
    let changes = target.refresh(&mut image);
    assert_eq!(changes.added.len(), 1);
    assert!(changes.removed.is_empty());
    assert_eq!(changes.added[0].path(), library);
    let resolved = image.resolve("grab", &target.memory).unwrap();
    assert_eq!(resolved.code, Code::At(grab));
    assert_eq!(image.module_at(grab).unwrap().path(), library);

    target.step();
    let changes = target.refresh(&mut image);
    assert!(changes.added.is_empty());
    assert_eq!(changes.removed[0].path(), library);
    assert!(image.module_at(grab).is_none());
}

#[test]
fn a_namespace_of_its_own_is_listed_too() {
    let dir = tempfile::tempdir().unwrap();
    let library = compile(dir.path(), "libgrab.so", LIBRARY, &["-shared", "-fPIC"]);
    let main = r#"void *lib = dlmopen(LM_ID_NEWLM, argv[1], RTLD_NOW); step(dlsym(lib, "grab"));"#;
    let exe = compile(dir.path(), "dlm", &program(main), &["-ldl"]);
    let mut target = Target::start(Command::new(exe).arg(&library));
    let before = target.image();
    let grab = target.address();
    let image = target.image();
    let resolved = image.resolve("grab", &target.memory).unwrap();
    assert_eq!(resolved.code, Code::At(grab));
    // The new namespace has a libc of its own; the first one's malloc is still the process's.
    let libcs = image
        .modules()
        .iter()
        .filter(|module| module.path().ends_with("libc.so.6"));
    assert_eq!(libcs.count(), 2);
    let malloc = |image: &Image| image.resolve("malloc", &target.memory).unwrap().code;
    assert_eq!(malloc(&image), malloc(&before));
}

#[test]
fn the_first_definition_wins() {
    let dir = tempfile::tempdir().unwrap();
    let ours = "#include <stddef.h>\nstatic char heap[1 << 20]; static size_t used;\n\
                void *malloc(size_t n) {\n\
                    void *p = heap + used; used += (n + 15) & ~15ul; return p; }\n\
                void free(void *p) { (void)p; }";
    let preload = compile(dir.path(), "libours.so", ours, &["-shared", "-fPIC"]);
    let exe = compile(dir.path(), "user", &program("step((void *)malloc);"), &[]);
    let mut target = Target::start(Command::new(&exe).env("LD_PRELOAD", &preload));
    let malloc = target.address();
    let image = target.image();
    let resolved = image.resolve("malloc", &target.memory).unwrap();
    assert_eq!(resolved.code, Code::At(malloc));
    assert_eq!(image.modules()[resolved.module].path(), preload);
    assert_eq!(image.program().unwrap().path(), exe);
    // calloc is libc's still, and its malloc is there to be found.
    let calloc = image.resolve("calloc", &target.memory).unwrap();
    let libc = &image.modules()[calloc.module];
    assert!(libc.path().ends_with("libc.so.6"));
    assert_eq!(
        image
            .resolve_in(calloc.module, "malloc", &target.memory)
            .len(),
        1
    );
}

/// `malloc` in a static function of the program is not what others are bound to.
#[test]
fn symbols_that_are_not_exported_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let source = program("step((void *)pool_get);").replace(
        "int main",
        "__attribute__((noinline)) void *pool_get(void) { return 0; }\nint main",
    );
    let exe = compile(dir.path(), "hidden", &source, &[]);
    let mut target = Target::start(&mut Command::new(exe));
    let at = target.address();
    let image = target.image();
    assert!(image.resolve("pool_get", &target.memory).is_none());
    let program = image.program().unwrap();
    let symbol = &program.file().functions("pool_get")[0];
    assert_eq!(program.addr(symbol.svma), at);
}

#[test]
fn static_programs() {
    let dir = tempfile::tempdir().unwrap();
    for (name, flags) in [
        ("static", &["-static"][..]),
        ("static-pie", &["-static-pie"][..]),
    ] {
        let main = "step((void *)malloc); step((void *)memcpy);";
        let exe = compile(dir.path(), name, &program(main), flags);
        let mut target = Target::start(&mut Command::new(exe));
        let (malloc, memcpy) = (target.address(), target.address());
        let image = target.image();
        assert!(image.is_static(), "{name}");
        let resolve = |function| image.resolve(function, &target.memory).unwrap().code;
        assert_eq!(resolve("malloc"), Code::At(malloc), "{name}");
        // A pointer to an IFUNC in a static program is a PLT entry of its own.
        let module = image.module_at(memcpy).unwrap();
        let chosen = resolve("memcpy").addr().unwrap();
        assert!(module.has_code_at(chosen), "{name}");
        let chosen = module.file().symbol_at(module.svma(chosen)).unwrap();
        assert!(chosen.name.contains("memmove") || chosen.name.contains("memcpy"));
    }
}

#[test]
fn fixed_and_stripped_programs() {
    let dir = tempfile::tempdir().unwrap();
    let source = "#include <stddef.h>\nvoid *malloc(size_t);\n";
    for (name, flags) in [
        ("fixed", &["-no-pie"][..]),
        ("stripped", &["-s"][..]),
        ("joined", &["-Wl,-z,noseparate-code"][..]),
        ("lazy", &["-Wl,-z,lazy"][..]),
        ("now", &["-Wl,-z,now"][..]),
        ("aligned", &["-Wl,-z,max-page-size=0x200000"][..]),
    ] {
        let main = "char b[16]; memcpy(b, argv[0], argc); step(dlsym(RTLD_DEFAULT, \"malloc\")); \
                    step(dlsym(RTLD_DEFAULT, \"strlen\"));";
        let code = format!("{source}{}", program(main));
        let exe = compile(dir.path(), name, &code, flags);
        let mut target = Target::start(&mut Command::new(exe));
        let (malloc, strlen) = (target.address(), target.address());
        let image = target.image();
        let program = image.program().unwrap();
        assert_eq!(
            program.addr(program.file().entry()),
            image.entry(),
            "{name}"
        );
        assert_eq!(program.bias() == 0, name == "fixed");
        assert!(program.file().cfi().eh_frame.is_some());
        let resolve = |function| image.resolve(function, &target.memory).unwrap().code;
        assert_eq!(resolve("malloc"), Code::At(malloc), "{name}");
        assert_eq!(resolve("strlen"), Code::At(strlen), "{name}");
        assert!(!image.is_static());
    }
}

#[test]
fn a_deleted_and_a_replaced_library_are_read_as_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let library = compile(dir.path(), "libgrab.so", LIBRARY, &["-shared", "-fPIC"]);
    let main = r#"void *lib = dlopen(argv[1], RTLD_NOW); step(dlsym(lib, "grab"));"#;
    let exe = compile(dir.path(), "dl", &program(main), &["-ldl"]);
    let mut target = Target::start(Command::new(&exe).arg(&library));
    let grab = target.address();

    std::fs::remove_file(&library).unwrap();
    std::fs::remove_file(&exe).unwrap();
    expect_mapped(&mut target, grab, &library, &exe);
    // Another file has the name now.
    std::fs::write(&library, "no ELF file").unwrap();
    expect_mapped(&mut target, grab, &library, &exe);
}

/// The program can always be opened. A library without a name takes a capability; where it is
/// missing, that is said.
fn expect_mapped(target: &mut Target, grab: leaktap_memory::Addr, library: &Path, exe: &Path) {
    let image = target.image();
    assert_eq!(image.program().unwrap().path(), exe);
    assert!(image.program().unwrap().deleted());
    match image.resolve("grab", &target.memory) {
        Some(resolved) => {
            assert_eq!(resolved.code, Code::At(grab));
            let module = image.module_at(grab).unwrap();
            assert!(module.deleted() && module.path() == library);
        }
        None => {
            let skipped = image.skipped().iter().find(|s| s.path == library).unwrap();
            assert!(
                matches!(skipped.why, Error::Replaced { .. }),
                "{:?}",
                skipped.why
            );
        }
    }
}

#[test]
fn musl_programs() {
    let dir = tempfile::tempdir().unwrap();
    let musl = |name, source: &str, flags: &[&str]| {
        leaktap_testing::compile("musl-gcc", dir.path(), name, source, flags)
    };
    let library = musl("libgrab.so", LIBRARY, &["-shared", "-fPIC"]);
    let main = r#"step((void *)malloc);
        void *lib = dlopen(argv[1], RTLD_NOW); step(dlsym(lib, "grab"));"#;
    let exe = musl("shared", &program(main), &[]);
    let mut target = Target::start(Command::new(exe).arg(&library));
    let malloc = target.address();
    let mut image = target.image();
    let resolve = |image: &Image, memory: &Memory, name| image.resolve(name, memory).unwrap().code;
    assert_eq!(resolve(&image, &target.memory, "malloc"), Code::At(malloc));
    let r_debug = image.r_debug(&target.memory).unwrap();
    let at = image.linker_brk(&target.memory).unwrap();
    assert_eq!(r_debug.r_brk, at);
    let linker = image.module_at(at).unwrap();
    let names = linker.file().functions("_dl_debug_state");
    assert_eq!(linker.addr(names[0].svma), at);
    let grab = target.address();
    let changes = target.refresh(&mut image);
    assert_eq!(changes.added.len(), 1);
    assert_eq!(resolve(&image, &target.memory, "grab"), Code::At(grab));

    let exe = musl("alone", &program("step((void *)malloc);"), &["-static"]);
    let mut target = Target::start(&mut Command::new(exe));
    let malloc = target.address();
    let image = target.image();
    assert!(image.is_static());
    assert_eq!(resolve(&image, &target.memory, "malloc"), Code::At(malloc));
}

#[test]
fn a_program_run_by_the_linker() {
    let dir = tempfile::tempdir().unwrap();
    let exe = compile(dir.path(), "user", &program("step((void *)malloc);"), &[]);
    let interpreter = leaktap_image::ElfFile::open(&exe).unwrap();
    let interpreter = interpreter.interpreter().unwrap().to_path_buf();
    let mut target = Target::start(Command::new(interpreter).arg(&exe));
    let malloc = target.address();
    let image = target.image();
    assert_eq!(image.program().unwrap().path(), exe);
    assert!(!image.is_static());
    let resolved = image.resolve("malloc", &target.memory).unwrap();
    assert_eq!(resolved.code, Code::At(malloc));
    assert!(image.linker_brk(&target.memory).is_some());
}

#[test]
fn files_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let exe = compile(dir.path(), "gone", &program(""), &["-g", "-O1"]);
    let mut target = Target::start(&mut Command::new(&exe));
    let image = target.image();
    drop(target);
    std::fs::remove_file(&exe).unwrap();
    let file = image.program().unwrap().file();
    let main = file.functions("main")[0].clone();
    assert_eq!(file.symbol_at(main.svma), Some(main));
    assert!(file.section(".debug_info").is_some());
}

#[test]
fn a_process_that_has_ended_has_no_memory() {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let mut child = Command::new("true").arg0("true").spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    let (_, memory) = support::this_process();
    let error = Image::load(pid.as_raw(), &memory, &mut Default::default()).unwrap_err();
    assert!(matches!(
        error,
        Error::NoMemory { .. } | Error::NoProcess { .. }
    ));
    child.wait().unwrap();
}

/// As programs do that copy their text to huge pages: none of it is mapped from the file, and of
/// what is, a part has the permissions of another segment.
#[test]
fn text_that_is_memory_is_where_the_dynamic_linker_says() {
    const SOURCE: &str = "#define _GNU_SOURCE\n#include <stdio.h>\n#include <string.h>\n\
        #include <sys/mman.h>\nint main(void) {\n\
        char line[512]; unsigned long start = 0, end = 0;\n\
        FILE *maps = fopen(\"/proc/self/maps\", \"r\");\n\
        while (fgets(line, sizeof line, maps))\n\
        if (strstr(line, \"r-xp\")) { sscanf(line, \"%lx-%lx\", &start, &end); break; }\n\
        unsigned long len = end - start;\n\
        char *copy = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);\n\
        memcpy(copy, (void *)start, len); mprotect(copy, len, PROT_READ | PROT_EXEC);\n\
        mremap(copy, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start);\n\
        puts(\"ready\"); fflush(stdout); getchar(); printf(\"%p\\n\", (void *)main);\n\
        fflush(stdout); getchar(); return 0; }\n";
    let dir = tempfile::tempdir().unwrap();
    let exe = compile(dir.path(), "moved", SOURCE, &["-O1", "-Wl,-z,relro,-z,now"]);
    let mut target = Target::start(&mut Command::new(&exe));
    let image = target.image();
    let main = target.address();
    let module = image.module_at(main).unwrap();
    assert_eq!(module.svma(main), module.file().functions("main")[0].svma);
    assert!(module.has_code_at(main));
}
