//! `leaktap demo`: a program that leaks, to attach to.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The executable of the leaky program (`demo/demo.rs`), which leaktap carries.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo"));

/// The leaky program, running. It ends when this is dropped.
pub(crate) struct Demo {
    child: Child,
    folder: PathBuf,
}

impl Demo {
    /// Starts it, from a file in a folder of its own.
    ///
    /// # Errors
    /// As of the file system, or of fork(2) and execve(2).
    pub(crate) fn start() -> io::Result<Demo> {
        let name = format!("leaktap-demo-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&folder)?;
        let started = start(&folder.join("demo"));
        if started.is_err() {
            remove(&folder);
        }
        started.map(|child| Demo { child, folder })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It cannot be another's: nobody else waits for it.
        let _ = self.child.wait();
        remove(&self.folder);
    }
}

fn start(path: &PathBuf) -> io::Result<Child> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(path)?;
    file.write_all(PROGRAM)?;
    drop(file); // what is open to be written is not executed
    let mut command = Command::new(path);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::null()).spawn()?;
    // It says that it has begun: before that, its C library may not even be mapped.
    if let Some(stdout) = &mut child.stdout {
        stdout.read_exact(&mut [0])?;
    }
    Ok(child)
}

/// Whatever is left behind is in a folder for what is.
fn remove(folder: &PathBuf) {
    let _ = fs::remove_dir_all(folder);
}
