//! What a [`Call`], which `entry.rs` puts on the stack, does to the ledger.

use core::mem::offset_of;

use crate::agent::{Agent, hand, handed};
use crate::frees::Freeing;
use crate::layout::{Call, Descriptor, Loss, Thread};
use crate::record::{Allocated, Sought};
use leaktap_api::{Action, Effect, effect};
use leaktap_ledger::Key;

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

    /// The block that the call frees, or may free.
    fn block(&self) -> Option<Key> {
        let block = self.descriptor().action.block(&self.arguments)?;
        Some(Key::new(self.descriptor().family, block))
    }

    /// The call, which was entered with this rbp, frees `key`.
    fn freeing(&self, key: Key, bp: u64) -> Freeing {
        let sp = self.entry_sp();
        Freeing { key, sp, bp }
    }

    /// Takes out of the ledger what a realloc or a delete is about to free.
    pub(crate) fn take_old(&mut self, agent: Agent, bp: u64) {
        let Some(key) = self.block() else { return };
        let free = self.freeing(key, bp);
        if self.descriptor().action.is_free() {
            agent.freed(self.thread(), self.before, &free);
        } else if let Some(index) = agent.begin_moving(self.thread(), self.entry_sp()) {
            self.moving = index as u64;
            if let Some(freed) = agent.freed(self.thread(), self.before, &free)
                && let Some(moving) = agent.moving(self.thread(), index)
            {
                moving.keep(key, freed);
            }
        }
    }

    /// A realloc has returned, and has freed the old block or not. That is out of the ledger,
    /// unless the call was thought to be over, or there was no room to remember it.
    #[cold]
    fn settle(&self, agent: Agent, is_freed: bool, bp: u64) {
        let Some(key) = self.block() else { return };
        let moving = agent.moving(self.thread(), self.moving as usize);
        match moving.filter(|moving| moving.entry_sp() == self.entry_sp()) {
            Some(moving) => {
                if let Some(freed) = moving.end(self.entry_sp())
                    && !is_freed
                {
                    agent.put_back(self.thread(), self.before, freed);
                }
            }
            None if is_freed => {
                agent.freed(self.thread(), self.before, &self.freeing(key, bp));
            }
            None => {}
        }
    }

    /// The original has returned `result`: a block like many before.
    ///
    /// # Errors
    /// Nothing has changed; that takes a closer look.
    #[inline(always)]
    pub(crate) fn returned_again(&self, agent: Agent, result: u64, bp: u64) -> Result<(), Sought> {
        let action = self.descriptor().action;
        let is_alone = self.before == 0 && handed(self.thread()).is_none();
        if action.shape() != Action::ALLOCATE || result == 0 || !is_alone {
            return Err(Sought::NotYet);
        }
        let call = self.allocation(result, bp).ok_or(Sought::NotYet)?;
        agent.allocated_again(self.thread(), &call)
    }

    /// The original has returned `result`.
    pub(crate) fn returned(&self, agent: Agent, result: u64, bp: u64, sought: Sought) {
        let action = self.descriptor().action;
        if action.is_mapping() {
            return self.mapped(agent, result, bp);
        }
        match effect(action, &self.arguments, result) {
            Effect::Allocated { at, .. } => {
                self.settle(agent, true, bp);
                self.allocated(agent, at, bp, sought);
            }
            Effect::Stored { place, .. } => {
                // SAFETY: posix_memalign(3) has just stored a pointer there.
                let at = unsafe { (place as *const u64).read_unaligned() };
                self.allocated(agent, at, bp, sought);
            }
            Effect::Freed => self.settle(agent, true, bp),
            Effect::Kept => self.settle(agent, false, bp),
            _ if action.is_by_twin() => agent.lose(Loss::Retried),
            _ => {}
        }
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
        Some(Allocated {
            key: Key::new(family, at),
            size,
            kind,
            sp: self.entry_sp(),
            bp,
        })
    }

    fn allocated(&self, agent: Agent, at: u64, bp: u64, sought: Sought) {
        let Some(call) = self.allocation(at, bp) else {
            return;
        };
        let inner = handed(self.thread()).filter(|inner| call.hands_on(*inner));
        if let Some(state) = agent.state(self.thread(), self.before) {
            match inner {
                Some(inner) => agent.handed_on(state, &call, inner),
                None => agent.allocated(state, &call, sought),
            }
            agent.done(state, self.before);
        }
        hand(self.thread(), inner.unwrap_or(call.key), self.before);
    }
}
