//! A process that is stopped at its exec: nothing has run, not even the dynamic linker.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests do"
)]

mod support;

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use leaktap_image::{FileCache, Image};
use nix::sys::{ptrace, wait};
use nix::unistd::Pid;
use support::{Memory, compile};

/// Killed when the test ends, however it ends.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stop_at_exec(program: &Path) -> Stopped {
    let mut command = Command::new(program);
    // SAFETY: between fork and exec there is one system call, which allocates nothing.
    unsafe {
        command.pre_exec(|| ptrace::traceme().map_err(io::Error::from));
    }
    let child = Stopped(command.spawn().unwrap());
    let status = wait::waitpid(Pid::from_raw(child.0.id().cast_signed()), None).unwrap();
    assert!(
        matches!(status, wait::WaitStatus::Stopped(..)),
        "{status:?}"
    );
    child
}

#[test]
fn program_linker_and_vdso_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let exe = compile(dir.path(), "nothing", "int main(void) { return 0; }", &[]);
    let child = stop_at_exec(&exe);
    let pid = child.0.id().cast_signed();
    let memory = Memory::of(pid);
    let image = Image::load(pid, &memory, &mut FileCache::new()).unwrap();

    assert_eq!(image.program().unwrap().path(), exe);
    assert!(image.program().unwrap().has_code_at(image.entry()));
    assert_eq!(image.modules().len(), 3);
    assert!(image.modules().iter().any(|module| module.is_vdso()));
    assert!(!image.is_static());
    assert_eq!(image.r_debug(&memory), None);
    let at = image.linker_brk(&memory).unwrap();
    let linker = image.module_at(at).unwrap();
    let symbol = linker.file().symbol_at(linker.svma(at)).unwrap();
    assert_eq!(linker.addr(symbol.svma), at);
    assert!(image.resolve("puts", &memory).is_none());
}

#[test]
fn a_static_program_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    let source = "#include <stdlib.h>\nint main(void) { return malloc(1) == 0; }";
    let exe = compile(dir.path(), "alone", source, &["-static"]);
    let child = stop_at_exec(&exe);
    let pid = child.0.id().cast_signed();
    let memory = Memory::of(pid);
    let image = Image::load(pid, &memory, &mut FileCache::new()).unwrap();
    assert!(image.is_static());
    assert_eq!(image.linker_brk(&memory), None);
    assert!(image.resolve("malloc", &memory).is_some());
}
