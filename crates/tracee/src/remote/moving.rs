//! The thread of [`RemoteCalls`] on its way: to a call, step by step, and back to where it was.

use std::time::{Duration, Instant};

use leaktap_memory::Addr;
use nix::libc;

use super::{CallError, RemoteCalls, Stands, all_but_forced};
use crate::procfs::Status;
use crate::tracee::Resume;
use crate::{Died, OptionsError, Signal, SignalInfo, Stop, Stopped, Tid, sys};

/// How long a thread may take to its call: one instruction. Threads that the cgroup freezer holds
/// stop for us, but do not run.
const PATIENCE: Duration = Duration::from_secs(1);

/// Signals that do nothing in a program without a handler. The first is the one that is missed
/// least, and surprises least.
const HARMLESS: [Signal; 3] = [
    Signal::new(libc::SIGWINCH),
    Signal::new(libc::SIGURG),
    Signal::CHLD,
];

impl RemoteCalls<'_> {
    /// Takes the thread through a system call, to its end.
    ///
    /// On its way to the instruction it is about to return to where it was, if it has a way back,
    /// and becomes to make the call only there: whenever we die, it goes on as it should. The
    /// mask comes after the registers since the frame alone puts it back.
    pub(super) fn make(&mut self, number: i64, arguments: [u64; 6]) -> Result<(), CallError> {
        let (mut registers, way_back) = self.begin()?;
        self.check_instruction()?;
        registers.set_ip(self.code.syscall);
        registers.set_call(number, arguments);
        // Else the kernel would first restart the call that it interrupted.
        registers.set_system_call(None);
        if let Some(way_back) = way_back {
            way_back.take_at(self.code.syscall, &mut registers);
        }
        self.stopped.set_registers(&registers)?;
        self.block_signals()?;
        let is_call = |now: &Stopped| Ok(now.stop == Stop::SystemCall);
        let info = self.before.as_ref().and_then(|before| before.info);
        // Nobody could give it back its int3.
        let patience = Some(PATIENCE).filter(|_| !info.is_some_and(|info| info.is_int3()));
        self.stands = Stands::Interrupted; // if it does not get there
        self.advance(sys::resume_to_call, patience, is_call)?;
        if let Some(way_back) = way_back {
            let mut entered = self.stopped.registers()?;
            way_back.take_after(&mut entered, number, arguments);
            self.stopped.set_registers(&entered)?;
        }
        self.advance(sys::resume_to_call, None, is_call)?;
        self.stands = Stands::InCall;
        Ok(())
    }

    /// Steps until the thread is where `is_out` is true of, and will go on there, or it is late.
    pub(super) fn step_out(
        &mut self,
        is_out: &dyn Fn(Addr) -> bool,
        deadline: Instant,
    ) -> Result<bool, CallError> {
        let (registers, _) = self.begin()?;
        if is_out(registers.ip()) {
            return Ok(true);
        }
        self.block_signals()?;
        let is_step = |now: &Stopped| {
            Ok(now.stop == Stop::Signal(Signal::TRAP) && now.signal_info()?.code() > 0)
        };
        loop {
            self.stands = Stands::Interrupted;
            let stepped = self.advance(sys::step, Some(PATIENCE), is_step);
            if let Err(error @ (CallError::Died(_) | CallError::NoInstruction { .. })) = stepped {
                return Err(error);
            }
            let registers = self.stopped.registers()?;
            if let Some(before) = &mut self.before {
                before.registers = registers;
            }
            stepped?;
            self.stands = Stands::AtSignal;
            let is_out = is_out(registers.ip());
            if is_out || Instant::now() >= deadline {
                return Ok(is_out);
            }
        }
    }

    /// Lets the thread go on by `how` to the stop that `is_end` takes for the one, whatever else
    /// it stops for on the way. Interrupts one that has not got there in time.
    fn advance(
        &mut self,
        how: Resume,
        patience: Option<Duration>,
        is_end: impl Fn(&Stopped) -> Result<bool, Died>,
    ) -> Result<Stop, CallError> {
        let (tid, at) = (self.stopped.tid, self.code.syscall);
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut signal = 0;
        loop {
            self.stopped.forget_registers();
            tid.alive(how(tid.get(), signal))?;
            let (now, is_late) = self.next_stop(deadline)?;
            if is_end(&now)? {
                return Ok(now.stop);
            }
            signal = match now.stop {
                // Not to be blocked. The process is stopped now, not later; we go on.
                Stop::Signal(Signal::STOP) => Signal::STOP.number(),
                Stop::Signal(_) => {
                    let info = now.signal_info()?;
                    if info.code() > 0 {
                        self.stands = Stands::AtSignal;
                        return Err(CallError::NoInstruction { tid, at });
                    }
                    self.sent = Some(info);
                    0
                }
                // An int3 that it has hit is reported next.
                _ if is_late && !has_pending_trap(&now) => return Err(CallError::Stuck { tid }),
                Stop::Group(_) => {
                    self.stopped.rejoin = true;
                    0
                }
                _ => 0,
            };
        }
    }

    /// The thread's next stop, and whether the thread had to be interrupted for that.
    fn next_stop(&mut self, deadline: Option<Instant>) -> Result<(Stopped, bool), Died> {
        let tid = self.stopped.tid;
        if let Some(deadline) = deadline {
            if let Some(stopped) = self.tracer.wait_until(tid, deadline)? {
                return Ok((stopped, false));
            }
            tid.alive(sys::interrupt(tid.get()))?;
        }
        Ok((self.tracer.wait_for(tid)?, deadline.is_some()))
    }

    /// Puts everything back that was changed.
    pub(super) fn restore(&mut self) -> Result<(), Died> {
        if std::mem::take(&mut self.suspended) {
            // Taking an option away is never refused.
            let options = self.tracer.options_of(self.stopped.tid);
            match self.stopped.set_options(options) {
                Err(OptionsError::Died(died)) => return Err(died),
                Ok(()) | Err(OptionsError::Refused { .. }) => {}
            }
        }
        let Some(before) = self.before.take() else {
            return Ok(());
        };
        let tid = self.stopped.tid;
        if self.stands == Stands::InCall {
            self.leave_call(before.info.is_some() || self.sent.is_some())?;
        }
        // The registers come last: until then the thread is on its way back by itself.
        if let Some((at, section)) = before.sequence {
            tid.alive(sys::poke(tid.get(), at, section))?;
        }
        tid.alive(sys::set_signal_mask(tid.get(), before.mask))?;
        self.stopped.set_registers(&before.registers)?;
        if let Some(covered) = &before.covered {
            covered.uncover(tid);
        }
        if matches!(self.stopped.stop, Stop::Group(_)) {
            self.stopped.rejoin = true;
        }
        let is_undone =
            |info: &SignalInfo| info.signal().stops() && has_pending(tid, libc::SIGCONT);
        let stands_for = before.info.filter(|info| !is_undone(info));
        if before.info.is_some() && stands_for.is_none() {
            // SIGCONT has come since. The kernel would know, but for the stops after that.
            self.stopped.stop = Stop::Interrupt;
        }
        let all = [stands_for, self.sent.take()];
        self.give_back(all.into_iter().flatten())
    }

    /// Takes the thread from the end of its call to a stop before the kernel decides about signals
    /// and restarts: a signal-delivery-stop if it has to get a signal. A thread is stopped for
    /// any that is open, for such as do nothing, too: so nothing comes of it should we die.
    fn leave_call(&mut self, for_signal: bool) -> Result<(), Died> {
        let tid = self.stopped.tid;
        let own = for_signal.then(|| harmless(tid));
        match own {
            Some(own) => self.send_own(own)?,
            None => tid.alive(sys::interrupt(tid.get()))?,
        }
        let is_end = |now: &Stopped| {
            Ok(match now.stop {
                // If another one waited, ours has not been queued.
                Stop::Signal(signal) if own == Some(signal) => {
                    is_ours(&now.signal_info()?) || !now.has_pending(signal)?
                }
                Stop::Signal(_) => false,
                stop => !for_signal && stop.is_before_restart(),
            })
        };
        let end = match self.advance(sys::resume, None, is_end) {
            Ok(end) => end,
            Err(CallError::Died(died)) => return Err(died),
            // The thread runs no instruction on its way: nothing else can fail.
            Err(_) => return Ok(()),
        };
        self.stopped.rejoin |= matches!(end, Stop::Group(_));
        self.stands = match for_signal {
            true => Stands::AtSignal,
            false => Stands::Interrupted,
        };
        if for_signal {
            let info = self.stopped.signal_info()?;
            self.sent = self.sent.or(Some(info).filter(|info| !is_ours(info)));
        }
        Ok(())
    }

    /// Sends the thread a signal, which it does not block any more.
    fn send_own(&self, own: Signal) -> Result<(), Died> {
        let tid = self.stopped.tid;
        let open = all_but_forced() & !(1 << (own.number() - 1));
        tid.alive(sys::set_signal_mask(tid.get(), open))?;
        let process = tid.process().unwrap_or(tid);
        tid.alive(sys::send(process.get(), tid.get(), own.number()))
    }

    /// The first of `signals` is the one that the thread stands at, now. All others have to be
    /// sent again, and look as if they were ours; a fault is raised again by its instruction.
    fn give_back(&mut self, signals: impl Iterator<Item = SignalInfo>) -> Result<(), Died> {
        let tid = self.stopped.tid;
        let mut stands = self.stands;
        for info in signals {
            if matches!(stands, Stands::AtSignal | Stands::Unmoved) {
                tid.alive(sys::set_signal_info(tid.get(), &info.0))?;
                self.stopped.stop = Stop::Signal(info.signal());
            } else if !info.is_fault() {
                let process = tid.process().unwrap_or(tid);
                tid.alive(sys::send(process.get(), tid.get(), info.signal().number()))?;
            }
            stands = Stands::Interrupted;
        }
        Ok(())
    }
}

/// The signal by which a call of `tid` is left: best one that it does not handle, and that does not
/// wait for it already.
fn harmless(tid: Tid) -> Signal {
    let status = Status::of(tid);
    let bits = |name| status.as_ref().and_then(|status| status.bits(name));
    let is_in = |set: u64, signal: &Signal| set & (1 << (signal.number() - 1)) != 0;
    let (caught, pending) = (bits("SigCgt").unwrap_or(0), bits("SigPnd").unwrap_or(0));
    let mut free = HARMLESS.iter().filter(|signal| !is_in(pending, signal));
    let best = free.clone().find(|signal| !is_in(caught, signal));
    best.or_else(|| free.next()).copied().unwrap_or(HARMLESS[0])
}

/// True of the signal by which a call is left.
fn is_ours(info: &SignalInfo) -> bool {
    /// Of tgkill(2).
    const SI_TKILL: i32 = -6;
    info.code() == SI_TKILL
}

/// True of a thread that has raised a SIGTRAP which has not been reported.
fn has_pending_trap(stopped: &Stopped) -> bool {
    let pending = Status::of(stopped.tid).and_then(|status| status.bits("SigPnd"));
    pending.is_some_and(|pending| pending & (1 << (libc::SIGTRAP - 1)) != 0)
}

/// Whether `signal` waits for a thread, or for its process.
fn has_pending(tid: Tid, signal: i32) -> bool {
    let status = Status::of(tid);
    let pending = |name| status.as_ref().and_then(|status| status.bits(name));
    let all = pending("SigPnd").unwrap_or(0) | pending("ShdPnd").unwrap_or(0);
    all & (1 << (signal - 1)) != 0
}
