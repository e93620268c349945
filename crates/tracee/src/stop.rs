use nix::libc;

use crate::{Died, Signal, Tid, sys};

/// What `PTRACE_O_TRACESYSGOOD` makes of SIGTRAP in syscall-stops.
const SYSTEM_CALL: Signal = Signal::new(libc::SIGTRAP | 0x80);

/// Why a tracee has stopped, in the words of ptrace(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Signal-delivery-stop: the signal is taken from the queue, but not yet delivered. An int3 is
    /// `Signal(Signal::TRAP)`.
    Signal(Signal),
    /// Group-stop: the process was stopped by this signal, and stays so until SIGCONT.
    Group(Signal),
    /// `PTRACE_EVENT_STOP` with SIGTRAP: after an interrupt, when a group-stop has ended, and the
    /// first stop of a thread or child that is traced from its beginning.
    Interrupt,
    /// `PTRACE_EVENT_FORK`: this process is the new child, traced from its beginning. Its first
    /// stop comes by itself, perhaps before this one.
    Fork(Tid),
    /// `PTRACE_EVENT_VFORK`: as `Fork`; this thread sleeps until the child executes or ends.
    Vfork(Tid),
    /// `PTRACE_EVENT_VFORK_DONE`: the child no longer uses this process' memory.
    VforkDone(Tid),
    /// `PTRACE_EVENT_CLONE`: a new thread, or a process whose exit signal is not SIGCHLD
    /// ([`Tid::process`] tells).
    Clone(Tid),
    /// `PTRACE_EVENT_EXEC`: a new program, before its first instruction. The thread has become the
    /// leader whatever it was before; all other threads of the process are gone.
    Exec {
        /// What the thread was called before the exec.
        former: Tid,
    },
    /// Syscall-stop, of `PTRACE_SYSCALL`: before or after a system call, one that is made for us or
    /// by the program.
    SystemCall,
    /// `PTRACE_EVENT_EXIT`: about to end; runs no more code of the program.
    Exit {
        /// As from waitpid(2).
        status: i32,
    },
}

impl Stop {
    /// The stop that a wait status tells of; asks the kernel for the event's message.
    pub(crate) fn of(tid: Tid, signal: Signal, event: i32) -> Result<Stop, Died> {
        let message = || tid.alive(sys::event_message(tid.get()));
        // The messages are ids and statuses, which fit an int.
        let other = || message().map(|message| Tid::new(message as i32));
        Ok(match event {
            0 if signal == SYSTEM_CALL => Stop::SystemCall,
            0 => Stop::Signal(signal),
            libc::PTRACE_EVENT_FORK => Stop::Fork(other()?),
            libc::PTRACE_EVENT_VFORK => Stop::Vfork(other()?),
            libc::PTRACE_EVENT_VFORK_DONE => Stop::VforkDone(other()?),
            libc::PTRACE_EVENT_CLONE => Stop::Clone(other()?),
            libc::PTRACE_EVENT_EXEC => Stop::Exec { former: other()? },
            libc::PTRACE_EVENT_EXIT => Stop::Exit {
                status: message()? as i32,
            },
            sys::PTRACE_EVENT_STOP if signal != Signal::TRAP => Stop::Group(signal),
            // An event that was not asked for would be ours to let pass, too.
            _ => Stop::Interrupt,
        })
    }

    /// The signal that goes with resuming from here unchanged.
    pub(crate) fn pending(self) -> i32 {
        match self {
            Stop::Signal(signal) => signal.number(),
            _ => 0,
        }
    }

    /// True of the stops that lie on the way back to the program, where the kernel decides whether
    /// to restart a system call (`arch_do_signal_or_restart`). The events lie inside a call.
    pub(crate) fn is_before_restart(self) -> bool {
        matches!(self, Stop::Signal(_) | Stop::Group(_) | Stop::Interrupt)
    }
}
