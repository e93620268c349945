//! What is wrong with a free: told by what is known of it, of the heap, and of symbols.

use leaktap_ledger::{Block, Former, Misfree};

/// What a free was that found no live block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It was freed before.
    Twice(Former),
    /// It lies so far inside a live block.
    Inside(Block, u64),
    /// It is a block of another allocator.
    Foreign(Block),
    /// No block was ever near it.
    Never,
    /// Former too long ago to be remembered, or never allocated.
    NoBlock,
}

impl Wrong {
    /// Whether it may be that nobody has seen how the block was allocated.
    pub(crate) fn is_unseen(self) -> bool {
        matches!(self, Wrong::Twice(_) | Wrong::Never | Wrong::NoBlock)
    }
}

/// What `misfree` was. `holder` is a block that has its address in it; `is_of_heap` says whether
/// blocks were ever near.
pub(crate) fn judge(misfree: &Misfree, holder: Option<Block>, is_of_heap: bool) -> Wrong {
    let holder = holder.filter(|block| block.time <= misfree.time);
    match (misfree.earlier, holder) {
        (Some(earlier), _) => Wrong::Twice(earlier),
        (None, Some(block)) => match misfree.key.addr() - block.key.addr() {
            0 => Wrong::Foreign(block),
            offset => Wrong::Inside(block, offset),
        },
        (None, None) if is_of_heap => Wrong::NoBlock,
        (None, None) => Wrong::Never,
    }
}

/// True of a block that has the address of `misfree` in it. One that begins there was allocated
/// later, unless it is another allocator's.
pub(crate) fn holds(block: &Block, misfree: &Misfree) -> bool {
    let offset = misfree.key.addr().checked_sub(block.key.addr());
    let is_other = block.key.family() != misfree.key.family();
    offset.is_some_and(|offset| (offset > 0 || is_other) && offset < block.size)
}

/// Who allocates blocks that have to be freed by one of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    Malloc,
    New,
    NewArray,
    /// One of the operators.
    AnyNew,
}

/// Who frees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freer {
    Free,
    Delete,
    DeleteArray,
    /// One of the operators.
    AnyDelete,
}

impl Maker {
    /// Of what is known of an allocation: the function that was probed, the one that the stack's
    /// innermost frame is in, and what that frame and the next one call. All are symbols. `is_libc`
    /// is true of an innermost frame in the C library, which has no operators. Nothing if it could
    /// be one or the other.
    pub(crate) fn of(
        probed: &str,
        inside: Option<&str>,
        [called, next_called]: [Option<&str>; 2],
        is_libc: bool,
    ) -> Option<Maker> {
        let operator = |name: Option<&str>| match name {
            Some(name) if name.starts_with("_Znw") => Some(Maker::New),
            Some(name) if name.starts_with("_Zna") => Some(Maker::NewArray),
            _ => None,
        };
        match (operator(Some(probed)), operator(inside)) {
            // In tcmalloc and mimalloc both operators are one function, which has one name here.
            (Some(_), _) => Some(operator(called).unwrap_or(Maker::AnyNew)),
            // `operator new[]` may call, or end as, `operator new`.
            (None, Some(_)) => Some(operator(next_called).unwrap_or(Maker::AnyNew)),
            (None, None) if called == Some(probed) || is_libc => Some(Maker::Malloc),
            (None, None) => operator(called),
        }
    }

    /// How people write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Maker::Malloc => "malloc",
            Maker::New => "new",
            Maker::NewArray => "new[]",
            Maker::AnyNew => "operator new",
        }
    }
}

impl Freer {
    /// Of the function that a free returns to, and the one that is called there. Nothing if it
    /// could be one or the other.
    pub(crate) fn of(inside: Option<&str>, called: Option<&str>) -> Option<Freer> {
        let operator = |name: Option<&str>| match name {
            Some(name) if name.starts_with("_Zdl") => Some(Freer::Delete),
            Some(name) if name.starts_with("_Zda") => Some(Freer::DeleteArray),
            _ => None,
        };
        match (operator(inside), called) {
            (Some(_), _) => Some(Freer::AnyDelete),
            (None, Some("free" | "cfree" | "realloc" | "reallocarray")) => Some(Freer::Free),
            (None, called) => operator(called),
        }
    }

    /// Whether it frees what `maker` has made.
    pub(crate) fn is_for(self, maker: Maker) -> bool {
        match (self, maker) {
            (Freer::Free, maker) => maker == Maker::Malloc,
            (_, Maker::Malloc) => false,
            (Freer::AnyDelete, _) | (_, Maker::AnyNew) => true,
            (Freer::Delete, maker) => maker == Maker::New,
            (Freer::DeleteArray, maker) => maker == Maker::NewArray,
        }
    }

    /// How people write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Freer::Free => "free",
            Freer::Delete => "delete",
            Freer::DeleteArray => "delete[]",
            Freer::AnyDelete => "operator delete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leaktap_ledger::{FamilyId, Key, StackId};

    const FREED: Former = Former {
        stack: StackId(2),
        by: 7,
    };
    const KEY: Key = Key::new(FamilyId::FIRST, 0x1010);

    fn misfree(earlier: Option<Former>) -> Misfree {
        Misfree {
            key: KEY,
            stack: StackId(1),
            time: 5,
            earlier,
        }
    }

    fn block(at: u64, size: u64, time: u32) -> Block {
        Block {
            key: at.into(),
            size,
            stack: StackId(2),
            time,
        }
    }

    #[test]
    fn what_is_known_of_a_free_decides() {
        let (old, young) = (block(0x1000, 64, 5), block(0x1000, 64, 6));
        let other = of_another(block(0x1010, 64, 5));
        for (earlier, holder, is_of_heap, expected) in [
            (Some(FREED), None, true, Wrong::Twice(FREED)),
            (Some(FREED), Some(old), true, Wrong::Twice(FREED)),
            (None, Some(old), true, Wrong::Inside(old, 16)),
            (None, Some(young), true, Wrong::NoBlock),
            (None, Some(other), false, Wrong::Foreign(other)),
            (None, None, true, Wrong::NoBlock),
            (None, None, false, Wrong::Never),
        ] {
            assert_eq!(judge(&misfree(earlier), holder, is_of_heap), expected);
        }
    }

    fn of_another(block: Block) -> Block {
        Block {
            key: Key::new(FamilyId::new(3), block.key.addr()),
            ..block
        }
    }

    #[test]
    fn a_block_holds_what_is_behind_its_first_byte_and_before_its_end() {
        for (at, size, expected) in [
            (0x1000, 17, true),
            (0x1000, 16, false),
            (0x1010, 64, false),
            (0x1011, 64, false),
        ] {
            let holds = holds(&block(at, size, 0), &misfree(None));
            assert_eq!(holds, expected, "{at:#x} {size}");
        }
        assert!(super::holds(
            &of_another(block(0x1010, 64, 0)),
            &misfree(None)
        ));
    }

    #[test]
    fn who_has_allocated() {
        let table = [
            // Probed, frame in, frame calls, next frame calls.
            ("malloc", "main", "malloc", "", Some(Maker::Malloc)),
            ("malloc", "_Znwm", "malloc", "_Znwm", Some(Maker::New)),
            ("malloc", "_Znwm", "malloc", "_Znam", Some(Maker::NewArray)),
            ("malloc", "_Znwm", "malloc", "", Some(Maker::AnyNew)),
            // The program's own operator, which ends as malloc.
            ("malloc", "main", "_Znwm", "", Some(Maker::New)),
            ("_Znam", "main", "_Znam", "", Some(Maker::NewArray)),
            ("malloc", "main", "xmalloc", "", None),
            ("malloc", "main", "", "", None),
        ];
        for (probed, inside, called, next, expected) in table {
            let called = [called, next].map(|name| Some(name).filter(|name| !name.is_empty()));
            let maker = Maker::of(probed, Some(inside), called, false);
            assert_eq!(maker, expected, "{probed} {inside} {called:?}");
        }
        let in_strdup = Maker::of("malloc", Some("strdup"), [None, Some("strdup")], true);
        assert_eq!(in_strdup, Some(Maker::Malloc));
    }

    #[test]
    fn who_has_freed() {
        for (inside, called, expected) in [
            ("main", "free", Some(Freer::Free)),
            ("main", "_ZdlPvm", Some(Freer::Delete)),
            ("main", "_ZdaPv", Some(Freer::DeleteArray)),
            ("_ZdlPv", "free", Some(Freer::AnyDelete)),
            ("main", "drop", None),
        ] {
            assert_eq!(Freer::of(Some(inside), Some(called)), expected, "{called}");
        }
        assert_eq!(Freer::of(Some("main"), None), None);
    }

    #[test]
    fn who_is_for_whom() {
        use Maker::{AnyNew, Malloc, New, NewArray};
        for (freer, makers) in [
            (Freer::Free, &[Malloc][..]),
            (Freer::Delete, &[New, AnyNew]),
            (Freer::DeleteArray, &[NewArray, AnyNew]),
            (Freer::AnyDelete, &[New, NewArray, AnyNew]),
        ] {
            for maker in [Malloc, New, NewArray, AnyNew] {
                assert_eq!(
                    freer.is_for(maker),
                    makers.contains(&maker),
                    "{freer:?} {maker:?}"
                );
            }
        }
    }
}
