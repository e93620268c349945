//! Why a process cannot be traced, and what would help.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, Uid};
use thiserror::Error;

use crate::procfs::{self, Status};
use crate::{Tid, freezer, sys};

/// Why a process was not attached to. Each is one line, with the remedy if there is one.
#[derive(Debug, Error)]
pub enum AttachError {
    /// There is none of that number, or it has just ended.
    #[error("no such process: {process}")]
    NoSuchProcess {
        /// The process asked for.
        process: Tid,
    },
    /// The number is that of a thread within a process.
    #[error("{tid} is a thread of process {process}: attach to {process}")]
    Thread {
        /// The number asked for.
        tid: Tid,
        /// The process it is part of.
        process: Tid,
    },
    /// The tracer cannot trace itself.
    #[error("process {process} is leaktap itself")]
    Itself {
        /// The process asked for.
        process: Tid,
    },
    /// It has no memory of its own.
    #[error("process {process} is a kernel thread: only programs can be traced")]
    KernelThread {
        /// The process asked for.
        process: Tid,
    },
    /// It has ended, and its parent has not waited for it.
    #[error("process {process} has ended already (a zombie, to be reaped by its parent)")]
    Zombie {
        /// The process asked for.
        process: Tid,
    },
    /// A process has one tracer at most.
    #[error("process {process} is being traced by process {by} ({name}): detach it first")]
    Traced {
        /// The process asked for.
        process: Tid,
        /// Its tracer.
        by: Tid,
        /// The tracer's program.
        name: String,
    },
    /// It does not run, and nothing can be done in it.
    #[error("process {process} is frozen: thaw it first (`{thaw}`)")]
    Frozen {
        /// The process asked for.
        process: Tid,
        /// The command that does.
        thaw: String,
    },
    /// Another process would run into its breakpoints, and cannot be traced.
    #[error(
        "process {with} runs in the memory of process {process} (CLONE_VM) and cannot be traced: \
         end it first"
    )]
    Shared {
        /// The process asked for.
        process: Tid,
        /// The other one.
        with: Tid,
    },
    /// It always had another thread.
    #[error("process {process} starts threads faster than they can be stopped: try again later")]
    Restless {
        /// The process asked for.
        process: Tid,
    },
    /// Not a 64-bit x86 program.
    #[error("process {process} is {found}; leaktap traces 64-bit x86 programs only")]
    Architecture {
        /// The process asked for.
        process: Tid,
        /// What it is instead.
        found: String,
    },
    /// We may not.
    #[error("not permitted to trace process {process}: {why}")]
    Denied {
        /// The process asked for.
        process: Tid,
        /// Which rule forbids it, and what would help.
        why: Denied,
    },
    /// The kernel gives an answer that it should not.
    #[error("cannot attach to thread {tid}: {source}")]
    Failed {
        /// The thread.
        tid: Tid,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Which of the rules of ptrace(2), "Ptrace access mode checking", forbids it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// /proc/sys/kernel/yama/ptrace_scope: 1 descendants only, 2 administrators only, 3 nobody.
    Yama {
        /// Its value.
        scope: u32,
    },
    /// It runs as another user.
    OtherUser {
        /// That user's number.
        uid: u32,
    },
    /// /proc does not show it to us (mount option `hidepid`).
    Hidden,
    /// We are root without `CAP_SYS_PTRACE`: in a container.
    Capability,
    /// It has changed its user or holds secrets, and has marked itself undumpable.
    Undumpable,
    /// We have all it takes; a security module or a seccomp filter forbids it nevertheless.
    Policy,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denied::Yama { scope: 1 } => f.write_str(
                "Yama's ptrace_scope is 1 (own children only): run as root, \
                 or `sysctl kernel.yama.ptrace_scope=0`, or launch the program with `leaktap run`",
            ),
            Denied::Yama { scope: 2 } => f.write_str(
                "Yama's ptrace_scope is 2 (administrators only): run as root, \
                 or `sysctl kernel.yama.ptrace_scope=0`",
            ),
            Denied::Yama { scope } => write!(
                f,
                "Yama's ptrace_scope is {scope} (no process may trace): only a reboot changes that"
            ),
            Denied::OtherUser { uid } => {
                write!(
                    f,
                    "it runs as user {uid}: run leaktap as that user or as root"
                )
            }
            Denied::Hidden => f.write_str("it runs as another user: run leaktap as root"),
            Denied::Capability => f.write_str(
                "CAP_SYS_PTRACE is missing: \
                 start the container with `--cap-add=SYS_PTRACE`, or run outside of it",
            ),
            Denied::Undumpable => {
                f.write_str("it has protected itself (prctl PR_SET_DUMPABLE): run leaktap as root")
            }
            Denied::Policy => f.write_str(
                "a security module or a seccomp filter forbids ptrace: in a container, start it \
                 with `--cap-add=SYS_PTRACE --security-opt seccomp=unconfined`",
            ),
        }
    }
}

impl Denied {
    /// Why `EPERM` for a process that exists.
    fn attaching(process: Tid) -> Denied {
        let scope = yama_scope();
        if has_ptrace_capability() {
            return if scope == 3 {
                Denied::Yama { scope }
            } else {
                Denied::Policy
            };
        }
        let own = Uid::effective();
        match Status::of(process).and_then(|status| status.number("Uid")) {
            _ if own.is_root() => Denied::Capability,
            Some(uid) if uid.cast_unsigned() != own.as_raw() => Denied::OtherUser {
                uid: uid.cast_unsigned(),
            },
            _ if scope > 0 => Denied::Yama { scope },
            _ => Denied::Undumpable,
        }
    }

    /// Why we may not trace our own child.
    pub(crate) fn launching() -> Denied {
        match yama_scope() {
            scope @ 3.. => Denied::Yama { scope },
            2 if !has_ptrace_capability() => Denied::Yama { scope: 2 },
            _ => Denied::Policy,
        }
    }
}

/// Whether `process` can be attached to, as far as can be told without touching it.
///
/// # Errors
/// [`AttachError`].
pub fn examine(process: Tid) -> Result<(), AttachError> {
    let Some(status) = Status::of(process).filter(|_| process.get() > 0) else {
        return Err(absent(process));
    };
    match status.number("Tgid").map(Tid::new) {
        Some(leader) if leader != process => {
            return Err(AttachError::Thread {
                tid: process,
                process: leader,
            });
        }
        _ if process.get().cast_unsigned() == std::process::id() => {
            return Err(AttachError::Itself { process });
        }
        _ => {}
    }
    if procfs::is_kernel_thread(process) {
        return Err(AttachError::KernelThread { process });
    }
    // A leader that has ended, with threads that go on, can be traced.
    if status.is_dead() && procfs::threads(process).is_ok_and(|threads| threads.len() <= 1) {
        return Err(AttachError::Zombie { process });
    }
    // A leader that has ended is ours until its last thread ends.
    if let Some(by) = tracer(&status).filter(|_| !is_ours(&status)) {
        return Err(traced(process, by));
    }
    if let Some(thaw) = freezer::thaw(process) {
        return Err(AttachError::Frozen { process, thaw });
    }
    match foreign(process) {
        Some(found) => Err(AttachError::Architecture { process, found }),
        None => Ok(()),
    }
}

/// Why `PTRACE_SEIZE` of a live thread `tid` of `process` failed.
pub(crate) fn refused(process: Tid, tid: Tid, errno: Errno) -> AttachError {
    match errno {
        Errno::EPERM => match Status::of(tid).as_ref().and_then(tracer) {
            Some(by) => traced(process, by),
            None => AttachError::Denied {
                process,
                why: Denied::attaching(process),
            },
        },
        Errno::ESRCH => AttachError::NoSuchProcess { process },
        errno => AttachError::Failed {
            tid,
            source: errno.into(),
        },
    }
}

fn absent(process: Tid) -> AttachError {
    // Zero and negative numbers would mean groups.
    let exists = || {
        matches!(
            kill(Pid::from_raw(process.get()), None),
            Ok(()) | Err(Errno::EPERM)
        )
    };
    if process.get() > 0 && exists() {
        AttachError::Denied {
            process,
            why: Denied::Hidden,
        }
    } else {
        AttachError::NoSuchProcess { process }
    }
}

fn tracer(status: &Status) -> Option<Tid> {
    status
        .number("TracerPid")
        .filter(|&by| by != 0)
        .map(Tid::new)
}

fn traced(process: Tid, by: Tid) -> AttachError {
    let name = fs::read(format!("/proc/{by}/comm")).unwrap_or_default();
    let name = String::from_utf8_lossy(&name).trim_end().to_owned();
    AttachError::Traced { process, by, name }
}

/// True if `status` is that of a thread which the calling thread traces.
pub(crate) fn is_ours(status: &Status) -> bool {
    tracer(status) == Some(Tid::new(sys::own_tid()))
}

/// The value of Yama's `ptrace_scope`, 0 without Yama.
fn yama_scope() -> u32 {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    scope
        .ok()
        .and_then(|scope| scope.trim().parse().ok())
        .unwrap_or(0)
}

fn has_ptrace_capability() -> bool {
    const CAP_SYS_PTRACE: u64 = 1 << 19;
    let own = Status::of(Tid::new(sys::own_tid()));
    own.and_then(|own| own.bits("CapEff"))
        .is_some_and(|bits| bits & CAP_SYS_PTRACE != 0)
}

/// What the program is if not a 64-bit x86 one, by its ELF header (elf(5)). One that we may not
/// look at passes for now: attaching will say why.
fn foreign(process: Tid) -> Option<String> {
    let mut header = [0; 20];
    File::open(format!("/proc/{process}/exe"))
        .ok()?
        .read_exact(&mut header)
        .ok()?;
    foreign_header(&header)
}

fn foreign_header(header: &[u8; 20]) -> Option<String> {
    const ELFCLASS32: u8 = 1;
    const EM_386: u16 = 3;
    const EM_X86_64: u16 = 62;
    let class = header[4];
    match u16::from_le_bytes([header[18], header[19]]) {
        EM_X86_64 if class != ELFCLASS32 => None,
        EM_X86_64 => Some("an x32 program".to_owned()),
        EM_386 => Some("a 32-bit program".to_owned()),
        machine => Some(format!(
            "a program for another processor (ELF machine {machine})"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(class: u8, machine: u8) -> [u8; 20] {
        let mut header = [0; 20];
        (header[4], header[18]) = (class, machine);
        header
    }

    #[test]
    fn only_64_bit_x86_is_ours() {
        assert_eq!(foreign_header(&header(2, 62)), None);
        for (class, machine, found) in [(1, 62, "x32"), (1, 3, "32-bit"), (2, 183, "machine 183")] {
            let text = foreign_header(&header(class, machine)).unwrap();
            assert!(text.contains(found), "{text}");
        }
    }

    #[test]
    fn every_denial_is_one_line_with_a_remedy() {
        let all = [
            Denied::Yama { scope: 1 },
            Denied::Yama { scope: 2 },
            Denied::Yama { scope: 3 },
            Denied::OtherUser { uid: 7 },
            Denied::Hidden,
            Denied::Capability,
            Denied::Undumpable,
            Denied::Policy,
        ];
        for why in all {
            let line = AttachError::Denied {
                process: Tid::new(42),
                why,
            }
            .to_string();
            assert!(
                line.starts_with("not permitted to trace process 42: "),
                "{line}"
            );
            assert!(!line.contains('\n') && !line.contains("  "), "{line}");
        }
    }
}
