//! What a call that has returned did, by its arguments and its result.

use crate::Action;
use crate::action::is_lazy;

/// Results of system calls from here on are errors: the last page of addresses, `MAP_FAILED` among
/// them.
const ERRORS: u64 = 4096_u64.wrapping_neg();

/// What a call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that counts, or what was known when it was entered.
    Nothing,
    /// A block of `size` bytes is at `at`. One that the call was given is freed.
    Allocated {
        /// Where it is.
        at: u64,
        /// Bytes that were asked for.
        size: u64,
    },
    /// The same, where the word at `place` says.
    Stored {
        /// Where the block's address is.
        place: u64,
        /// Bytes that were asked for.
        size: u64,
    },
    /// The block that it was given is freed, and there is no other.
    Freed,
    /// The block that it was given is as before.
    Kept,
    /// mmap(2) has made a region.
    Mapped {
        /// Its start.
        at: u64,
        /// Its bytes.
        len: u64,
        /// `PROT_*`.
        protection: u64,
    },
    /// Pages may be used from now on, or may not: noted before mprotect(2) does it, whatever that
    /// will come to.
    Protected {
        /// Where they start.
        at: u64,
        /// How many bytes.
        len: u64,
        /// `PROT_*`.
        protection: u64,
    },
    /// Of pages, the kernel may take what is in them.
    GivenBack {
        /// Where they start.
        at: u64,
        /// How many bytes.
        len: u64,
        /// Only once it needs them.
        lazily: bool,
    },
    /// A region is gone.
    Unmapped {
        /// Where it was.
        at: u64,
        /// Its bytes.
        len: u64,
    },
    /// A region is elsewhere, or has another length.
    Moved {
        /// Where it was, and its bytes.
        from: (u64, u64),
        /// Where it is, and its bytes.
        to: (u64, u64),
    },
    /// The end of the heap segment has moved.
    Break {
        /// Where it was.
        old: u64,
        /// Where it is.
        new: u64,
    },
}

impl Effect {
    /// Whether it maps memory, so that somebody wants to know its stack.
    #[inline]
    pub const fn maps(&self) -> bool {
        match self {
            Effect::Mapped { .. } | Effect::Moved { .. } => true,
            Effect::Break { old, new } => *new > *old,
            _ => false,
        }
    }
}

/// What a call with `arguments` did that has returned `result`. Of brk(2), argument 1 is the old
/// end of the heap segment, 0 if that is not known.
#[inline]
pub fn effect(action: Action, arguments: &[u64], result: u64) -> Effect {
    let [first, second, third] = *arguments.first_chunk().unwrap_or(&[0; 3]);
    // An int: the upper half of the register means nothing.
    let is_success = result as u32 == 0;
    match action.shape() {
        Action::ALLOCATE | Action::ALLOCATE_INTO | Action::REALLOCATE | Action::RESIZE => {
            of_block(action, arguments, result)
        }
        Action::MAP if result < ERRORS => Effect::Mapped {
            at: result,
            len: second,
            protection: third,
        },
        Action::PROTECT => Effect::Protected {
            at: first,
            len: second,
            protection: third,
        },
        Action::GIVE_BACK if is_success => Effect::GivenBack {
            at: first,
            len: second,
            lazily: is_lazy(third),
        },
        Action::UNMAP if is_success => Effect::Unmapped {
            at: first,
            len: second,
        },
        Action::REMAP if result < ERRORS => Effect::Moved {
            from: (first, second),
            to: (result, third),
        },
        Action::SET_BREAK if is_success && second != 0 => Effect::Break {
            old: second,
            new: first,
        },
        Action::MOVE_BREAK if result < ERRORS => Effect::Break {
            old: result,
            new: result.wrapping_add(first),
        },
        _ => Effect::Nothing,
    }
}

fn of_block(action: Action, arguments: &[u64], result: u64) -> Effect {
    let size = action.size(arguments);
    match (action.shape(), size) {
        (Action::ALLOCATE | Action::REALLOCATE, Some(size)) if result != 0 => {
            Effect::Allocated { at: result, size }
        }
        (Action::ALLOCATE_INTO, Some(size)) if result as u32 == 0 => {
            match action.place(arguments) {
                Some(place) => Effect::Stored { place, size },
                None => Effect::Nothing,
            }
        }
        // Null for a size of 0 means that the block was freed (glibc), else that it was not
        // (realloc(3)).
        (Action::REALLOCATE, Some(0)) => Effect::Freed,
        (Action::REALLOCATE, _) if action.frees_on_failure() => Effect::Freed,
        (Action::REALLOCATE, _) => Effect::Kept,
        // The block is where it was, and has become as large as was asked for, or not.
        (Action::RESIZE, Some(size)) if result >= size => match action.block(arguments) {
            Some(at) => Effect::Allocated { at, size },
            None => Effect::Nothing,
        },
        (Action::RESIZE, _) => Effect::Kept,
        _ => Effect::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calls_on_blocks_did() {
        let allocated = |at, size| Effect::Allocated { at, size };
        let (realloc, resize) = (Action::REALLOCATE.sized(1), Action::RESIZE.sized(1));
        let failing = realloc.freeing_on_failure();
        let into = Action::ALLOCATE_INTO.sized(2);
        let stored = Effect::Stored { place: 7, size: 9 };
        for (action, arguments, result, expected) in [
            (Action::ALLOCATE.sized(1), [7, 8, 9], 16, allocated(16, 8)),
            (Action::ALLOCATE.sized(1), [7, 8, 9], 0, Effect::Nothing),
            (into, [7, 8, 9], 1 << 32, stored),
            (into, [7, 8, 9], 12, Effect::Nothing),
            (
                into.at(1),
                [7, 8, 9],
                0,
                Effect::Stored { place: 8, size: 9 },
            ),
            (
                Action::ALLOCATE.unsized_block(),
                [7, 8, 9],
                16,
                allocated(16, 0),
            ),
            (realloc, [7, 8, 9], 16, allocated(16, 8)),
            (realloc, [7, 8, 9], 0, Effect::Kept),
            (realloc, [7, 0, 9], 0, Effect::Freed),
            (failing, [7, 8, 9], 0, Effect::Freed),
            (resize, [7, 8, 9], 8, allocated(7, 8)),
            (resize, [7, 8, 9], 7, Effect::Kept),
            (Action::FREE, [7, 8, 9], 0, Effect::Nothing),
        ] {
            let found = effect(action, &arguments, result);
            assert_eq!(found, expected, "{action:?} {arguments:?} {result}");
        }
    }

    #[test]
    fn what_calls_on_regions_did() {
        let (moved, mapped) = (Action::MOVE_BREAK, Action::MAP);
        let (at, len, protection) = (0x4000, 8, 9);
        let set = |old| Effect::Break { old, new: 7 };
        for (action, arguments, result, expected) in [
            (
                mapped,
                [7, 8, 9],
                at,
                Effect::Mapped {
                    at,
                    len,
                    protection,
                },
            ),
            (mapped, [7, 8, 9], u64::MAX, Effect::Nothing),
            (Action::UNMAP, [7, 8, 9], 0, Effect::Unmapped { at: 7, len }),
            (Action::UNMAP, [7, 8, 9], u64::MAX, Effect::Nothing),
            (Action::SET_BREAK, [7, 8, 9], 0, set(8)),
            (Action::SET_BREAK, [7, 0, 9], 0, Effect::Nothing),
            (moved, [1, 8, 9], 6, Effect::Break { old: 6, new: 7 }),
            (moved, [1, 8, 9], u64::MAX, Effect::Nothing),
        ] {
            let found = effect(action, &arguments, result);
            assert_eq!(found, expected, "{action:?} {arguments:?} {result}");
        }
    }
}
