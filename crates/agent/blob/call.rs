//! A call of an allocation function, as `entry.rs` puts it on the stack.

use core::mem::offset_of;

use crate::agent::{Agent, stripe};
use crate::layout::{Action, Descriptor, Loss, Thread};
use crate::ledger::{Block, Full};
use crate::record::Allocated;

/// Lies right below the return address.
#[repr(C)]
pub(crate) struct Call {
    /// What a realloc took out of the ledger.
    pub(crate) old: Old,
    /// State of the thread.
    pub(crate) thread: *mut Thread,
    /// [`Thread::outer`] to put back when the call returns.
    pub(crate) before: u64,
    /// The probe.
    pub(crate) descriptor: &'static Descriptor,
    /// rdi, rsi, rdx.
    pub(crate) arguments: [u64; 3],
}

/// What was taken out of the ledger.
pub(crate) struct Old {
    /// Something was to be taken out, and that was counted.
    known: bool,
    /// It, if it was there.
    block: Option<Block>,
}

impl Old {
    /// Nothing was to be taken out.
    pub(crate) const NOTHING: Old = Old {
        known: false,
        block: None,
    };
}

/// Bytes from a [`Call`] to the return address behind it.
pub(crate) const CALL_LEN: usize = size_of::<Call>();

/// Where the descriptor is.
pub(crate) const DESCRIPTOR: usize = offset_of!(Call, descriptor);

/// Where the arguments are: behind the descriptor, and nothing behind them.
pub(crate) const ARGUMENTS: usize = offset_of!(Call, arguments);

const _: () = assert!(ARGUMENTS == DESCRIPTOR + 8 && CALL_LEN == ARGUMENTS + 24);

/// At a function's entry the stack is aligned to 16 bytes but for the return address (psABI).
const _: () = assert!(CALL_LEN % 16 == 8);

impl Call {
    /// Stack pointer at the entry of the probed function.
    #[inline]
    pub(crate) fn entry_sp(&self) -> u64 {
        &raw const *self as u64 + CALL_LEN as u64
    }

    /// Takes argument 0 out of the ledger, which a realloc or a delete is about to free.
    pub(crate) fn take_old(&mut self, agent: Agent) {
        let [block, ..] = self.arguments;
        if block != 0 {
            let old = agent.freed(self.thread, self.before, block);
            self.old = Old {
                known: old.is_some(),
                block: old.flatten(),
            };
        }
    }

    /// The original has returned `result`.
    #[inline]
    pub(crate) fn returned(&self, agent: Agent, result: u64, bp: u64) {
        let action = self.descriptor.action;
        if action.shape() == Action::ALLOCATE && result != 0 {
            return self.allocated(agent, result, bp);
        }
        match action.shape() {
            Action::ALLOCATE if action.nothrow_argument().is_some() => agent.lose(Loss::Retried),
            // An int: the upper half of the register means nothing.
            Action::ALLOCATE_INTO if result as u32 == 0 => {
                let [place, ..] = self.arguments;
                // SAFETY: posix_memalign(3) has just stored a pointer there.
                self.allocated(agent, unsafe { (place as *const u64).read_unaligned() }, bp);
            }
            Action::REALLOCATE if result != 0 => self.allocated(agent, result, bp),
            // Null for a size of 0 means that the block was freed (glibc), else that it was not.
            Action::REALLOCATE if action.size(&self.arguments) != Some(0) => self.restore(agent),
            _ => {}
        }
    }

    /// The old block was not freed after all.
    #[cold]
    fn restore(&self, agent: Agent) {
        if !self.old.known {
            return;
        }
        let Some(state) = agent.state(self.thread, self.before) else {
            return;
        };
        if agent.ledger().restore(stripe(state), self.old.block) == Err(Full) {
            agent.lose(Loss::Full);
        }
        agent.done(state, self.before);
    }

    #[inline(always)]
    fn allocated(&self, agent: Agent, at: u64, bp: u64) {
        let Descriptor { action, kind, .. } = *self.descriptor;
        let Some(size) = action.size(&self.arguments).filter(|_| at != 0) else {
            return;
        };
        let (kind, sp) = (kind as u8, self.entry_sp());
        if let Some(state) = agent.state(self.thread, self.before) {
            agent.allocated(
                state,
                &Allocated {
                    at,
                    size,
                    kind,
                    sp,
                    bp,
                },
            );
            agent.done(state, self.before);
        }
    }
}
