//! What the tests of this crate share: memory of a process, compiled fixtures, child processes.
#![allow(dead_code, missing_docs, reason = "each test binary uses a part of it")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use leaktap_image::{FileCache, Image};
use leaktap_memory::{Addr, ReadMemory, Unreadable};
use leaktap_testing::Watched;

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
    leaktap_testing::compile("gcc", dir, name, source, flags)
}

/// A running fixture: it prints a line a step, and ends when its input does.
pub(crate) struct Target {
    process: Watched,
    pub(crate) memory: Memory,
    pub(crate) files: FileCache,
}

impl Target {
    pub(crate) fn start(command: &mut Command) -> Target {
        let mut process = Watched::spawn(command);
        assert_eq!(process.next_line(), "ready");
        // Opened before exec, the file would show the memory of before.
        Target {
            memory: Memory::of(process.pid().as_raw()),
            process,
            files: FileCache::new(),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid().as_raw()
    }

    pub(crate) fn line(&mut self) -> String {
        self.process.next_line()
    }

    /// Lets it go on, and returns its next line.
    pub(crate) fn step(&mut self) -> String {
        self.process.send(b"\n");
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
