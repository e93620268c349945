use std::io;
use std::time::Instant;

use leaktap_arch::RED_ZONE;
use leaktap_arch::system_calls::{INSTRUCTION, RETURNING, SIGRETURN};
use leaktap_memory::Addr;
use thiserror::Error;

use crate::procfs::Status;
use crate::signal::FORCED;
use crate::{
    Died, OptionsError, Registers, SeccompMode, SignalInfo, Stop, Stopped, Tid, Tracer, sys,
};

mod moving;
mod way_back;

use way_back::{Covered, WayBack};

/// Results from here on are errors, as the C library sees them.
const FIRST_ERROR: i64 = -4095;

/// `-ERESTARTSYS` to `-ERESTART_RESTARTBLOCK`: interrupted, to be made again.
const RESTART: std::ops::RangeInclusive<i64> = -516..=-512;

/// Where `struct rseq` of linux/rseq.h keeps the descriptor of the critical section it is in.
const RSEQ_CS: u64 = 8;

/// Why a system call was not made, or failed.
#[derive(Debug, Error)]
pub enum CallError {
    /// The thread has ended.
    #[error(transparent)]
    Died(#[from] Died),
    /// The thread is in a stop that leads to no instruction of the program soon: a parent in
    /// vfork(2), an exit.
    #[error("thread {tid} makes no system calls at {stop:?}")]
    Unfit {
        /// The thread.
        tid: Tid,
        /// Where it stands.
        stop: Stop,
    },
    /// A seccomp filter watches the thread and we may not suspend it: nothing was tried.
    #[error("the seccomp filter of thread {tid} cannot be suspended: that takes CAP_SYS_ADMIN")]
    Filtered {
        /// The thread.
        tid: Tid,
    },
    /// The thread does not run, and is where it was: its cgroup is frozen, or it gets no processor.
    #[error("thread {tid} does not run: it is frozen, or gets no processor")]
    Stuck {
        /// The thread.
        tid: Tid,
    },
    /// There is no `syscall` instruction to be run at that address.
    #[error("thread {tid} finds no system call instruction at {at}")]
    NoInstruction {
        /// The thread.
        tid: Tid,
        /// Where the instruction should be.
        at: Addr,
    },
    /// The system call's own error.
    #[error("system call {number} in thread {tid} failed")]
    Failed {
        /// The thread.
        tid: Tid,
        /// Which system call.
        number: i64,
        /// Its error.
        source: io::Error,
    },
}

/// Code of the target by which system calls are made in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallCode {
    /// A `syscall` instruction.
    pub syscall: Addr,
    /// Code that makes rt_sigreturn(2). Where there is some, `ret` follows the `syscall`.
    pub sigreturn: Option<Addr>,
}

/// System calls made by a stopped thread of the target, as if by itself.
///
/// The thread runs a `syscall` instruction of its own code, from syscall-stop to syscall-stop. All
/// signals wait meanwhile. At the end the thread is as it was: registers, signal mask, the signal
/// it stopped for with its `siginfo_t`, a system call in progress that is to be restarted, a
/// restartable sequence (rseq(2)) to be aborted, a group-stop.
///
/// Should we die meanwhile, the thread gets there by itself, if it is on its own stack and there is
/// the code for it ([`CallCode::sigreturn`]): a signal frame lies below what it uses of its stack.
/// A system call that was interrupted is made again then, its timeout afresh.
///
/// Seccomp filters of the thread, which might kill it, are suspended for these calls alone.
///
/// A thread that does not get to its call within a second is put back: [`CallError::Stuck`]. One
/// that is in the kernel, in its call, is waited for: nothing could put it back.
///
/// For calls that do not block. Put the thread back by [`RemoteCalls::finish`], or by dropping.
#[derive(Debug)]
pub struct RemoteCalls<'a> {
    tracer: &'a mut Tracer,
    stopped: &'a mut Stopped,
    code: CallCode,
    /// No shadow stack is in its way.
    may_return: bool,
    /// The thread's filters are, and have to be put in force again.
    suspended: bool,
    /// Before the first call.
    before: Option<Before>,
    /// A signal that somebody has sent meanwhile, of those that are open: `FORCED`, and, at the
    /// end, our own.
    sent: Option<SignalInfo>,
    stands: Stands,
}

/// Where the thread stands in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stands {
    /// Where it was found.
    Unmoved,
    /// At the end of a call made for us, where the kernel no longer restarts another one.
    InCall,
    /// In a signal-delivery-stop.
    AtSignal,
    /// In an event-stop on its way back to the program.
    Interrupted,
}

#[derive(Debug)]
struct Before {
    registers: Registers,
    mask: u64,
    info: Option<SignalInfo>,
    /// Address and value of the word at `RSEQ_CS`, if not zero.
    sequence: Option<(u64, u64)>,
    /// How the thread gets back without us.
    way_back: Option<WayBack>,
    /// What lay where that does.
    covered: Option<Covered>,
}

/// The offset of the first `syscall` instruction (0f 05) among `code`, which should be that of a
/// C library or the vdso.
pub fn find_syscall(code: &[u8]) -> Option<usize> {
    find(code, &INSTRUCTION)
}

/// As [`find_syscall`], for one that `ret` follows.
pub fn find_syscall_return(code: &[u8]) -> Option<usize> {
    find(code, &RETURNING)
}

/// The offset of the first code that makes rt_sigreturn(2).
pub fn find_sigreturn(code: &[u8]) -> Option<usize> {
    let mut forms = SIGRETURN.iter();
    forms.find_map(|form| find(code, form))
}

fn find(code: &[u8], bytes: &[u8]) -> Option<usize> {
    code.windows(bytes.len()).position(|found| found == bytes)
}

impl CallCode {
    /// For what makes no calls.
    const NONE: CallCode = CallCode {
        syscall: Addr::new(0),
        sigreturn: None,
    };
}

impl Tracer {
    /// Makes system calls in `stopped`, by `code`.
    ///
    /// In a stop inside a system call (fork, clone, exec, vfork done) the thread is first taken to
    /// that call's end, so that [`Stopped::stop`] is another one afterwards.
    ///
    /// # Errors
    /// [`CallError::Died`], [`CallError::Unfit`], [`CallError::Filtered`].
    pub fn calls<'a>(
        &'a mut self,
        stopped: &'a mut Stopped,
        code: CallCode,
    ) -> Result<RemoteCalls<'a>, CallError> {
        let mut calls = self.borrow(stopped, code)?;
        let status = Status::of(calls.stopped.tid);
        // Of a thread that has gone nothing is known, and nothing is made in it.
        calls.may_return = status.as_ref().is_some_and(|now| !now.has_shadow_stack());
        calls.suspend_filters(status.and_then(|status| status.seccomp()))?;
        Ok(calls)
    }

    fn borrow<'a>(
        &'a mut self,
        stopped: &'a mut Stopped,
        code: CallCode,
    ) -> Result<RemoteCalls<'a>, CallError> {
        let (tid, stop) = (stopped.tid, stopped.stop);
        match stop {
            Stop::Vfork(_) | Stop::Exit { .. } => return Err(CallError::Unfit { tid, stop }),
            stop if stop.is_before_restart() => {}
            _ => self.swallow(stopped)?,
        }
        Ok(RemoteCalls {
            tracer: self,
            stopped,
            code,
            may_return: false,
            suspended: false,
            before: None,
            sent: None,
            stands: Stands::Unmoved,
        })
    }
}

impl Tracer {
    /// Takes a thread to its next stop on its way back to the program, where it runs no instruction
    /// of that: to an event-stop, if no other signal comes first. The signal that it stands at is
    /// not delivered, and nobody need know of that any longer.
    ///
    /// # Errors
    /// [`Died`].
    pub fn swallow(&mut self, stopped: &mut Stopped) -> Result<(), Died> {
        let tid = stopped.tid;
        tid.alive(sys::interrupt(tid.get()))?;
        self.run_to_next_stop(stopped)
    }

    /// Takes a thread out of the group-stop of its process to the signal that waits for it, before
    /// which it runs no instruction. When it is let go, it goes back.
    ///
    /// # Errors
    /// [`Died`].
    pub fn take_signal(&mut self, stopped: &mut Stopped) -> Result<(), Died> {
        self.run_to_next_stop(stopped)?;
        stopped.rejoin = true;
        Ok(())
    }

    fn run_to_next_stop(&mut self, stopped: &mut Stopped) -> Result<(), Died> {
        let tid = stopped.tid;
        tid.alive(sys::resume(tid.get(), 0))?;
        *stopped = self.wait_for(tid)?;
        Ok(())
    }

    /// Lets `stopped` run instruction by instruction, and no signal reach it, to one that `is_out`
    /// is true of. It has stopped as before then, and stands there. False if it did not get there
    /// before the deadline.
    ///
    /// # Errors
    /// [`CallError::Died`], [`CallError::Unfit`], [`CallError::NoInstruction`] if it faults there,
    /// [`CallError::Stuck`] if it does not run.
    pub fn step_out(
        &mut self,
        stopped: &mut Stopped,
        is_out: &dyn Fn(Addr) -> bool,
        deadline: Instant,
    ) -> Result<bool, CallError> {
        let mut steps = self.borrow(stopped, CallCode::NONE)?;
        let is_out = steps.step_out(is_out, deadline)?;
        steps.finish()?;
        Ok(is_out)
    }
}

impl RemoteCalls<'_> {
    /// So many bytes below the red zone of a thread's stack are left to the caller:
    /// [`RemoteCalls::scratch`].
    pub const SCRATCH: u64 = 256;

    /// Makes the system call `number` (`SYS_*`) and returns its result.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call(&mut self, number: i64, arguments: [u64; 6]) -> Result<u64, CallError> {
        let tid = self.stopped.tid;
        loop {
            self.make(number, arguments)?;
            let result = self.stopped.registers()?.result();
            match result.cast_signed() {
                again if RESTART.contains(&again) => {}
                error @ FIRST_ERROR..0 => {
                    // Within 1 to 4095.
                    let source = io::Error::from_raw_os_error(-error as i32);
                    return Err(CallError::Failed {
                        tid,
                        number,
                        source,
                    });
                }
                _ => return Ok(result),
            }
        }
    }

    /// Whether the thread will get back by itself should we die.
    ///
    /// # Errors
    /// [`Died`].
    pub fn has_way_back(&mut self) -> Result<bool, Died> {
        let (_, way_back) = self.begin()?;
        Ok(way_back.is_some())
    }

    /// Where they begin. They may be part of a stack that the thread has left for a while: what was
    /// there is to be put back.
    ///
    /// # Errors
    /// [`Died`].
    pub fn scratch(&mut self) -> Result<Addr, Died> {
        let (registers, _) = self.begin()?;
        let below = RED_ZONE + RemoteCalls::SCRATCH;
        Ok(registers.sp().wrapping_offset(-below.cast_signed()))
    }

    /// Puts the thread back to where it was. Dropping does the same, without a word if it died.
    ///
    /// # Errors
    /// [`Died`].
    pub fn finish(mut self) -> Result<(), Died> {
        self.restore()
    }

    /// Elsewhere the thread would run on, to whatever call comes.
    fn check_instruction(&self) -> Result<(), CallError> {
        let (tid, at) = (self.stopped.tid, self.code.syscall);
        match sys::peek(tid.get(), at.get()) {
            Ok(word) if !word.to_le_bytes().starts_with(&INSTRUCTION) => {
                Err(CallError::NoInstruction { tid, at })
            }
            // What cannot be read cannot be run, or may only not be read by us.
            _ => Ok(()),
        }
    }

    fn suspend_filters(&mut self, mode: Option<SeccompMode>) -> Result<(), CallError> {
        let tid = self.stopped.tid;
        if mode == Some(SeccompMode::Disabled) {
            return Ok(());
        }
        let suspending = self.tracer.options_of(tid).suspend_seccomp();
        match self.stopped.set_options(suspending) {
            Ok(()) => {
                self.suspended = true;
                Ok(())
            }
            Err(OptionsError::Died(died)) => Err(died.into()),
            Err(OptionsError::Refused { .. }) => Err(CallError::Filtered { tid }),
        }
    }

    /// Saves, once, what calls change, and lays the way back, if there is one. Returns both.
    fn begin(&mut self) -> Result<(Registers, Option<WayBack>), Died> {
        if let Some(before) = &self.before {
            return Ok((before.registers, before.way_back));
        }
        let tid = self.stopped.tid;
        let info = match self.stopped.stop {
            Stop::Signal(_) => Some(self.stopped.signal_info()?),
            _ => None,
        };
        let mut before = Before {
            registers: self.stopped.registers()?,
            mask: tid.alive(sys::signal_mask(tid.get()))?,
            info,
            sequence: critical_section(tid),
            way_back: None,
            covered: None,
        };
        if self.may_return {
            (before.way_back, before.covered) = WayBack::lay(tid, self.code, &before).unzip();
        }
        let found = (before.registers, before.way_back);
        self.before = Some(before);
        Ok(found)
    }

    /// All signals wait from now on.
    fn block_signals(&self) -> Result<(), Died> {
        let tid = self.stopped.tid;
        tid.alive(sys::set_signal_mask(tid.get(), all_but_forced()))
    }
}

impl Drop for RemoteCalls<'_> {
    fn drop(&mut self) {
        // One that died needs nothing put back.
        let _ = self.restore();
    }
}

/// The kernel's signal set with every signal in it but `FORCED`.
fn all_but_forced() -> u64 {
    FORCED
        .iter()
        .fold(!0, |mask, signal| mask & !(1 << (signal - 1)))
}

/// The restartable sequence that the thread is in. The kernel forgets it when it sees the thread
/// elsewhere, and would then not abort it; librseq and tcmalloc rely on that.
fn critical_section(tid: Tid) -> Option<(u64, u64)> {
    // Before Linux 5.13 nobody can tell.
    let area = sys::rseq_configuration(tid.get()).ok()?.area;
    let at = area.checked_add(RSEQ_CS).filter(|_| area != 0)?;
    let section = sys::peek(tid.get(), at).ok()?;
    (section != 0).then_some((at, section))
}
