use std::fmt;

use leaktap_memory::Addr;
use nix::libc::{self, siginfo_t};

use crate::sys;

/// The signals that the kernel forces upon a thread for what it does. Where such a one is blocked
/// it takes the program's handler away, so they stay open for system calls that are not the
/// program's.
pub(crate) const FORCED: [i32; 6] = [
    libc::SIGTRAP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGSYS,
];

/// A signal, real-time ones (32 to 64) included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

/// Names of signal(7) by number on x86-64, from 1.
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// glibc keeps 32 and 33 for itself, so a program's SIGRTMIN is 34.
const SIGRTMIN: i32 = 34;

impl Signal {
    /// Terminal hung up.
    pub const HUP: Signal = Signal(libc::SIGHUP);
    /// Ctrl-C.
    pub const INT: Signal = Signal(libc::SIGINT);
    /// Breakpoint or single-step.
    pub const TRAP: Signal = Signal(libc::SIGTRAP);
    /// Cannot be caught.
    pub const KILL: Signal = Signal(libc::SIGKILL);
    /// Invalid memory access.
    pub const SEGV: Signal = Signal(libc::SIGSEGV);
    /// Write to a pipe without reader.
    pub const PIPE: Signal = Signal(libc::SIGPIPE);
    /// SIGUSR1.
    pub const USR1: Signal = Signal(libc::SIGUSR1);
    /// SIGUSR2.
    pub const USR2: Signal = Signal(libc::SIGUSR2);
    /// Polite request to end.
    pub const TERM: Signal = Signal(libc::SIGTERM);
    /// A child has changed.
    pub const CHLD: Signal = Signal(libc::SIGCHLD);
    /// Continue after a stop.
    pub const CONT: Signal = Signal(libc::SIGCONT);
    /// Stop; cannot be caught.
    pub const STOP: Signal = Signal(libc::SIGSTOP);
    /// Ctrl-Z.
    pub const TSTP: Signal = Signal(libc::SIGTSTP);
    /// A process of the background reads from its terminal.
    pub const TTIN: Signal = Signal(libc::SIGTTIN);
    /// A process of the background writes to its terminal.
    pub const TTOU: Signal = Signal(libc::SIGTTOU);

    /// The signal `number` of signal(7).
    pub const fn new(number: i32) -> Signal {
        Signal(number)
    }

    /// Its number.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Whether it stops a process that does not handle it, and is void once SIGCONT has come.
    pub(crate) const fn stops(self) -> bool {
        matches!(
            self,
            Signal::STOP | Signal::TSTP | Signal::TTIN | Signal::TTOU
        )
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = usize::try_from(self.0 - 1)
            .ok()
            .and_then(|index| NAMES.get(index));
        match (name, self.0 - SIGRTMIN) {
            (Some(name), _) => f.pad(name),
            (None, 0) => f.pad("SIGRTMIN"),
            (None, above @ 1..=30) => f.pad(&format!("SIGRTMIN+{above}")),
            (None, _) => f.pad(&format!("signal {}", self.0)),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All that the kernel keeps of one signal to be delivered: `siginfo_t` of sigaction(2).
#[derive(Clone, Copy)]
pub struct SignalInfo(pub(crate) siginfo_t);

impl SignalInfo {
    /// `si_signo`.
    pub fn signal(&self) -> Signal {
        Signal(self.0.si_signo)
    }

    /// `si_code`: positive if the kernel itself raised the signal (int3: `SI_KERNEL`, 0x80), zero
    /// or negative if a program sent it.
    pub fn code(&self) -> i32 {
        self.0.si_code
    }

    /// True of the SIGTRAP that an int3 raises: not one of a single step, or of kill(2).
    pub fn is_int3(&self) -> bool {
        /// Of sigaction(2).
        const SI_KERNEL: i32 = 0x80;
        self.signal() == Signal::TRAP && self.code() == SI_KERNEL
    }

    /// True of a signal that the kernel raised for what the thread has just done.
    pub fn is_fault(&self) -> bool {
        self.code() > 0 && FORCED.contains(&self.0.si_signo)
    }

    /// `si_addr`: the faulting address, for SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGTRAP of the
    /// kernel's own.
    pub fn address(&self) -> Addr {
        // The union begins at offset 16 on 64-bit Linux.
        let [.., a, b, c, d, e, f, g, h] = *sys::signal_info_bytes(&self.0)
            .first_chunk::<24>()
            .unwrap_or(&[0; 24]);
        Addr::new(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl fmt::Debug for SignalInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalInfo")
            .field("signal", &self.signal())
            .field("code", &self.code())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_signal_7() {
        let expected = [
            (1, "SIGHUP"),
            (9, "SIGKILL"),
            (15, "SIGTERM"),
            (31, "SIGSYS"),
            (32, "signal 32"),
            (34, "SIGRTMIN"),
            (37, "SIGRTMIN+3"),
            (64, "SIGRTMIN+30"),
            (0, "signal 0"),
            (65, "signal 65"),
        ];
        for (number, name) in expected {
            assert_eq!(Signal::new(number).to_string(), name);
        }
    }
}
