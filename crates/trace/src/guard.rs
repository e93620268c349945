//! A process that stands by while leaktap is attached.
//!
//! It outlives leaktap should that be killed, and takes the breakpoints out of the target. It holds
//! a descriptor of the target's memory (its standard output), and is told through its standard
//! input which int3 stands for which byte. When that ends without a word, leaktap has been killed.
//! The kernel closes the descriptors of a process before it lets its tracees go, so most often no
//! thread ever runs into an int3 that nobody serves.
//!
//! A leaktap that is stopped (SIGSTOP) would hold its target wherever that stops next. It is
//! continued at once, and detaches: it knows by the sender of SIGCONT that it was stopped.
//!
//! A child that the target has forked has the same int3s in its copy of the memory. leaktap takes
//! them out before the child runs; of a leaktap that was killed just then, this process does it.
//!
//! Instructions that have moved to slots are left to the next leaktap: a thread may be inside, and
//! only a tracer can tell.

use std::collections::HashMap;
use std::fs::{self, DirEntry, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use leaktap_memory::Addr;
use leaktap_probe::Change;
use leaktap_tracee::{Memory, Tid};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, chdir, close, getpgid, getppid, setpgid, setsid};

/// How often leaktap is looked at, in milliseconds: a target may be held for so long.
const LOOK: u8 = 20;

/// For how long forks of the target are looked for that had begun when leaktap ended, and how
/// often.
const FORKS: Duration = Duration::from_millis(20);
const LOOK_FOR_FORKS: Duration = Duration::from_millis(1);

/// Which bytes of a process are to be put back: the address, what was there, and what is.
type Int3s = HashMap<Addr, (u8, u8)>;

/// The name of the subcommand.
pub const NAME: &str = "guard";

/// Starts one for the process of `memory`. Returns what it is called, and where changes of
/// breakpoints are to be written.
pub(crate) fn start(memory: &Memory) -> io::Result<(Tid, File)> {
    let mut child = Command::new("/proc/self/exe")
        .arg(NAME)
        .arg(memory.process().to_string())
        .stdin(Stdio::piped())
        .stdout(memory.file().try_clone()?)
        .stderr(Stdio::null())
        // Ctrl-C is not for it.
        .process_group(0)
        .spawn()?;
    let orders = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let guard = Tid::new(child.id().cast_signed());
    Ok((guard, File::from(OwnedFd::from(orders))))
}

/// Leaves all that leaktap has been given and this process has no use for: terminal and session,
/// folder, descriptors other than the first three. Whatever fails here is no reason not to stand
/// by.
fn drop_all() {
    // Whoever kills all that is called leaktap does not mean this one.
    let _ = fs::write("/proc/self/comm", "lt-guard");
    // From the terminal, until it has no more to say.
    let _ = SigSet::all().thread_block();
    // The leader of a group cannot leave it by itself.
    let _ = setpgid(
        Pid::from_raw(0),
        getpgid(Some(getppid())).unwrap_or(Pid::from_raw(0)),
    );
    let _ = setsid();
    let _ = SigSet::all().thread_unblock();
    let _ = chdir("/");
    let Ok(open) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let number = |entry: io::Result<DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let all: Vec<RawFd> = open.filter_map(number).collect();
    for fd in all.into_iter().filter(|fd| *fd > 2) {
        let _ = close(fd); // that of the folder itself is closed by now
    }
}

/// What that process does, for `target`.
///
/// # Errors
/// Its orders, or the memory, cannot be had.
pub fn run(target: i32) -> io::Result<()> {
    let leaktap = getppid();
    drop_all();
    leaktap_tracee::raise_priority();
    let mut orders = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let memory = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    // They have other numbers now.
    let _ = close(0);
    let _ = close(1);
    let mut int3s = Int3s::new();
    let mut change = [0; Change::LEN];
    loop {
        await_order(&orders, leaktap);
        if orders.read_exact(&mut change).is_err() {
            break;
        }
        match Change::from_bytes(&change) {
            Change::Set {
                at,
                original,
                written,
            } => {
                int3s.insert(at, (original, written));
            }
            Change::Lifted { at } => {
                int3s.remove(&at);
            }
        }
    }
    restore(&memory, &int3s);
    restore_copies(target, &int3s);
    Ok(())
}

/// Puts back the bytes that are still there. True if there was one.
fn restore(memory: &File, int3s: &Int3s) -> bool {
    let mut found = false;
    for (at, (original, written)) in int3s {
        let mut now = [0];
        if memory.read_exact_at(&mut now, at.get()).is_ok() && now == [*written] {
            found = true;
            let _ = memory.write_all_at(&[*original], at.get()); // the memory has gone
        }
    }
    found
}

/// The same in the children that `target` has forked, and that run the same program; and in theirs,
/// if they have been found with int3s.
fn restore_copies(target: i32, int3s: &Int3s) {
    let (begun, program) = (Instant::now(), program(target));
    let mut parents = vec![target];
    while program.is_some() && !int3s.is_empty() && begun.elapsed() < FORKS {
        let mut copies: Vec<i32> = parents.iter().copied().flat_map(children).collect();
        copies.retain(|child| self::program(*child) == program);
        for child in copies {
            let memory = File::options()
                .read(true)
                .write(true)
                .open(format!("/proc/{child}/mem"));
            if memory.is_ok_and(|memory| restore(&memory, int3s)) {
                parents.push(child);
            }
        }
        std::thread::sleep(LOOK_FOR_FORKS);
    }
}

/// What identifies the file of a process's program.
fn program(process: i32) -> Option<(u64, u64)> {
    let file = fs::metadata(format!("/proc/{process}/exe")).ok()?;
    Some((file.dev(), file.ino()))
}

fn children(process: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children = |list: String| -> Vec<i32> {
        let words = list.split_whitespace();
        words.filter_map(|word| word.parse().ok()).collect()
    };
    lists.flat_map(children).collect()
}

/// Waits until there is something to read, or the end of it.
fn await_order(orders: &File, leaktap: Pid) {
    loop {
        let mut fds = [PollFd::new(orders.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(LOOK)) {
            Ok(0) => continue_if_stopped(leaktap),
            Err(Errno::EINTR) => {}
            Ok(_) | Err(_) => return, // reading tells more
        }
    }
}

/// Not if a debugger holds it: state t of proc_pid_stat(5).
fn continue_if_stopped(leaktap: Pid) {
    let state = Tid::new(leaktap.as_raw()).state();
    // Its number is its own as long as it is our parent.
    if state.is_ok_and(|state| state == Some('T')) && getppid() == leaktap {
        let _ = kill(leaktap, Signal::SIGCONT); // fails if it has become another user's
    }
}
