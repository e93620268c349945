//! A process that outlives leaktap should that be killed, and takes the breakpoints out of the target.
//!
//! It holds a descriptor of the target's memory (its standard output), and is told through its standard input
//! which int3 stands for which byte. When that ends without a word, leaktap has been killed. The kernel closes the
//! descriptors of a process before it lets its tracees go, so most often no thread ever runs into an int3
//! that nobody serves.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use leaktap_probe::{Change, INT3};
use leaktap_tracee::Memory;

/// The name of the subcommand.
pub(crate) const NAME: &str = "guard";

/// Starts one for the process of `memory`. Returns where changes of breakpoints are to be written.
pub(crate) fn start(memory: &Memory) -> io::Result<File> {
    let mut child = Command::new("/proc/self/exe")
        .arg(NAME)
        .stdin(Stdio::piped())
        .stdout(memory.file().try_clone()?)
        .stderr(Stdio::null())
        // Ctrl-C is not for it.
        .process_group(0)
        .spawn()?;
    let orders = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok(File::from(OwnedFd::from(orders)))
}

/// What that process does.
pub(crate) fn run() -> io::Result<()> {
    // Whoever kills all that is called leaktap does not mean this one.
    let _ = std::fs::write("/proc/self/comm", "lt-guard"); // then it has the other name
    let memory = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut int3s = HashMap::new();
    let mut change = [0; Change::LEN];
    while io::stdin().read_exact(&mut change).is_ok() {
        match Change::from_bytes(&change) {
            Change::Set { at, original } => {
                int3s.insert(at, original);
            }
            Change::Lifted { at } => {
                int3s.remove(&at);
            }
        }
    }
    for (at, original) in int3s {
        let mut now = [0];
        if memory.read_exact_at(&mut now, at.get()).is_ok() && now == [INT3] {
            let _ = memory.write_all_at(&[original], at.get()); // the memory has gone
        }
    }
    Ok(())
}
