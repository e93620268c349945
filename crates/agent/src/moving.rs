//! What calls under way have taken out of the ledger.
//!
//! A realloc frees before it allocates, and may fail, or never return: its thread ends, or leaves
//! it by longjmp(3). Its old block is not known to be freed then, and goes back. That is kept in
//! the shared memory, for the agent to put back once it finds the call to be over, and for the
//! tracer once the thread is gone.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use leaktap_ledger::{Block, FamilyId, Freed, Key, StackId};

/// Such calls that a thread may be in at a time: handlers that interrupt each other.
pub const MOVING: usize = 8;

/// Words for each.
pub const MOVING_WORDS: usize = 5;

const BLOCK: u64 = 1;
const UNMATCHED: u64 = 2;
const PASSED_ON: u64 = 3;

/// A call that reallocates, or room for one. The words: stack pointer at its entry, 0 if there is
/// none; address of the old block; family, and above that what was taken out; size; stack and time.
#[derive(Clone, Copy, Debug)]
pub struct Moving<'m>(pub &'m [AtomicU64; MOVING_WORDS]);

impl Moving<'_> {
    /// A call that was entered with its return address at `sp` begins. False if there is no room.
    ///
    /// A signal handler may come at any time, and take another one.
    pub fn begin(self, sp: u64) -> bool {
        let [entry, _, what, ..] = self.0;
        let is_free = entry.compare_exchange(0, sp, Acquire, Relaxed).is_ok();
        if is_free {
            what.store(0, Relaxed);
        }
        is_free
    }

    /// The call has taken this out.
    pub fn keep(self, key: Key, freed: Freed) {
        let [_, addr, what, size, origin] = self.0;
        let is = match freed {
            Freed::Block(block) => {
                size.store(block.size, Relaxed);
                let time = u64::from(block.time) << 32;
                origin.store(u64::from(block.stack.0) | time, Relaxed);
                BLOCK
            }
            Freed::Unmatched(_) => UNMATCHED,
            Freed::PassedOn => PASSED_ON,
        };
        addr.store(key.addr(), Relaxed);
        what.store(key.family().number() as u64 | is << 8, Release);
    }

    /// Stack pointer at the call's entry, 0 if there is none.
    pub fn entry_sp(self) -> u64 {
        let [entry, ..] = self.0;
        entry.load(Relaxed)
    }

    /// The call that was entered at `sp` is over. Returns what it has taken out, if that was told,
    /// to one who asks alone: a signal handler may, too.
    pub fn end(self, sp: u64) -> Option<Freed> {
        let [entry, addr, what, size, origin] = self.0;
        let (what, origin) = (what.load(Acquire), origin.load(Relaxed));
        let family = FamilyId::new((what & 0xff) as usize);
        let key = Key::new(family, addr.load(Relaxed));
        let block = Block {
            key,
            size: size.load(Relaxed),
            stack: StackId(origin as u32),
            time: (origin >> 32) as u32,
        };
        entry.compare_exchange(sp, 0, AcqRel, Relaxed).ok()?;
        match what >> 8 {
            BLOCK => Some(Freed::Block(block)),
            UNMATCHED => Some(Freed::Unmatched(family)),
            PASSED_ON => Some(Freed::PassedOn),
            _ => None,
        }
    }
}
