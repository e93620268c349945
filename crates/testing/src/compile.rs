use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `source`, C or for g++ C++, with `compiler` into `folder/name`, and returns that path.
/// `flags` come behind the source, as libraries have to.
pub fn compile(compiler: &str, folder: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let language = if compiler == "g++" { "cpp" } else { "c" };
    let (code, out) = (folder.join(format!("{name}.{language}")), folder.join(name));
    fs::write(&code, source).expect("a source");
    let mut command = Command::new(compiler);
    command.arg("-o").args([&out, &code]).args(flags);
    let done = command.output().expect("a compiler");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {said}");
    out
}
