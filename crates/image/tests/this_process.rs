//! The test process looks at itself: what the image says is compared with what the code knows.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests do"
)]

mod support;

use std::ffi::c_void;

use leaktap_image::{Code, FileCache, Image, LinkState};
use leaktap_memory::Addr;
use support::this_process;

unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
    fn free(block: *mut c_void);
    fn calloc(count: usize, size: usize) -> *mut c_void;
    fn realloc(block: *mut c_void, size: usize) -> *mut c_void;
    fn memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void;
    fn strlen(string: *const i8) -> usize;
}

fn image() -> Image {
    let (pid, memory) = this_process();
    Image::load(pid, &memory, &mut FileCache::new()).unwrap()
}

#[test]
fn functions_are_where_the_dynamic_linker_bound_them() {
    let (_, memory) = this_process();
    let image = image();
    let known = [
        ("malloc", malloc as *const () as u64),
        ("free", free as *const () as u64),
        ("calloc", calloc as *const () as u64),
        ("realloc", realloc as *const () as u64),
    ];
    for (name, at) in known {
        let resolved = image.resolve(name, &memory).unwrap();
        assert_eq!(resolved.code, Code::At(Addr::new(at)), "{name}");
        let module = &image.modules()[resolved.module];
        assert!(module.path().to_str().unwrap().contains("libc.so"));
        assert!(module.has_code_at(Addr::new(at)));
    }
}

#[test]
fn an_ifunc_is_the_code_that_runs() {
    let (_, memory) = this_process();
    let image = image();
    for (name, at) in [
        ("memcpy", memcpy as *const () as u64),
        ("strlen", strlen as *const () as u64),
    ] {
        let resolved = image.resolve(name, &memory).unwrap();
        assert!(resolved.symbol.ifunc);
        assert_eq!(resolved.code, Code::At(Addr::new(at)), "{name}");
    }
}

#[test]
fn the_program_is_first_and_every_module_reads_as_its_file() {
    let (_, memory) = this_process();
    let image = image();
    let program = image.program().unwrap();
    assert_eq!(program.path(), std::env::current_exe().unwrap());
    assert!(program.has_code_at(image.entry()));
    assert!(program.contains(Addr::new(
        the_program_is_first_and_every_module_reads_as_its_file as *const () as u64
    )));
    assert!(!image.is_static());
    for module in image.modules() {
        for segment in module.file().segments().iter().filter(|s| s.exec) {
            let svma = leaktap_memory::Svma(segment.svma);
            let expected = module.file().bytes_at(svma, 64).unwrap();
            let mut found = [0; 64];
            leaktap_memory::ReadMemory::read(&memory, module.addr(svma), &mut found).unwrap();
            assert_eq!(found.as_slice(), expected, "{}", module.path().display());
        }
    }
}

#[test]
fn the_linker_says_where_it_breaks() {
    let (_, memory) = this_process();
    let image = image();
    let r_debug = image.r_debug(&memory).unwrap();
    assert_eq!(r_debug.state, LinkState::Consistent);
    let linker = image.module_at(r_debug.r_brk).unwrap();
    let by_name = &linker.file().functions("_dl_debug_state")[0];
    assert_eq!(linker.addr(by_name.svma), r_debug.r_brk);
    assert_eq!(image.linker_brk(&memory), Some(r_debug.r_brk));
}

#[test]
fn the_vdso_has_symbols_and_frames() {
    let image = image();
    let vdso = image
        .modules()
        .iter()
        .find(|module| module.is_vdso())
        .unwrap();
    assert!(!vdso.file().functions("__vdso_clock_gettime").is_empty());
    assert!(vdso.file().cfi().eh_frame.is_some());
    // It is not searched for symbols, although it has `clock_gettime`.
    let (_, memory) = this_process();
    let resolved = image.resolve("clock_gettime", &memory).unwrap();
    assert!(!image.modules()[resolved.module].is_vdso());
}

#[test]
fn looking_again_finds_nothing_new() {
    let (pid, memory) = this_process();
    let mut files = FileCache::new();
    let mut image = Image::load(pid, &memory, &mut files).unwrap();
    let changes = image
        .refresh(&memory, &mut files)
        .unwrap()
        .unwrap_or_default();
    assert!(changes.is_empty(), "{changes:?}");
}

#[test]
fn default_versions_come_first() {
    let image = image();
    let libc = image
        .modules()
        .iter()
        .find(|module| !module.file().functions("__libc_malloc").is_empty())
        .unwrap();
    let memcpy = libc.file().functions("memcpy");
    assert!(memcpy[0].default && memcpy[0].version.as_deref() == Some("GLIBC_2.14"));
    let old = memcpy
        .iter()
        .find(|symbol| !symbol.default && symbol.dynamic)
        .unwrap();
    assert_eq!(old.version.as_deref(), Some("GLIBC_2.2.5"));
    assert!(!libc.file().objects("environ").is_empty());
    let malloc = &libc.file().functions("malloc")[0];
    let at = leaktap_memory::Svma(malloc.svma.0 + malloc.size - 1);
    assert_eq!(libc.file().symbol_at(at).unwrap().name, "malloc");
}

#[test]
fn no_such_process() {
    let (_, memory) = this_process();
    let error = Image::load(i32::MAX, &memory, &mut FileCache::new()).unwrap_err();
    assert_eq!(error.to_string(), format!("no process {}", i32::MAX));
}
