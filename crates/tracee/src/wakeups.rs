use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SigEvent, SigSet, SigevNotify, Signal as NixSignal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use crate::{Signal, sys};

/// Lets signals, and a clock, wake a [`Tracer`](crate::Tracer) that waits.
///
/// Handlers for SIGINT, SIGQUIT, SIGTERM and SIGHUP note the signal and interrupt waitpid(2),
/// without
/// `SA_RESTART`. A signal that arrives just before waitpid(2) begins interrupts nothing; neither
/// does one that the kernel gives to another thread. So a timer interrupts the installing thread
/// again and again.
///
/// SIGHUP stays ignored where it was, for nohup(1). SIGINT and SIGQUIT do not: a shell's background
/// job
/// ignores them, and is still to be ended by `kill -INT`.
///
/// One at a time in a process. All is put back when it is dropped.
pub struct Wakeups {
    handlers: Vec<sys::OldAction>,
    mask: SigSet,
    /// None only while this is made and dropped: it has to go before the handlers do.
    timer: Option<Timer>,
}

impl Wakeups {
    /// Wakes the calling thread at least every `period`.
    ///
    /// # Errors
    /// From sigaction(2), timer_create(2) and timer_settime(2); nothing is changed then.
    pub fn install(period: Duration) -> io::Result<Wakeups> {
        let forget = |noted: &AtomicU32| noted.store(0, Ordering::Relaxed);
        sys::NOTED.iter().for_each(forget);
        use NixSignal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
        let signals = [SIGINT, SIGQUIT, SIGTERM, SIGHUP];
        let mut waking = SigSet::empty();
        waking.add(NixSignal::SIGALRM);
        signals.into_iter().for_each(|signal| waking.add(signal));
        let mask = waking.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_UNBLOCK)?;
        let mut wakeups = Wakeups {
            handlers: Vec::new(),
            mask,
            timer: None,
        };
        for signal in waking.iter().map(|signal| signal as i32) {
            if signal != libc::SIGHUP || !sys::ignored_at_start(signal) {
                wakeups.handlers.push(sys::set_handler(signal)?);
            }
        }
        wakeups.timer = Some(ticking(period)?);
        Ok(wakeups)
    }

    /// Whether one of these signals has come that nobody has taken yet.
    pub fn is_pending() -> bool {
        let has_come = |noted: &AtomicU32| noted.load(Ordering::Relaxed) != 0;
        sys::NOTED.iter().any(has_come)
    }

    /// A signal that has come, as often as it has.
    pub fn take(&self) -> Option<Signal> {
        let has_come = |noted: &AtomicU32| noted.load(Ordering::Relaxed) != 0;
        let number = sys::NOTED.iter().position(has_come)?;
        sys::NOTED.get(number)?.fetch_sub(1, Ordering::Relaxed);
        Some(Signal::new(number as i32))
    }

    /// The work is done, but for what is said about it. The first of each signal that comes from
    /// now on is ignored: it
    /// asks for what has been done. The next one does what it does by default.
    pub fn end(mut self) {
        // What cannot be ignored is put back.
        let ignored = |old: &sys::OldAction| sys::ignore_once(old.signal()).is_ok();
        self.handlers
            .retain(|old| old.signal() == libc::SIGALRM || !ignored(old));
    }
}

impl Drop for Wakeups {
    fn drop(&mut self) {
        // Its SIGALRM would end us once the handler is gone. The last one, if there is one on its
        // way to this thread, is delivered when the system call that deletes the timer returns.
        drop(self.timer.take());
        self.handlers.iter().for_each(sys::restore_handler);
        // Cannot fail: the mask is one that the kernel gave.
        let _ = self.mask.thread_set_mask();
    }
}

fn ticking(period: Duration) -> io::Result<Timer> {
    let notify = SigevNotify::SigevThreadId {
        signal: NixSignal::SIGALRM,
        thread_id: sys::own_tid(),
        si_value: 0,
    };
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))?;
    timer.set(
        Expiration::Interval(period.into()),
        TimerSetTimeFlags::empty(),
    )?;
    Ok(timer)
}
