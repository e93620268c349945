/// Of mmap(2): the address is not only a wish.
pub const MAP_FIXED: u64 = 0x10;

/// Of madvise(2): what is in these pages is needed no more, or only until the kernel needs them.
const MADV_DONTNEED: u32 = 4;
const MADV_FREE: u32 = 8;

/// Of madvise(2): whoever touches these pages gets SIGSEGV.
const MADV_GUARD_INSTALL: u32 = 102;

/// Of mprotect(2).
const PROT_READ: u64 = 1;

/// Of mlockall(2): what is mapped now, unless only pages that are touched later are meant.
const MCL_CURRENT: u64 = 1;
const MCL_ONFAULT: u64 = 4;

/// Whether what is given back by `advice` stays until the kernel needs it.
pub(crate) const fn is_lazy(advice: u64) -> bool {
    advice as u32 == MADV_FREE
}

/// What a call does, told by its arguments and its result: one word, which a detour's descriptor
/// holds. Arguments are the integer ones of the System V psABI, from 0 to 5.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action(u32);

/// For a factor of a size: there is none.
const NONE: u32 = 0xf;

const ONE: u32 = 4;
const OTHER: u32 = 8;
const POINTER: u32 = 12;
const TAKEN: u32 = 16;
const THROWS: u32 = 1 << 20;
const BY_TWIN: u32 = 1 << 21;
const FREES_ON_FAILURE: u32 = 1 << 22;

impl Action {
    const SHAPE: u32 = 0xf;

    /// Returns a block, or null.
    pub const ALLOCATE: Action = Action(1);
    /// Returns the int 0 and stores a block where argument 0, or that of [`Action::at`], points to:
    /// `posix_memalign(3)`.
    pub const ALLOCATE_INTO: Action = Action(2);
    /// Frees a block and returns one in its place, or null and keeps it: `realloc(3)`.
    pub const REALLOCATE: Action = Action(3);
    /// Makes a block larger or smaller where it is, and returns its real size. It has not become
    /// as large as was asked for if that is less: `xallocx`, jemalloc(3).
    pub const RESIZE: Action = Action(4);
    /// Frees a block.
    pub const FREE: Action = Action(5);
    /// `mmap(2)`: returns a region of argument 1 bytes.
    pub const MAP: Action = Action(6);
    /// `munmap(2)`: argument 0 is the address, argument 1 the length.
    pub const UNMAP: Action = Action(7);
    /// `mremap(2)`: arguments are old address, old length, new length.
    pub const REMAP: Action = Action(8);
    /// `brk(2)`: argument 0 is the new end of the heap segment.
    pub const SET_BREAK: Action = Action(9);
    /// `sbrk(2)`: argument 0 is the signed change; returns the old end.
    pub const MOVE_BREAK: Action = Action(10);
    /// `mprotect(2)`: arguments are address, length, protection.
    pub const PROTECT: Action = Action(11);
    /// `madvise(2)`: arguments are address, length, advice. By some advice the program gives back
    /// what memory there is.
    pub const GIVE_BACK: Action = Action(12);
    /// `r_brk` of `<link.h>`: the dynamic linker calls it before and after it changes its list of
    /// modules.
    pub const CHANGE_MODULES: Action = Action(13);
    /// `mlockall(2)`: argument 0 is flags.
    pub const LOCK: Action = Action(14);

    /// Nobody knows the block's size.
    #[must_use]
    pub const fn unsized_block(self) -> Action {
        self.product(NONE, NONE)
    }

    /// The block's size is argument `argument`.
    #[must_use]
    pub const fn sized(self, argument: u32) -> Action {
        self.product(argument, NONE)
    }

    /// The block's size is the product of two arguments.
    #[must_use]
    pub const fn product(self, one: u32, other: u32) -> Action {
        Action(self.0 | (one & 0xf) << ONE | (other & 0xf) << OTHER)
    }

    /// The block to free, or where one is to be stored, is argument `argument`; without this,
    /// argument 0.
    #[must_use]
    pub const fn at(self, argument: u32) -> Action {
        Action(self.0 & !(0xf << POINTER) | (argument & 0xf) << POINTER)
    }

    /// The function takes so many arguments.
    #[must_use]
    pub const fn takes(self, arguments: u32) -> Action {
        Action(self.0 & !(0xf << TAKEN) | (arguments & 0xf) << TAKEN)
    }

    /// The function may throw.
    #[must_use]
    pub const fn throwing(self) -> Action {
        Action(self.0 | THROWS)
    }

    /// The old block is freed even if there is no new one: `reallocf(3)`.
    #[must_use]
    pub const fn freeing_on_failure(self) -> Action {
        Action(self.0 | FREES_ON_FAILURE)
    }

    /// What is called is a twin that returns null where the original throws.
    #[must_use]
    pub const fn by_twin(self) -> Action {
        Action(self.0 | BY_TWIN)
    }

    /// As of a function that takes one more argument, before all others.
    #[cfg(feature = "table")]
    pub(crate) fn shifted(self) -> Action {
        let moved = |field: u32| (self.0 >> field & 0xf).wrapping_add(1);
        let one = moved(ONE);
        let other = if self.0 >> OTHER & 0xf == NONE {
            NONE
        } else {
            moved(OTHER)
        };
        let rest = Action(self.0 & !(0xff << ONE)).product(one, other);
        rest.at(moved(POINTER)).takes(moved(TAKEN))
    }

    /// The word.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// What somebody says was [`Action::bits`]: any word is an action, if only one that does
    /// nothing.
    pub const fn from_bits(bits: u32) -> Action {
        Action(bits)
    }

    /// The action without its arguments: one of the constants.
    #[inline]
    pub const fn shape(self) -> Action {
        Action(self.0 & Action::SHAPE)
    }

    /// See [`Action::by_twin`].
    #[inline]
    pub const fn is_by_twin(self) -> bool {
        self.0 & BY_TWIN != 0
    }

    /// See [`Action::throwing`].
    pub const fn throws(self) -> bool {
        self.0 & THROWS != 0
    }

    /// See [`Action::freeing_on_failure`].
    #[inline]
    pub const fn frees_on_failure(self) -> bool {
        self.0 & FREES_ON_FAILURE != 0
    }

    /// How many arguments the function takes.
    pub const fn arguments(self) -> u32 {
        self.0 >> TAKEN & 0xf
    }

    /// True if only the first `count` arguments say what a call does.
    pub fn is_told_by(self, count: u32) -> bool {
        let is_below = |field: u32| {
            let argument = self.0 >> field & 0xf;
            argument < count || argument == NONE
        };
        is_below(ONE) && is_below(OTHER) && is_below(POINTER)
    }

    /// True of functions that change what is mapped, or say that something else does; the
    /// allocator's are none of them.
    pub const fn is_mapping(self) -> bool {
        self.shape().0 >= Action::MAP.0
    }

    /// True of functions that only free.
    pub const fn is_free(self) -> bool {
        self.shape().0 == Action::FREE.0
    }

    /// Bytes asked for by a call with `arguments`, 0 if nobody knows; nothing for a product beyond
    /// 64 bits, which never succeeds.
    #[inline]
    pub fn size(self, arguments: &[u64]) -> Option<u64> {
        const FIRST: u32 = Action(0).sized(0).0;
        if self.0 & (0xff << ONE) == FIRST {
            return arguments.first().copied();
        }
        let argument = |field: u32| arguments.get((self.0 >> field & 0xf) as usize).copied();
        if self.0 >> ONE & 0xf == NONE {
            return Some(0);
        }
        let one = argument(ONE)?;
        match argument(OTHER) {
            Some(other) => one.checked_mul(other),
            None => Some(one),
        }
    }

    /// The block that a call with `arguments` frees, or resizes; nothing if it does neither, or if
    /// that is null.
    #[inline]
    pub fn block(self, arguments: &[u64]) -> Option<u64> {
        match self.shape() {
            Action::FREE | Action::REALLOCATE | Action::RESIZE => {
                let block = arguments.get((self.0 >> POINTER & 0xf) as usize).copied();
                block.filter(|block| *block != 0)
            }
            _ => None,
        }
    }

    /// Where a call with `arguments` stores its block.
    #[inline]
    pub fn place(self, arguments: &[u64]) -> Option<u64> {
        let is_its = self.shape() == Action::ALLOCATE_INTO;
        let place = arguments.get((self.0 >> POINTER & 0xf) as usize).copied();
        place.filter(|_| is_its)
    }

    /// True if a call whose argument 2 is `advice` is of no interest.
    #[inline]
    pub const fn is_idle(self, advice: u64) -> bool {
        // An int: the upper half of the register means nothing.
        let gives_back = matches!(advice as u32, MADV_DONTNEED | MADV_FREE);
        self.shape().0 == Action::GIVE_BACK.0 && !gives_back
    }

    /// True if a call whose argument 0 is `flags` fills all that is mapped with pages.
    #[inline]
    pub const fn fills(self, flags: u64) -> bool {
        self.shape().0 == Action::LOCK.0 && flags & (MCL_CURRENT | MCL_ONFAULT) == MCL_CURRENT
    }

    /// True if a call whose argument 3 is `flags` may unmap argument 1 bytes at argument 0.
    #[inline]
    pub const fn unmaps(self, flags: u64) -> bool {
        match self.shape() {
            Action::UNMAP | Action::REMAP => true,
            Action::MAP => flags & MAP_FIXED != 0,
            _ => false,
        }
    }

    /// True if a call whose argument 2 is `how` may leave pages mapped that cannot be read.
    #[inline]
    pub const fn closes(self, how: u64) -> bool {
        match self.shape() {
            Action::PROTECT => how & PROT_READ == 0,
            Action::GIVE_BACK => how as u32 == MADV_GUARD_INSTALL,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_from_the_arguments() {
        let cases = [
            (Action::ALLOCATE.sized(0), [1, 2, 3, 4], Some(1)),
            (Action::ALLOCATE.sized(1), [1, 2, 3, 4], Some(2)),
            (Action::ALLOCATE.product(0, 1), [3, 4, 5, 6], Some(12)),
            (Action::REALLOCATE.product(1, 2), [0, 1 << 63, 2, 0], None),
            (Action::REALLOCATE.product(2, 3), [0, 0, 5, 6], Some(30)),
        ];
        for (action, arguments, size) in cases {
            assert_eq!(action.size(&arguments), size, "{action:?}");
        }
    }

    #[test]
    fn the_block_is_where_the_function_has_it() {
        let arguments = [7, 8, 0];
        let cases = [
            (Action::FREE, Some(7)),
            (Action::REALLOCATE.sized(2).at(1), Some(8)),
            (Action::FREE.at(2), None),
            (Action::ALLOCATE.sized(0), None),
            (Action::UNMAP, None),
        ];
        for (action, block) in cases {
            assert_eq!(action.block(&arguments), block, "{action:?}");
        }
    }

    #[test]
    fn what_may_be_unmapped() {
        for (action, always, fixed) in [
            (Action::MAP, false, true),
            (Action::UNMAP, true, true),
            (Action::REMAP, true, true),
            (Action::SET_BREAK, false, false),
            (Action::PROTECT, false, false),
        ] {
            assert_eq!(
                (action.unmaps(2), action.unmaps(MAP_FIXED)),
                (always, fixed)
            );
        }
    }

    #[test]
    fn what_may_close_pages() {
        for (action, how, closes) in [
            (Action::PROTECT, 0, true),
            (Action::PROTECT, 5, false),
            (Action::GIVE_BACK, 102, true),
            (Action::GIVE_BACK, 4, false),
            (Action::UNMAP, 0, false),
        ] {
            assert_eq!(action.closes(how), closes, "{action:?} {how}");
        }
    }
}
