use std::fmt;

/// Why the agent cannot be taken out of a process at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A thread is in the middle of the agent's own code, and did not get out.
    AtWork,
    /// A thread sleeps in the kernel, and nobody can tell where it goes on.
    Asleep,
    /// A signal handler has interrupted the agent's code.
    InHandler,
    /// An operator new that may yet throw has been called by the agent.
    MayThrow,
    /// More calls of one thread were left without a return than can be on record.
    NotOnRecord,
    /// The program has written over a jump to the agent, and may have kept a copy of that.
    Overwritten,
    /// The process has no code by which a call could return past the agent.
    NoWayOut,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Held::AtWork => "a thread does not get out of it",
            Held::Asleep => "a thread sleeps in the kernel, and may come back to it",
            Held::InHandler => "a signal handler has interrupted it",
            Held::MayThrow => "an operator new is at work that it has called",
            Held::NotOnRecord => {
                "too many calls have been left by longjmp to know which return to it"
            }
            Held::Overwritten => "the program has written over a jump to it, and may put that back",
            Held::NoWayOut => "the program has no code by which its calls could return past it",
        })
    }
}
