use std::fmt;
use std::io;

use leaktap_memory::Addr;
use nix::errno::Errno;

use crate::{Signal, procfs, sys};

/// A thread's id in our pid namespace. A process is named by the id of its leader.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tid(i32);

/// What is done with a SIGTRAP that a program is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trapping {
    /// The program dies.
    Default,
    /// Nothing.
    Ignored,
    /// A handler is called.
    Caught,
}

/// `Seccomp` of proc_pid_status(5): which system calls the kernel lets a thread make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeccompMode {
    /// All of them.
    Disabled,
    /// read, write, _exit and sigreturn only.
    Strict,
    /// What its filters say; one that they forbid may kill it.
    Filter,
}

impl Tid {
    /// The thread `id`.
    pub const fn new(id: i32) -> Tid {
        Tid(id)
    }

    /// The id as a number.
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The process that this thread belongs to (`Tgid`), unless it is gone.
    ///
    /// A thread that [`Stop::Clone`](crate::Stop::Clone) names may be a process of its own:
    /// clone(2) without `CLONE_THREAD` is reported so, too.
    pub fn process(self) -> Option<Tid> {
        procfs::Status::of(self)?.number("Tgid").map(Tid)
    }

    /// The process that has made this process, or has taken it over (`PPid`), unless it is gone.
    pub fn parent(self) -> Option<Tid> {
        procfs::Status::of(self)?.number("PPid").map(Tid)
    }

    /// The id as its own pid namespace has it: what getpid(2) answers there.
    pub fn in_its_namespace(self) -> i32 {
        let innermost = procfs::Status::of(self).and_then(|status| status.last_number("NSpid"));
        innermost.unwrap_or(self.0)
    }

    /// A thread of this process that has not ended, for what /proc does not tell of one that has:
    /// itself, as long as it lives.
    pub fn living_thread(self) -> Tid {
        procfs::living_thread(self)
    }

    /// The threads of this process, in the order of their ids.
    ///
    /// # Errors
    /// As for readdir(3).
    pub fn threads(self) -> io::Result<Vec<Tid>> {
        procfs::threads(self)
    }

    /// The letter of its state, by proc_pid_stat(5): R, S, D, T, t, Z, X. Nothing of one that is
    /// gone.
    ///
    /// # Errors
    /// As for open(2) and read(2).
    pub fn state(self) -> io::Result<Option<char>> {
        procfs::state(self)
    }

    /// When it began, in clock ticks since the machine did: by that it is told from a later thread
    /// of the same id. Nothing of one that is gone.
    pub fn start_time(self) -> Option<u64> {
        procfs::start_time(self)
    }

    /// Whether it is a thread of `process`. Without a look at /proc.
    pub fn is_of(self, process: Tid) -> bool {
        // Not sent: only checked, and whose it is first.
        sys::send(process.0, self.0, 0) != Err(Errno::ESRCH)
    }

    /// Kilobytes of its process's memory that are locked (mlock(2)).
    pub fn locked_kilobytes(self) -> Option<i32> {
        procfs::Status::of(self.living_thread())?.number("VmLck")
    }

    /// Whether the addresses of its process are limited (RLIMIT_AS, getrlimit(2)): what is reserved
    /// then lacks elsewhere.
    pub fn has_few_addresses(self) -> bool {
        procfs::has_few_addresses(self)
    }

    /// Most bytes that the stack of its process may grow to (RLIMIT_STACK), if it is limited.
    pub fn stack_limit(self) -> Option<u64> {
        procfs::stack_limit(self)
    }

    /// Whether return addresses are checked against a shadow stack (CET; `x86_Thread_features`).
    pub fn has_shadow_stack(self) -> bool {
        let status = procfs::Status::of(self.living_thread());
        status.is_some_and(|status| status.has_shadow_stack())
    }

    /// Whether a seccomp filter watches any thread of the process.
    pub fn has_filtered_thread(self) -> bool {
        let threads = procfs::threads(self).unwrap_or_default();
        threads.into_iter().any(Tid::is_filtered)
    }

    /// Where the stack pointer and the instruction pointer of a thread are that sleeps in the
    /// kernel: /proc/TID/syscall, proc_pid_syscall(5). Nothing of one that is awake, or gone.
    pub fn asleep_at(self) -> Option<(Addr, Addr)> {
        procfs::asleep_at(self)
    }

    /// What the thread does with SIGTRAP, unless it is gone: `SigIgn` and `SigCgt`.
    pub fn on_sigtrap(self) -> Option<Trapping> {
        let status = procfs::Status::of(self)?;
        let is_in = |set: &str| Some(status.bits(set)? & (1 << (Signal::TRAP.number() - 1)) != 0);
        match (is_in("SigIgn")?, is_in("SigCgt")?) {
            (true, _) => Some(Trapping::Ignored),
            (_, true) => Some(Trapping::Caught),
            _ => Some(Trapping::Default),
        }
    }

    /// Whether the program has a handler for `signal`: `SigCgt`. True of a thread that is gone.
    pub fn catches(self, signal: Signal) -> bool {
        let status = procfs::Status::of(self);
        let caught = status.and_then(|status| status.bits("SigCgt"));
        caught.is_none_or(|caught| caught & (1 << (signal.number() - 1)) != 0)
    }

    /// The signals that the thread blocks, unless it is gone: `SigBlk`.
    pub fn blocked_signals(self) -> Option<u64> {
        procfs::Status::of(self)?.bits("SigBlk")
    }

    /// Whether a seccomp filter watches the thread.
    pub fn is_filtered(self) -> bool {
        self.seccomp()
            .is_some_and(|mode| mode != SeccompMode::Disabled)
    }

    /// The thread's seccomp mode, unless it is gone.
    pub fn seccomp(self) -> Option<SeccompMode> {
        procfs::Status::of(self)?.seccomp()
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
