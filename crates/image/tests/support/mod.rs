//! What the tests of this crate share: memory of a process, compiled fixtures, child processes.
#![allow(dead_code, missing_docs, reason = "each test binary uses a part of it")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use leaktap_image::{FileCache, Image};
use leaktap_memory::{Addr, ReadMemory, Unreadable};

/// The memory of a process through `/proc/PID/mem`.
pub(crate) struct Memory(File);

impl Memory {
    pub(crate) fn of(pid: i32) -> Memory {
        Memory(File::open(format!("/proc/{pid}/mem")).unwrap())
    }
}

impl ReadMemory for Memory {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        let read = self.0.read_exact_at(buf, at.get());
        read.map_err(|_| Unreadable { at, len: buf.len() })
    }
}

pub(crate) fn this_process() -> (i32, Memory) {
    let pid = std::process::id().cast_signed();
    (pid, Memory::of(pid))
}

/// Compiles C into `dir/name`.
pub(crate) fn compile(dir: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    compile_with("gcc", dir, name, source, flags)
}

/// The same with another compiler: `musl-gcc` is in Debian's musl-tools.
pub(crate) fn compile_with(
    compiler: &str,
    dir: &Path,
    name: &str,
    source: &str,
    flags: &[&str],
) -> PathBuf {
    let (code, out) = (dir.join(format!("{name}.c")), dir.join(name));
    std::fs::write(&code, source).unwrap();
    let done = Command::new(compiler)
        .arg("-o")
        .args([&out, &code])
        .args(flags)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{compiler} {name}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    out
}

/// A running fixture: it prints a line a step, and ends when its input does.
pub(crate) struct Target {
    child: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) memory: Memory,
    pub(crate) files: FileCache,
}

impl Target {
    pub(crate) fn start(command: &mut Command) -> Target {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut target = Target {
            memory: Memory::of(child.id().cast_signed()),
            child,
            lines,
            files: FileCache::new(),
        };
        assert_eq!(target.line(), "ready");
        // Opened before exec, the file would show the memory of before.
        target.memory = Memory::of(target.pid());
        target
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Lets it go on, and returns its next line.
    pub(crate) fn step(&mut self) -> String {
        use std::io::Write;
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(b"\n").unwrap();
        stdin.flush().unwrap();
        self.line()
    }

    /// An address that it prints.
    pub(crate) fn address(&mut self) -> Addr {
        let line = self.step();
        Addr::new(u64::from_str_radix(line.trim_start_matches("0x"), 16).unwrap())
    }

    pub(crate) fn image(&mut self) -> Image {
        Image::load(self.pid(), &self.memory, &mut self.files).unwrap()
    }

    pub(crate) fn refresh(&mut self, image: &mut Image) -> leaktap_image::Changes {
        let changes = image.refresh(&self.memory, &mut self.files).unwrap();
        changes.unwrap_or_default()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
