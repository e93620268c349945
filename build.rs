//! Compiles the program of `leaktap demo` ([`demo/demo.rs`](demo/demo.rs)), which leaktap carries.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "demo/demo.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let program = PathBuf::from(variable("OUT_DIR")).join("demo");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args([
        "--edition",
        "2024",
        "--crate-name",
        "demo",
        "--crate-type",
        "bin",
    ]);
    rustc.arg("--target").arg(variable("TARGET"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    for option in [
        "opt-level=1",
        "panic=abort",
        "debuginfo=line-tables-only",
        "force-unwind-tables=yes",
        "codegen-units=1",
    ] {
        rustc.args(["-C", option]);
    }
    let mut unnamed = variable("CARGO_MANIFEST_DIR");
    unnamed.push("=leaktap"); // where this is built is nobody's business
    rustc.arg("--remap-path-prefix").arg(unnamed);
    let status = rustc.arg(SOURCE).arg("-o").arg(&program).status();
    let done = status.as_ref().is_ok_and(|status| status.success());
    assert!(
        done,
        "building the demo program failed: {status:?} of {rustc:?}"
    );
}

fn variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo does not set {name}"))
}
