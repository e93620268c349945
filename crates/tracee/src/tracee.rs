use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;

use nix::errno::Errno;
use thiserror::Error;

use crate::{Options, Registers, Signal, SignalInfo, Stop, Tid, restart, sys};

/// ptrace(2) answers only the thread that attached.
pub(crate) type OfThisThread = PhantomData<*const ()>;

/// The thread has ended while we took it for stopped, or for running.
///
/// A thread in ptrace-stop can still be killed: by SIGKILL, by exit_group(2) or execve(2) of
/// another thread. Requests on it then fail with `ESRCH`. Nothing is wrong: its end, where the
/// kernel reports one, comes from [`Tracer::wait`](crate::Tracer::wait).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("thread {tid} has ended")]
pub struct Died {
    /// The thread.
    pub tid: Tid,
}

/// Why options could not be set.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// The thread has ended.
    #[error(transparent)]
    Died(#[from] Died),
    /// The kernel does not have the option (`EINVAL`), or not for us (`EPERM`).
    #[error("the kernel refuses ptrace options for thread {tid}")]
    Refused {
        /// The thread.
        tid: Tid,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Has a thread go on: `PTRACE_CONT` or `PTRACE_SYSCALL`, with a signal.
pub(crate) type Resume = fn(i32, i32) -> Result<(), Errno>;

impl Tid {
    /// What a request on a stopped thread of ours says. It can fail in one way only: a request
    /// that is well formed, on a thread that we trace and that is stopped, gives `ESRCH` when the
    /// thread has been killed meanwhile.
    pub(crate) fn alive<T>(self, result: Result<T, Errno>) -> Result<T, Died> {
        result.map_err(|errno| {
            debug_assert_eq!(errno, Errno::ESRCH, "ptrace on stopped thread {self}");
            Died { tid: self }
        })
    }
}

/// A tracee in ptrace-stop. It stays there until one of the methods that consume this; if it is
/// dropped, until the tracer ends.
#[must_use = "the thread stays stopped"]
pub struct Stopped {
    pub(crate) tid: Tid,
    pub(crate) stop: Stop,
    /// Set when the thread has left the group-stop of its process for us, and has to go back.
    pub(crate) rejoin: bool,
    /// As read since it stopped, or was last changed by us: nobody else changes them.
    registers: Cell<Option<Box<Registers>>>,
    of_this_thread: OfThisThread,
}

/// A tracee that runs, or listens in a group-stop, or has ended without our knowing yet.
pub struct Running {
    tid: Tid,
    of_this_thread: OfThisThread,
}

impl Stopped {
    pub(crate) fn new(tid: Tid, stop: Stop) -> Stopped {
        Stopped {
            tid,
            stop,
            rejoin: false,
            registers: Cell::new(None),
            of_this_thread: PhantomData,
        }
    }

    /// The thread.
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// Why it stopped.
    pub fn stop(&self) -> Stop {
        self.stop
    }

    /// Its registers. The kernel is asked once a stop, and again after a change.
    ///
    /// # Errors
    /// [`Died`].
    pub fn registers(&self) -> Result<Registers, Died> {
        let known = match self.registers.take() {
            Some(known) => known,
            None => {
                let found = self.tid.alive(sys::registers(self.tid.get()));
                Box::new(found?)
            }
        };
        let registers = *known;
        self.registers.set(Some(known));
        Ok(registers)
    }

    /// It is about to run, and will stop again as this one.
    pub(crate) fn forget_registers(&self) {
        self.registers.set(None);
    }

    /// Changes its registers. They must have been read from a thread of the same program: the
    /// kernel refuses impossible segments.
    ///
    /// # Errors
    /// [`Died`].
    pub fn set_registers(&self, registers: &Registers) -> Result<(), Died> {
        // The kernel keeps some flags as they are.
        self.forget_registers();
        self.tid
            .alive(sys::set_registers(self.tid.get(), registers))
    }

    /// The signal that it stopped for. Of use in a signal-delivery-stop only; the kernel makes
    /// something up for the others, and has nothing for a group-stop.
    ///
    /// # Errors
    /// [`Died`].
    pub fn signal_info(&self) -> Result<SignalInfo, Died> {
        self.tid
            .alive(sys::signal_info(self.tid.get()))
            .map(SignalInfo)
    }

    /// Whether `signal` waits for this thread alone: one that the thread itself has raised, or that
    /// tgkill(2) has sent it.
    ///
    /// # Errors
    /// [`Died`].
    pub fn has_pending(&self, signal: Signal) -> Result<bool, Died> {
        self.tid
            .alive(sys::has_pending(self.tid.get(), signal.number()))
    }

    /// Its signal mask, as the kernel has it: signal N is bit N - 1.
    ///
    /// # Errors
    /// [`Died`].
    pub fn signal_mask(&self) -> Result<u64, Died> {
        self.tid.alive(sys::signal_mask(self.tid.get()))
    }

    /// Changes its signal mask.
    ///
    /// # Errors
    /// [`Died`].
    pub fn set_signal_mask(&self, mask: u64) -> Result<(), Died> {
        self.tid.alive(sys::set_signal_mask(self.tid.get(), mask))
    }

    /// Sends it the signal that it stopped for once more, to wait there until it is no longer
    /// blocked. It looks as if we had sent it.
    ///
    /// # Errors
    /// [`Died`].
    pub fn send_again(&self) -> Result<(), Died> {
        let Stop::Signal(signal) = self.stop else {
            return Ok(());
        };
        let process = self.tid.process().unwrap_or(self.tid);
        let sent = sys::send(process.get(), self.tid.get(), signal.number());
        self.tid.alive(sent)
    }

    /// Lets it go on as if it were not traced: a signal is delivered as it came, a group-stop
    /// lasts until SIGCONT, and a system call that only our stop has interrupted is made again.
    ///
    /// # Errors
    /// [`Died`].
    pub fn resume(self) -> Result<Running, Died> {
        self.resume_by(sys::resume)
    }

    /// As [`Stopped::resume`], to the next end of a system call: [`Stop::SystemCall`], unless
    /// another stop comes first. The kernel forgets that should we die.
    ///
    /// # Errors
    /// [`Died`].
    pub fn resume_to_call(self) -> Result<Running, Died> {
        self.resume_by(sys::resume_to_call)
    }

    fn resume_by(self, how: Resume) -> Result<Running, Died> {
        if self.rejoin {
            // The interrupt is taken before any instruction, and becomes a group-stop if the
            // process is still stopped.
            self.tid.alive(sys::interrupt(self.tid.get()))?;
        } else if matches!(self.stop, Stop::Group(_)) {
            return self.listen();
        }
        self.repair()?;
        let signal = self.stop.pending();
        self.go_on(how, signal)
    }

    /// Lets it go on without the signal that it stopped for: for the SIGTRAP of an int3 of ours.
    /// One system call, unless it has to go back into a group-stop.
    ///
    /// # Errors
    /// [`Died`].
    pub fn resume_without(self) -> Result<Running, Died> {
        if self.rejoin {
            self.tid.alive(sys::interrupt(self.tid.get()))?; // as in `resume`
        }
        self.go_on(sys::resume, 0)
    }

    /// `PTRACE_LISTEN`: stays in its group-stop, until SIGCONT or an interrupt makes it report
    /// again. For [`Stop::Group`] only.
    ///
    /// # Errors
    /// [`Died`].
    pub fn listen(self) -> Result<Running, Died> {
        self.tid.alive(sys::listen(self.tid.get()))?;
        Ok(Running::new(self.tid))
    }

    /// No longer traces it. It goes on as by [`Stopped::resume`]; what it was interrupted for and
    /// has not reported is forgotten.
    ///
    /// # Errors
    /// [`Died`].
    pub fn detach(self) -> Result<(), Died> {
        self.repair()?;
        // The kernel itself puts it back into the group-stop of its process.
        self.tid
            .alive(sys::detach(self.tid.get(), self.stop.pending()))
    }

    /// No longer traces it, and drops the signal that it stopped for: the SIGTRAP of an int3 of
    /// ours, from which the caller has moved it away.
    ///
    /// # Errors
    /// [`Died`].
    pub fn detach_without(self) -> Result<(), Died> {
        self.tid.alive(sys::detach(self.tid.get(), 0))
    }

    pub(crate) fn set_options(&self, options: Options) -> Result<(), OptionsError> {
        let tid = self.tid;
        sys::set_options(tid.get(), options.bits()).map_err(|errno| match errno {
            Errno::ESRCH => OptionsError::Died(Died { tid }),
            _ => OptionsError::Refused {
                tid,
                source: errno.into(),
            },
        })
    }

    fn repair(&self) -> Result<(), Died> {
        match self.stop {
            // At an interrupt it has been done.
            Stop::Signal(_) => restart::restart_interrupted(self),
            _ => Ok(()),
        }
    }

    fn go_on(self, how: Resume, signal: i32) -> Result<Running, Died> {
        self.tid.alive(how(self.tid.get(), signal))?;
        Ok(Running::new(self.tid))
    }
}

impl Running {
    pub(crate) fn new(tid: Tid) -> Running {
        Running {
            tid,
            of_this_thread: PhantomData,
        }
    }

    /// The thread.
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// Has it stop soon, without a signal that it could see.
    ///
    /// At least one stop follows. It is a [`Stop::Interrupt`] ([`Stop::Group`] in a group-stop)
    /// unless another comes first. That other one takes the place of the interrupt if it began
    /// after this call; if it had begun before, and was only not waited for yet, a
    /// `Stop::Interrupt` follows as well. The two cases look the same, so: resume a thread that
    /// reports an interrupt nobody waits for.
    ///
    /// # Errors
    /// [`Died`].
    pub fn interrupt(&self) -> Result<(), Died> {
        self.tid.alive(sys::interrupt(self.tid.get()))
    }
}

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stopped({} at {:?})", self.tid, self.stop)
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({})", self.tid)
    }
}
