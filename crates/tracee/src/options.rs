use nix::libc;

use crate::Tid;
use crate::procfs::Status;

/// `PTRACE_O_*` of ptrace(2): which events stop a tracee. New threads and children inherit them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Options(i32);

impl Options {
    /// New threads, children and programs: fork, vfork and its end, clone, exec.
    pub const fn follow() -> Options {
        Options(
            libc::PTRACE_O_TRACEFORK
                | libc::PTRACE_O_TRACEVFORK
                | libc::PTRACE_O_TRACEVFORKDONE
                | libc::PTRACE_O_TRACECLONE
                | libc::PTRACE_O_TRACEEXEC,
        )
    }

    /// New programs only.
    pub const fn only_exec() -> Options {
        Options(libc::PTRACE_O_TRACEEXEC)
    }

    /// Also a stop of a thread about to end, its registers still readable.
    pub const fn exit_events(self) -> Options {
        Options(self.0 | libc::PTRACE_O_TRACEEXIT)
    }

    /// The tracees are killed when the tracer ends, however it does: for launched programs only.
    pub const fn kill_on_exit(self) -> Options {
        Options(self.0 | libc::PTRACE_O_EXITKILL)
    }

    /// The tracee's seccomp filters are not asked while it is traced so: see
    /// [`may_suspend_seccomp`].
    pub(crate) const fn suspend_seccomp(self) -> Options {
        Options(self.0 | libc::PTRACE_O_SUSPEND_SECCOMP)
    }

    /// With `PTRACE_O_TRACESYSGOOD`: stops at system calls are told from SIGTRAP.
    pub(crate) const fn bits(self) -> i32 {
        self.0 | libc::PTRACE_O_TRACESYSGOOD
    }
}

/// Whether we may suspend a tracee's filters, as far as /proc tells: that takes `CAP_SYS_ADMIN`,
/// and no filters of our own.
pub fn may_suspend_seccomp() -> bool {
    /// Of linux/capability.h.
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let own = Status::of(Tid::new(std::process::id().cast_signed()));
    own.is_some_and(|own| {
        let capable = own.bits("CapEff").unwrap_or(0) & CAP_SYS_ADMIN != 0;
        capable && own.number("Seccomp") == Some(0)
    })
}
