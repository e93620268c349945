use nix::libc;

/// `PTRACE_O_*` of ptrace(2): which events stop a tracee. New threads and children inherit them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

    /// The tracee's seccomp filters are not asked while it is traced so. Needs `CAP_SYS_ADMIN` and
    /// a tracer without filters of its own.
    pub const fn suspend_seccomp(self) -> Options {
        Options(self.0 | libc::PTRACE_O_SUSPEND_SECCOMP)
    }

    pub(crate) const fn bits(self) -> i32 {
        self.0
    }
}
