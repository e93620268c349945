//! Which threads block SIGTRAP: found out after the kernel has changed that.
//!
//! Pure: it is told of masks that are seen and set, and answers what a mask was before an int3.

use std::collections::HashMap;

use leaktap_tracee::{Signal, Tid};

/// Signals that cannot be blocked, and those that glibc keeps for itself: it blocks them in
/// sections of its own, and never for the program.
const APART: u64 = bit(Signal::KILL.number()) | bit(Signal::STOP.number()) | bit(32) | bit(33);

/// Of sigprocmask(2).
const SIG_BLOCK: u64 = 0;
const SIG_UNBLOCK: u64 = 1;
const SIG_SETMASK: u64 = 2;

/// SIGTRAP in a mask.
pub(crate) const TRAP: u64 = bit(Signal::TRAP.number());

/// The masks that the program has set in its threads, as last known.
#[derive(Debug, Default)]
pub(crate) struct Masks(HashMap<Tid, u64>);

impl Masks {
    /// A thread is seen with `mask`, and has met no int3 before.
    pub(crate) fn seen(&mut self, thread: Tid, mask: u64) {
        self.0.insert(thread, mask);
    }

    /// A thread begins: with the mask of its `parent`, once the C library has put it back.
    pub(crate) fn begins(&mut self, thread: Tid, parent: Tid) {
        if let Some(&mask) = self.0.get(&parent) {
            self.0.insert(thread, mask);
        }
    }

    /// A thread that has `mask` is about to change it: arguments of pthread_sigmask(3).
    pub(crate) fn changes(&mut self, thread: Tid, mask: u64, how: u64, set: u64) {
        let known = self.0.entry(thread).or_insert(mask);
        match how {
            SIG_BLOCK => *known |= set,
            SIG_UNBLOCK => *known &= !set,
            SIG_SETMASK => *known = set,
            _ => {}
        }
    }

    /// A thread is gone.
    pub(crate) fn gone(&mut self, thread: Tid) {
        self.0.remove(&thread);
    }

    /// True unless other threads than this one are known.
    pub(crate) fn is_alone(&self, thread: Tid) -> bool {
        self.0.keys().all(|one| *one == thread)
    }

    /// Whether a thread blocked SIGTRAP before an int3 that leaves it with `mask`. Where the
    /// program has set its mask by a system call of its own, that is told by all the other signals:
    /// few block these and let SIGTRAP through.
    pub(crate) fn was_blocked(&self, thread: Tid, mask: u64) -> bool {
        let same = |a: u64, b: u64| (a ^ b) & !APART == 0;
        let before = mask | TRAP;
        match self.0.get(&thread) {
            _ if mask == before => false,
            Some(&known) if same(known, mask) => false,
            Some(&known) if same(known, before) => true,
            _ => same(before, !0),
        }
    }
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Tid = Tid::new(1);
    const OTHER: Tid = Tid::new(2);
    const USR1: u64 = bit(10);

    #[test]
    fn a_mask_is_told_by_what_was_known() {
        let mut masks = Masks::default();
        assert!(!masks.was_blocked(ONE, 0));
        assert!(!masks.was_blocked(ONE, USR1));
        masks.seen(ONE, USR1 | TRAP);
        assert!(masks.was_blocked(ONE, USR1));
        // It has been changed since, nobody knows how.
        assert!(!masks.was_blocked(ONE, 0));
        assert!(masks.is_alone(ONE) && !masks.is_alone(OTHER));
        masks.gone(ONE);
        assert!(!masks.was_blocked(ONE, USR1));
    }

    #[test]
    fn changes_are_followed() {
        let mut masks = Masks::default();
        masks.changes(ONE, USR1, SIG_BLOCK, TRAP);
        assert!(masks.was_blocked(ONE, USR1));
        masks.changes(ONE, 0, SIG_UNBLOCK, TRAP);
        assert!(!masks.was_blocked(ONE, USR1));
        masks.changes(ONE, 0, SIG_SETMASK, TRAP);
        assert!(masks.was_blocked(ONE, 0));
        masks.begins(OTHER, ONE);
        assert!(masks.was_blocked(OTHER, 0));
        assert!(!masks.was_blocked(OTHER, USR1));
    }

    #[test]
    fn who_blocks_everything_blocks_sigtrap() {
        let mut masks = Masks::default();
        // sigfillset(3) leaves out what glibc keeps; the kernel, what cannot be blocked.
        let others = !TRAP & !APART;
        assert!(masks.was_blocked(ONE, others));
        assert!(masks.was_blocked(ONE, others | bit(32) | bit(33)));
        masks.seen(ONE, 0);
        assert!(masks.was_blocked(ONE, others));
        // All but SIGTRAP, by intention.
        masks.seen(ONE, others);
        assert!(!masks.was_blocked(ONE, others));
    }
}
