//! What the agent notes of calls of mmap(2) and its kin, in the order in which they returned: in a
//! [`queue`](crate::queue), which the tracer reads. Compiled into both.
//!
//! The kernel's order may be another one: a thread unmaps an address, another one gets it from the
//! kernel, and is first to note that. So a note says which position was next when its call began.
//! Whatever was mapped at that position or a later one, the call has not unmapped.

use leaktap_api::Action;

use crate::queue::WORDS;

/// Bits of an address.
const ADDRESS: u64 = (1 << 48) - 1;

/// A call that has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// What it does, without its arguments.
    pub action: Action,
    /// The function's number.
    pub kind: u8,
    /// Where it returned to.
    pub ret: u64,
    /// Its first arguments; of brk(2), the old end is put for the second.
    pub arguments: [u64; 3],
    /// What it returned.
    pub result: u64,
    /// Its stack in the ledger, if it mapped something.
    pub stack: u32,
    /// Milliseconds since the ledger's epoch.
    pub time: u32,
    /// The position that was next when it began.
    pub begun: u64,
}

impl Noted {
    /// As a note in the queue.
    pub fn to_words(self) -> [u64; WORDS] {
        let [first, second, third] = self.arguments;
        let action = u64::from(self.action.shape().bits());
        [
            self.ret & ADDRESS | u64::from(self.kind) << 48 | action << 56,
            first,
            second,
            third,
            self.result,
            u64::from(self.stack) | u64::from(self.time) << 32,
            self.begun,
        ]
    }

    /// The same back: any words are a call, if only one that does nothing.
    pub fn from_words([what, first, second, third, result, origin, begun]: [u64; WORDS]) -> Noted {
        Noted {
            action: Action::from_bits((what >> 56) as u32).shape(),
            kind: (what >> 48) as u8,
            ret: what & ADDRESS,
            arguments: [first, second, third],
            result,
            stack: origin as u32,
            time: (origin >> 32) as u32,
            begun,
        }
    }
}
