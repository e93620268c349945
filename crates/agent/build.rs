//! Builds the blob: compiles the cores and the agent for themselves, links them into a flat
//! image, checks it, and hands it to the library as bytes and constants.
//!
//! Needs nothing but the toolchain: cargo's own rustc, and the linker that comes with it or `ld`.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSection, ObjectSymbol};

/// Symbols of the image that the library exports as offsets.
const SYMBOLS: [(&str, &str); 27] = [
    ("AROUND", "leaktap_around"),
    ("AROUND_THROWING", "leaktap_around_throwing"),
    ("BEFORE", "leaktap_before"),
    ("AROUND_CALL", "leaktap_around_call"),
    ("AROUND_BACK", "leaktap_around_back"),
    ("AROUND_PASS", "leaktap_around_pass"),
    ("AROUND_RETURN", "leaktap_around_return"),
    ("AROUND_THROWING_CALL", "leaktap_around_throwing_call"),
    ("AROUND_THROWING_PASS", "leaktap_around_throwing_pass"),
    ("AROUND_THROWING_RETURN", "leaktap_around_throwing_return"),
    ("BEFORE_PASS", "leaktap_before_pass"),
    ("FULL_AROUND", "leaktap_full_around"),
    ("FULL_AROUND_CALL", "leaktap_full_around_call"),
    ("FULL_AROUND_BACK", "leaktap_full_around_back"),
    ("FULL_AROUND_PASS", "leaktap_full_around_pass"),
    ("FULL_AROUND_RETURN", "leaktap_full_around_return"),
    ("FULL_AROUND_THROWING", "leaktap_full_around_throwing"),
    (
        "FULL_AROUND_THROWING_CALL",
        "leaktap_full_around_throwing_call",
    ),
    (
        "FULL_AROUND_THROWING_PASS",
        "leaktap_full_around_throwing_pass",
    ),
    (
        "FULL_AROUND_THROWING_RETURN",
        "leaktap_full_around_throwing_return",
    ),
    ("FULL_BEFORE", "leaktap_full_before"),
    ("FULL_BEFORE_PASS", "leaktap_full_before_pass"),
    ("GATE", "leaktap_gate"),
    ("GATE_PASS", "leaktap_gate_pass"),
    ("CHANGE", "leaktap_change"),
    ("CHANGE_RETURN", "leaktap_change_return"),
    ("CONSTANTS", "leaktap_constants"),
];

/// Sources of which the image is made.
const SOURCES: [&str; 14] = [
    "blob",
    "src/layout.rs",
    "src/mapping.rs",
    "src/moving.rs",
    "src/primitive.rs",
    "src/published.rs",
    "src/queue.rs",
    "src/tally.rs",
    "../api/src",
    "../arch/src",
    "../memory/src",
    "../ledger/src",
    "../unwind/src",
    "build.rs",
];

fn main() {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let out = PathBuf::from(variable("OUT_DIR"));
    let api = rlib(&out, "api", &[]);
    let memory = rlib(&out, "memory", &[]);
    let arch = rlib(&out, "arch", &[&memory]);
    let unwind = rlib(&out, "unwind", &[&memory, &arch]);
    let ledger = rlib(&out, "ledger", &[&memory]);
    let object = out.join("blob.a");
    let mut rustc = rustc(&out, &[&api, &memory, &arch, &unwind, &ledger]);
    rustc.args([
        "--crate-name",
        "leaktap_agent_blob",
        "--crate-type",
        "staticlib",
    ]);
    rustc.args([
        "-Clto=fat",
        "--emit",
        &format!("link={}", object.display()),
        "blob/lib.rs",
    ]);
    run(&mut rustc);
    let image = out.join("blob.elf");
    link(&object, &image);
    export(&image, &out);
}

fn variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo does not set {name}"))
}

/// A library crate of the workspace, without its features.
fn rlib(out: &Path, name: &str, uses: &[&PathBuf]) -> PathBuf {
    let path = out.join(format!("libleaktap_{name}.rlib"));
    let mut rustc = rustc(out, uses);
    rustc.args([
        "--crate-name",
        &format!("leaktap_{name}"),
        "--crate-type",
        "rlib",
    ]);
    rustc
        .arg("-o")
        .arg(&path)
        .arg(format!("../{name}/src/lib.rs"));
    run(&mut rustc);
    path
}

/// How all of the image is compiled, in whatever profile cargo builds.
///
/// `noimplicitfloat` keeps LLVM from using vector registers of its own accord; unwind tables are
/// there for the walk that starts in a signal handler while the agent runs.
fn rustc(out: &Path, uses: &[&PathBuf]) -> Command {
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition", "2024", "--cap-lints", "warn"]);
    rustc.arg("--target").arg(variable("TARGET"));
    for option in [
        "panic=abort",
        "relocation-model=pic",
        "opt-level=3",
        "codegen-units=1",
        "overflow-checks=off",
        "debug-assertions=off",
        "force-unwind-tables=yes",
        "no-vectorize-loops",
        "no-vectorize-slp",
        "llvm-args=-force-attribute=noimplicitfloat",
    ] {
        rustc.args(["-C", option]);
    }
    rustc.arg("-L").arg(out);
    for path in uses {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = name.trim_start_matches("lib");
        rustc.args(["--extern", &format!("{name}={}", path.display())]);
    }
    rustc
}

fn link(object: &Path, image: &Path) {
    let mut ld = linker();
    ld.args([
        "-pie",
        "--no-dynamic-linker",
        "-z",
        "text",
        "--no-undefined",
        "--gc-sections",
    ]);
    ld.args(["--build-id=none", "-z", "noexecstack", "-T", "blob/blob.ld"]);
    for entry in [
        "leaktap_around",
        "leaktap_around_throwing",
        "leaktap_before",
        "leaktap_full_around",
        "leaktap_full_around_throwing",
        "leaktap_full_before",
        "leaktap_gate",
        "leaktap_change",
    ] {
        ld.args(["-u", entry]);
    }
    run(ld.arg(object).arg("-o").arg(image));
}

/// The linker that comes with rustc, or the system's.
fn linker() -> Command {
    let mut rustc = Command::new(variable("RUSTC"));
    let sysroot = rustc
        .args(["--print", "sysroot"])
        .output()
        .expect("rustc runs")
        .stdout;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot).trim());
    let host = Path::new("lib/rustlib").join(variable("HOST"));
    let lld = sysroot.join(host).join("bin/rust-lld");
    if !lld.exists() {
        return Command::new("ld");
    }
    let mut lld = Command::new(lld);
    lld.args(["-flavor", "gnu"]);
    lld
}

fn run(command: &mut Command) {
    let status = command.status();
    let done = status.as_ref().is_ok_and(|status| status.success());
    assert!(done, "building the agent failed: {status:?} of {command:?}");
}

/// Writes the flat image, its call frame information, and the offsets of its symbols.
fn export(image: &Path, out: &Path) {
    let bytes = fs::read(image).expect("the linker wrote the image");
    let file = object::File::parse(&*bytes).expect("the linker writes ELF");
    assert!(
        !file
            .symbols()
            .any(|s| s.is_undefined() && s.name() != Ok("")),
        "undefined symbols"
    );
    let section = |name: &str| {
        let section = file
            .section_by_name(name)
            .unwrap_or_else(|| panic!("no {name}"));
        (
            section.address(),
            section.data().expect("a section has bytes"),
        )
    };
    let (text_at, text) = section(".text");
    let (eh_frame_at, eh_frame) = section(".eh_frame");
    fs::write(out.join("text.bin"), text).expect("OUT_DIR is writable");
    fs::write(out.join("eh_frame.bin"), eh_frame).expect("OUT_DIR is writable");
    let mut constants = String::new();
    let offsets = SYMBOLS.map(|(constant, symbol)| {
        let found = file.symbols().find(|s| s.name() == Ok(symbol));
        (
            constant,
            found.unwrap_or_else(|| panic!("no {symbol}")).address(),
        )
    });
    for (name, offset) in offsets
        .into_iter()
        .chain([("TEXT", text_at), ("EH_FRAME", eh_frame_at)])
    {
        writeln!(constants, "pub(crate) const {name}: u64 = {offset:#x};").expect("a String grows");
    }
    fs::write(out.join("offsets.rs"), constants).expect("OUT_DIR is writable");
}
