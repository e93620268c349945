//! What a [`Call`], which `entry.rs` puts on the stack, does to the ledger.

use core::mem::offset_of;

use crate::agent::{Agent, stripe};
use crate::layout::{Call, Descriptor, Loss, Old, TAKEN, Thread};
use crate::record::{Allocated, Sought};
use leaktap_api::Action;
use leaktap_ledger::{Block, Full, Key, StackId};

/// Where the descriptor is.
pub(crate) const DESCRIPTOR: usize = offset_of!(Call, descriptor);

/// Where the arguments are: before the descriptor, and nothing behind that.
pub(crate) const ARGUMENTS: usize = offset_of!(Call, arguments);

const _: () = assert!(DESCRIPTOR == ARGUMENTS + 24 && Call::LEN == DESCRIPTOR + 8);

/// At a function's entry the stack is aligned to 16 bytes but for the return address (psABI).
const _: () = assert!(Call::LEN % 16 == 8);

impl Call {
    /// Stack pointer at the entry of the probed function.
    #[inline]
    pub(crate) fn entry_sp(&self) -> u64 {
        &raw const *self as u64 + Call::LEN as u64
    }

    /// The probe.
    #[inline]
    pub(crate) fn descriptor(&self) -> &'static Descriptor {
        // SAFETY: the stub has put it there, whose descriptor lies behind its code.
        unsafe { &*(self.descriptor as *const Descriptor) }
    }

    /// State of the thread.
    #[inline]
    pub(crate) fn thread(&self) -> *mut Thread {
        self.thread as *mut Thread
    }

    /// Takes argument 0 out of the ledger, which a realloc or a delete is about to free.
    pub(crate) fn take_old(&mut self, agent: Agent) {
        let Some(block) = self.descriptor().action.block(&self.arguments) else {
            return;
        };
        let key = Key::new(self.descriptor().family, block);
        self.old = match agent.freed(self.thread(), self.before, key) {
            None => Old::default(),
            Some(None) => Old {
                what: Old::UNKNOWN,
                ..Old::default()
            },
            Some(Some(Block {
                size, stack, time, ..
            })) => Old {
                what: Old::BLOCK,
                size,
                stack: stack.0,
                time,
            },
        };
    }

    /// The original has returned `result`: a block like many before.
    ///
    /// # Errors
    /// Nothing has changed; that takes a closer look.
    #[inline(always)]
    pub(crate) fn returned_again(&self, agent: Agent, result: u64, bp: u64) -> Result<(), Sought> {
        let action = self.descriptor().action;
        if action.shape() != Action::ALLOCATE || result == 0 || self.before & TAKEN != 0 {
            return Err(Sought::NotYet);
        }
        let call = self.allocation(result, bp).ok_or(Sought::NotYet)?;
        agent.allocated_again(self.thread(), &call)
    }

    /// The original has returned `result`.
    pub(crate) fn returned(&self, agent: Agent, result: u64, bp: u64, sought: Sought) {
        let action = self.descriptor().action;
        match action.shape() {
            Action::ALLOCATE if result != 0 => self.allocated(agent, result, bp, sought),
            Action::ALLOCATE if action.is_by_twin() => agent.lose(Loss::Retried),
            // An int: the upper half of the register means nothing.
            Action::ALLOCATE_INTO if result as u32 == 0 => {
                let [place, ..] = self.arguments;
                // SAFETY: posix_memalign(3) has just stored a pointer there.
                let at = unsafe { (place as *const u64).read_unaligned() };
                self.allocated(agent, at, bp, sought);
            }
            Action::REALLOCATE if result != 0 => self.allocated(agent, result, bp, sought),
            // Null for a size of 0 means that the block was freed (glibc), else that it was not.
            Action::REALLOCATE if action.frees_on_failure() => {}
            Action::REALLOCATE if action.size(&self.arguments) != Some(0) => self.restore(agent),
            Action::RESIZE => self.resized(agent, result, bp, sought),
            _ => {}
        }
    }

    /// The block is where it was, and has become as large as was asked for, or not.
    #[cold]
    fn resized(&self, agent: Agent, size: u64, bp: u64, sought: Sought) {
        let action = self.descriptor().action;
        match (action.size(&self.arguments), action.block(&self.arguments)) {
            (Some(asked), Some(at)) if size >= asked => self.allocated(agent, at, bp, sought),
            _ => self.restore(agent),
        }
    }

    /// The old block was not freed after all.
    #[cold]
    fn restore(&self, agent: Agent) {
        let Old {
            what,
            size,
            stack,
            time,
        } = self.old;
        if what == Old::NOTHING {
            return;
        }
        let Some(state) = agent.state(self.thread(), self.before) else {
            return;
        };
        let Descriptor { action, family, .. } = *self.descriptor();
        let addr = action.block(&self.arguments);
        let block = addr.filter(|_| what == Old::BLOCK).map(|addr| Block {
            key: Key::new(family, addr),
            size,
            stack: StackId(stack),
            time,
        });
        if agent.ledger().restore(stripe(state), family, block) == Err(Full) {
            agent.lose(Loss::Full);
        }
        agent.done(state, self.before);
    }

    /// What has been allocated, at `at`; nothing if that is nowhere, or of no size that there is.
    #[inline(always)]
    fn allocation(&self, at: u64, bp: u64) -> Option<Allocated> {
        let Descriptor {
            action,
            kind,
            family,
            ..
        } = *self.descriptor();
        let size = action.size(&self.arguments).filter(|_| at != 0)?;
        let (kind, sp) = (kind as u8, self.entry_sp());
        Some(Allocated {
            key: Key::new(family, at),
            size,
            kind,
            sp,
            bp,
        })
    }

    fn allocated(&self, agent: Agent, at: u64, bp: u64, sought: Sought) {
        if let Some(call) = self.allocation(at, bp)
            && let Some(state) = agent.state(self.thread(), self.before)
        {
            agent.allocated(state, &call, sought);
            agent.done(state, self.before);
        }
    }
}
