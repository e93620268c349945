use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use crate::{Signal, Tid, sys};

/// What may end a trace.
const ENDING: [NixSignal; 5] = [
    NixSignal::SIGINT,
    NixSignal::SIGQUIT,
    NixSignal::SIGTERM,
    NixSignal::SIGHUP,
    NixSignal::SIGTSTP,
];

/// What asks for something else.
const ASKING: [NixSignal; 2] = [NixSignal::SIGUSR1, NixSignal::SIGUSR2];

/// What a process of the background gets that uses its terminal.
const BACKGROUND: [NixSignal; 2] = [NixSignal::SIGTTIN, NixSignal::SIGTTOU];

/// Lets signals, and a clock, wake a [`Tracer`](crate::Tracer) that waits.
///
/// SIGURG does so once, for a [`Sleeper`]: where it has no handler, it has no effect.
///
/// Handlers for SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT, SIGUSR1 and SIGUSR2 note the
/// signal and interrupt waitpid(2), without `SA_RESTART`. A signal that arrives just before
/// waitpid(2) begins interrupts nothing; neither does one that the kernel gives to another thread.
/// So a timer interrupts the installing thread again and again.
///
/// SIGHUP stays ignored where it was, for nohup(1), and so does SIGTSTP. SIGINT and SIGQUIT do not:
/// a shell's background job ignores them, and is still to be ended by `kill -INT`.
///
/// A tracer that stops holds its tracees. So SIGTTIN and SIGTTOU are ignored: a process of the
/// background may write to its terminal then, whatever `stty tostop` says.
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
        let mut waking = SigSet::empty();
        waking.add(NixSignal::SIGALRM);
        waking.add(NixSignal::SIGURG);
        waking.add(NixSignal::SIGCONT);
        let noted = ENDING.into_iter().chain(ASKING);
        noted.for_each(|signal| waking.add(signal));
        let mask = waking.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_UNBLOCK)?;
        let mut wakeups = Wakeups {
            handlers: Vec::new(),
            mask,
            timer: None,
        };
        for signal in waking.iter().map(|signal| signal as i32) {
            let may_stay_ignored = matches!(signal, libc::SIGHUP | libc::SIGTSTP);
            if !may_stay_ignored || !sys::ignored_at_start(signal) {
                wakeups.handlers.push(sys::set_handler(signal)?);
            }
        }
        for signal in BACKGROUND {
            wakeups.handlers.push(sys::ignore(signal as i32)?);
        }
        wakeups.timer = Some(ticking(period)?);
        Ok(wakeups)
    }

    /// For a process that stops when a program does that it has launched: SIGTTIN and SIGTTOU are
    /// noted, too.
    ///
    /// # Errors
    /// From sigaction(2).
    pub fn of_job(self) -> io::Result<Wakeups> {
        for signal in BACKGROUND {
            sys::set_handler(signal as i32)?; // what it replaces is known
        }
        Ok(self)
    }

    /// Whether one has come that may end what is being done, and nobody has taken it yet: SIGINT,
    /// SIGQUIT, SIGTERM, SIGHUP, SIGTSTP.
    pub fn is_pending() -> bool {
        ENDING.into_iter().any(has_come)
    }

    /// As [`is_pending`](Wakeups::is_pending), of those that end a program.
    pub(crate) fn is_ended() -> bool {
        let ends = |signal: &NixSignal| *signal != NixSignal::SIGTSTP;
        ENDING.into_iter().filter(ends).any(has_come)
    }

    /// A signal that has come, as often as it has. One that stops a job is void when SIGCONT comes
    /// later, and the other way round.
    pub fn take(&self) -> Option<Signal> {
        let one_less = |noted: &AtomicU32| {
            let less = |count: u32| count.checked_sub(1);
            let (store, load) = (Ordering::Relaxed, Ordering::Relaxed);
            noted.fetch_update(store, load, less).is_ok()
        };
        let number = sys::NOTED.iter().position(one_less)?;
        Some(Signal::new(number as i32))
    }

    /// Which process has sent the last SIGCONT.
    pub fn continued_by(&self) -> Tid {
        Tid::new(sys::CONTINUED_BY.load(Ordering::Relaxed))
    }

    /// Stops this process as `signal` does by default, until SIGCONT.
    pub fn stop_by(&self, signal: Signal) {
        // Cannot fail for a signal that has been noted.
        if let Ok(old) = sys::set_default(signal.number()) {
            let process = std::process::id().cast_signed();
            let _ = sys::send(process, sys::own_tid(), signal.number());
            sys::restore_handler(&old);
        }
    }

    /// The work is done, but for what is said about it. The first of each signal that would have
    /// ended it is ignored from now on: it asks for what has been done. The next one does what it
    /// does by default.
    pub fn end(mut self) {
        let all = || ENDING.into_iter().chain(ASKING);
        let may_end = |signal: i32| all().any(|ending| ending as i32 == signal);
        // What cannot be ignored is put back.
        let is_ignored = |old: &sys::OldAction| sys::ignore_once(old.signal()).is_ok();
        self.handlers
            .retain(|old| !may_end(old.signal()) || !is_ignored(old));
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

/// A thread that may sleep in a system call: another one of this process can wake it.
#[derive(Clone, Copy, Debug)]
pub struct Sleeper(i32);

impl Sleeper {
    /// The calling thread.
    pub fn this() -> Sleeper {
        Sleeper(sys::own_tid())
    }

    /// Interrupts the system call that it is in, if [`Wakeups`] are installed.
    pub fn wake(self) {
        let process = std::process::id().cast_signed();
        let _ = sys::send(process, self.0, libc::SIGURG); // fails if it has ended
    }
}

fn has_come(signal: NixSignal) -> bool {
    let noted = sys::NOTED.get(signal as usize);
    noted.is_some_and(|noted| noted.load(Ordering::Relaxed) != 0)
}

fn ticking(period: Duration) -> io::Result<Timer> {
    let alarm = sys::to_this_thread(NixSignal::SIGALRM as i32);
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, alarm)?;
    timer.set(
        Expiration::Interval(period.into()),
        TimerSetTimeFlags::empty(),
    )?;
    Ok(timer)
}
