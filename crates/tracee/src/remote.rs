use std::io;
use std::ops::Range;
use std::time::Instant;

use leaktap_memory::Addr;
use nix::errno::Errno;
use thiserror::Error;

use crate::signal::FORCED;
use crate::{
    Died, OptionsError, Registers, SeccompMode, Signal, SignalInfo, Stop, Stopped, Tid, Tracer, sys,
};

/// The instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

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
    /// There is no `syscall` instruction to be run at that address.
    #[error("thread {tid} gets {signal} instead of a system call at {at}")]
    NoInstruction {
        /// The thread.
        tid: Tid,
        /// The signal.
        signal: Signal,
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

/// System calls made by a stopped thread of the target, as if by itself.
///
/// The thread runs a `syscall` instruction of its own code, single-stepped; nothing is written
/// into the process. All signals wait meanwhile. At the end the thread is as it was: registers,
/// signal mask, the signal it stopped for with its `siginfo_t`, a system call in progress that is
/// to be restarted, a restartable sequence (rseq(2)) to be aborted, a group-stop. A handler for
/// SIGTRAP survives; SIGTRAP ignored by the program does not stay ignored, as with every step.
///
/// Seccomp filters of the thread, which might kill it, are suspended for these calls alone.
///
/// For calls that do not block. Put the thread back by [`RemoteCalls::finish`], or by dropping.
#[derive(Debug)]
pub struct RemoteCalls<'a> {
    tracer: &'a mut Tracer,
    stopped: &'a mut Stopped,
    at: Addr,
    /// The thread's filters are, and have to be put in force again.
    suspended: bool,
    /// Before the first call.
    before: Option<Before>,
    /// A signal of `FORCED` that somebody has sent meanwhile.
    sent: Option<SignalInfo>,
}

#[derive(Debug)]
struct Before {
    registers: Registers,
    mask: u64,
    info: Option<SignalInfo>,
    /// Address and value of the word at `RSEQ_CS`, if not zero.
    sequence: Option<(u64, u64)>,
}

/// The offset of the first `syscall` instruction (0f 05) among `code`, which should be that of a
/// C library or the vdso.
pub fn find_syscall(code: &[u8]) -> Option<usize> {
    code.windows(SYSCALL.len())
        .position(|bytes| bytes == SYSCALL)
}

impl Tracer {
    /// Makes system calls in `stopped`, by the `syscall` instruction at `at`.
    ///
    /// In a stop inside a system call (fork, clone, exec, vfork done) the thread is first taken to
    /// that call's end, so that [`Stopped::stop`] is another one afterwards.
    ///
    /// # Errors
    /// [`CallError::Died`], [`CallError::Unfit`], [`CallError::Filtered`].
    pub fn calls<'a>(
        &'a mut self,
        stopped: &'a mut Stopped,
        at: Addr,
    ) -> Result<RemoteCalls<'a>, CallError> {
        let mut calls = self.borrow(stopped, at)?;
        calls.suspend_filters()?;
        Ok(calls)
    }

    fn borrow<'a>(
        &'a mut self,
        stopped: &'a mut Stopped,
        at: Addr,
    ) -> Result<RemoteCalls<'a>, CallError> {
        let (tid, stop) = (stopped.tid, stopped.stop);
        match stop {
            Stop::Vfork(_) | Stop::Exit { .. } => return Err(CallError::Unfit { tid, stop }),
            stop if stop.is_before_restart() => {}
            _ => {
                tid.alive(sys::interrupt(tid.get()))?;
                tid.alive(sys::resume(tid.get(), 0))?;
                *stopped = self.wait_for(tid)?;
            }
        }
        Ok(RemoteCalls {
            tracer: self,
            stopped,
            at,
            suspended: false,
            before: None,
            sent: None,
        })
    }
}

impl Tracer {
    /// Lets `stopped` run, and no signal reach it, until it gets to an int3 somewhere: it stands
    /// there then, not behind it, and as it has stopped before. For code that is known to get there.
    ///
    /// # Errors
    /// [`CallError::Died`], [`CallError::Unfit`], [`CallError::NoInstruction`] if it faults on its way.
    pub fn run_to_int3(&mut self, stopped: &mut Stopped) -> Result<(), CallError> {
        let mut run = self.borrow(stopped, Addr::new(0))?;
        run.run()?;
        Ok(run.finish()?)
    }
}

impl Tracer {
    /// Lets `stopped` run instruction by instruction, and no signal reach it, as long as it is in `code`. It has stopped as
    /// before then, and is somewhere else. False if it was still there at the deadline.
    ///
    /// # Errors
    /// [`CallError::Died`], [`CallError::Unfit`], [`CallError::NoInstruction`] if it faults there.
    pub fn step_out(
        &mut self,
        stopped: &mut Stopped,
        code: &Range<Addr>,
        deadline: Instant,
    ) -> Result<bool, CallError> {
        let mut steps = self.borrow(stopped, Addr::new(0))?;
        let is_out = steps.step_out(code, deadline)?;
        steps.finish()?;
        Ok(is_out)
    }
}

impl RemoteCalls<'_> {
    /// Makes the system call `number` (`SYS_*`) and returns its result.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call(&mut self, number: i64, arguments: [u64; 6]) -> Result<u64, CallError> {
        let tid = self.stopped.tid;
        loop {
            let mut registers = self.begin()?;
            registers.set_call(number, arguments);
            registers.set_ip(self.at);
            // Else the kernel would first restart the call that it interrupted.
            registers.set_system_call(None);
            self.stopped.set_registers(&registers)?;
            self.step()?;
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

    /// Puts the thread back to where it was. Dropping does the same, without a word if it died.
    ///
    /// # Errors
    /// [`Died`].
    pub fn finish(mut self) -> Result<(), Died> {
        self.restore()
    }

    fn suspend_filters(&mut self) -> Result<(), CallError> {
        let tid = self.stopped.tid;
        if tid.seccomp() == Some(SeccompMode::Disabled) {
            return Ok(());
        }
        let suspending = self.tracer.options.suspend_seccomp();
        match self.stopped.set_options(suspending) {
            Ok(()) => {
                self.suspended = true;
                Ok(())
            }
            Err(OptionsError::Died(died)) => Err(died.into()),
            Err(OptionsError::Refused { .. }) => Err(CallError::Filtered { tid }),
        }
    }

    /// Saves, once, what calls change. Returns the registers saved.
    fn begin(&mut self) -> Result<Registers, Died> {
        if let Some(before) = &self.before {
            return Ok(before.registers);
        }
        let tid = self.stopped.tid;
        let info = match self.stopped.stop {
            Stop::Signal(_) => Some(self.stopped.signal_info()?),
            _ => None,
        };
        let registers = self.stopped.registers()?;
        let mask = tid.alive(sys::signal_mask(tid.get()))?;
        let sequence = critical_section(tid);
        tid.alive(sys::set_signal_mask(tid.get(), all_but_forced()))?;
        self.before = Some(Before {
            registers,
            mask,
            info,
            sequence,
        });
        Ok(registers)
    }

    /// One instruction.
    fn step(&mut self) -> Result<(), CallError> {
        let end = self.at.wrapping_offset(SYSCALL.len() as i64);
        self.advance(sys::step, |now, _| Ok(now.registers()?.ip() == end))
    }

    /// Lets the thread run to an int3, where it will go on.
    fn run(&mut self) -> Result<(), CallError> {
        self.begin()?;
        self.advance(sys::resume, |_, info| Ok(info.is_int3()))?;
        let mut registers = self.stopped.registers()?;
        registers.set_ip(registers.ip().wrapping_offset(-1));
        if let Some(before) = &mut self.before {
            before.registers = registers;
        }
        Ok(())
    }

    /// Steps until the thread, which will go on there, is not in `code`, or it is late.
    fn step_out(&mut self, code: &Range<Addr>, deadline: Instant) -> Result<bool, CallError> {
        self.begin()?;
        loop {
            self.advance(sys::step, |_, info| Ok(info.code() > 0))?;
            let registers = self.stopped.registers()?;
            if let Some(before) = &mut self.before {
                before.registers = registers;
            }
            let is_out = !code.contains(&registers.ip());
            if is_out || Instant::now() >= deadline {
                return Ok(is_out);
            }
        }
    }

    /// Lets the thread go on by `how` to the SIGTRAP that `is_end` takes for the one, whatever else
    /// it stops for on the way.
    fn advance(
        &mut self,
        how: fn(i32, i32) -> Result<(), Errno>,
        is_end: impl Fn(&Stopped, &SignalInfo) -> Result<bool, Died>,
    ) -> Result<(), CallError> {
        let (tid, at) = (self.stopped.tid, self.at);
        let mut signal = 0;
        loop {
            tid.alive(how(tid.get(), signal))?;
            let now = self.tracer.wait_for(tid)?;
            signal = match now.stop {
                // Not to be blocked. The process is stopped now, not later; we go on.
                Stop::Signal(Signal::STOP) => Signal::STOP.number(),
                Stop::Signal(signal) => {
                    let info = now.signal_info()?;
                    if info.code() <= 0 {
                        self.sent = Some(info);
                    }
                    if signal == Signal::TRAP && is_end(&now, &info)? {
                        return Ok(());
                    }
                    if info.code() > 0 {
                        return Err(CallError::NoInstruction { tid, signal, at });
                    }
                    0
                }
                Stop::Group(_) => {
                    self.stopped.rejoin = true;
                    0
                }
                _ => 0,
            };
        }
    }

    fn restore(&mut self) -> Result<(), Died> {
        if std::mem::take(&mut self.suspended) {
            // Taking an option away is never refused.
            match self.stopped.set_options(self.tracer.options) {
                Err(OptionsError::Died(died)) => return Err(died),
                Ok(()) | Err(OptionsError::Refused { .. }) => {}
            }
        }
        let Some(before) = self.before.take() else {
            return Ok(());
        };
        let tid = self.stopped.tid;
        self.stopped.set_registers(&before.registers)?;
        if let Some((at, section)) = before.sequence {
            tid.alive(sys::poke(tid.get(), at, section))?;
        }
        tid.alive(sys::set_signal_mask(tid.get(), before.mask))?;
        if matches!(self.stopped.stop, Stop::Group(_)) {
            self.stopped.rejoin = true;
        }
        let sent = self.sent.take();
        let info = match (before.info, sent) {
            (Some(info), Some(sent)) => {
                // Two at once: the second has to be sent again, and looks as if it were ours.
                let process = tid.process().unwrap_or(tid);
                tid.alive(sys::send(process.get(), tid.get(), sent.signal().number()))?;
                Some(info)
            }
            (info, sent) => info.or(sent),
        };
        // The thread stands at the signal of the step: what it stopped for takes its place.
        if let Some(info) = info {
            tid.alive(sys::set_signal_info(tid.get(), &info.0))?;
            self.stopped.stop = Stop::Signal(info.signal());
        }
        Ok(())
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
