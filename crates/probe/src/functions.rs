//! The functions that leaktap knows: which to look for, and what a call of each does.

use std::ops::Range;

use leaktap_agent::layout::MAP_FIXED;
use leaktap_memory::Addr;

/// Index into [`FUNCTIONS`]: the one byte that a live block keeps of who allocated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId(pub u8);

/// A function worth a probepoint.
#[derive(Debug)]
pub struct Function {
    /// Its symbol, as in the ELF file.
    pub name: &'static str,
    /// How people write it: `operator new(unsigned long)` for `_Znwm`.
    pub display: &'static str,
    /// What a call of it does.
    pub action: Action,
}

/// What a call does, told by its arguments (integer arguments of the System V psABI, from 0) and
/// by its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Returns a block, or null.
    Allocate(Size),
    /// Returns 0 and stores a block where argument 0 points to: `posix_memalign(3)`.
    AllocateInto(Size),
    /// Frees argument 0 and returns a block in its place, or null and keeps it: `realloc(3)`.
    Reallocate(Size),
    /// Frees argument 0.
    Free,
    /// `mmap(2)`: returns a region of argument 1 bytes.
    Map,
    /// `munmap(2)`: argument 0 is the address, argument 1 the length.
    Unmap,
    /// `mremap(2)`: arguments are old address, old length, new length.
    Remap,
    /// `brk(2)`: argument 0 is the new end of the heap segment; the old one is put for argument 1.
    SetBreak,
    /// `mprotect(2)`: arguments are address, length, protection. What it allows may be to write
    /// over our code.
    Protect,
    /// `sbrk(2)`: argument 0 is the signed change; returns the old end.
    MoveBreak,
}

/// The bytes that a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// This argument.
    Argument(usize),
    /// The product of these two; a product beyond 64 bits never succeeds.
    Product(usize, usize),
}

impl Size {
    /// Bytes asked for by a call with `arguments`, or nothing if that is no number of bytes.
    pub fn of(self, arguments: &[u64; 3]) -> Option<u64> {
        match self {
            Size::Argument(i) => arguments.get(i).copied(),
            Size::Product(i, j) => arguments.get(i)?.checked_mul(*arguments.get(j)?),
        }
    }
}

impl Action {
    /// What a call with these arguments may unmap.
    pub fn unmaps(self, argument: impl Fn(usize) -> u64) -> Option<Range<Addr>> {
        match self {
            Action::Map if argument(3) & MAP_FIXED != 0 => {}
            Action::Unmap | Action::Remap => {}
            _ => return None,
        }
        let start = Addr::new(argument(0));
        Some(start..start.checked_add(argument(1)).unwrap_or(start))
    }

    /// True of the functions that get memory from the kernel rather than from the allocator.
    pub fn is_mapping(self) -> bool {
        matches!(
            self,
            Action::Map
                | Action::Unmap
                | Action::Remap
                | Action::SetBreak
                | Action::MoveBreak
                | Action::Protect
        )
    }
}

impl FunctionId {
    /// The function, or nothing for a number that is none.
    pub fn function(self) -> Option<&'static Function> {
        FUNCTIONS.get(usize::from(self.0))
    }

    /// True of functions that allocate from the heap or free.
    pub fn is_of_heap(self) -> bool {
        self.function()
            .is_some_and(|known| !known.action.is_mapping())
    }

    /// True of those that only free.
    pub fn frees(self) -> bool {
        self.function()
            .is_some_and(|known| known.action == Action::Free)
    }

    /// How people write the function's name.
    pub fn display(self) -> &'static str {
        self.function().map_or("?", |function| function.display)
    }
}

/// All functions with their ids.
pub fn all() -> impl Iterator<Item = (FunctionId, &'static Function)> {
    (0..=u8::MAX).map(FunctionId).zip(FUNCTIONS)
}

const fn c(name: &'static str, action: Action) -> Function {
    Function {
        name,
        display: name,
        action,
    }
}

const fn cpp(name: &'static str, display: &'static str, action: Action) -> Function {
    Function {
        name,
        display,
        action,
    }
}

const NEW: Action = Action::Allocate(Size::Argument(0));

/// What is looked for, in this order: C (malloc(3), posix_memalign(3), C23), C++ (Itanium ABI
/// names of the replaceable operators), jemalloc(3)'s own, then the mmap family.
pub static FUNCTIONS: &[Function] = &[
    c("malloc", Action::Allocate(Size::Argument(0))),
    c("calloc", Action::Allocate(Size::Product(0, 1))),
    c("realloc", Action::Reallocate(Size::Argument(1))),
    c("reallocarray", Action::Reallocate(Size::Product(1, 2))),
    c("free", Action::Free),
    c("cfree", Action::Free),
    c("free_sized", Action::Free),
    c("free_aligned_sized", Action::Free),
    c("memalign", Action::Allocate(Size::Argument(1))),
    c("aligned_alloc", Action::Allocate(Size::Argument(1))),
    c("posix_memalign", Action::AllocateInto(Size::Argument(2))),
    c("valloc", Action::Allocate(Size::Argument(0))),
    c("pvalloc", Action::Allocate(Size::Argument(0))),
    cpp("_Znwm", "operator new", NEW),
    cpp("_Znam", "operator new[]", NEW),
    cpp("_ZnwmRKSt9nothrow_t", "operator new", NEW),
    cpp("_ZnamRKSt9nothrow_t", "operator new[]", NEW),
    cpp("_ZnwmSt11align_val_t", "operator new", NEW),
    cpp("_ZnamSt11align_val_t", "operator new[]", NEW),
    cpp("_ZnwmSt11align_val_tRKSt9nothrow_t", "operator new", NEW),
    cpp("_ZnamSt11align_val_tRKSt9nothrow_t", "operator new[]", NEW),
    cpp("_ZdlPv", "operator delete", Action::Free),
    cpp("_ZdaPv", "operator delete[]", Action::Free),
    cpp("_ZdlPvm", "operator delete", Action::Free),
    cpp("_ZdaPvm", "operator delete[]", Action::Free),
    cpp("_ZdlPvRKSt9nothrow_t", "operator delete", Action::Free),
    cpp("_ZdaPvRKSt9nothrow_t", "operator delete[]", Action::Free),
    cpp("_ZdlPvSt11align_val_t", "operator delete", Action::Free),
    cpp("_ZdaPvSt11align_val_t", "operator delete[]", Action::Free),
    cpp("_ZdlPvmSt11align_val_t", "operator delete", Action::Free),
    cpp("_ZdaPvmSt11align_val_t", "operator delete[]", Action::Free),
    c("mallocx", Action::Allocate(Size::Argument(0))),
    c("rallocx", Action::Reallocate(Size::Argument(1))),
    c("dallocx", Action::Free),
    c("sdallocx", Action::Free),
    c("mmap", Action::Map),
    c("mmap64", Action::Map),
    c("munmap", Action::Unmap),
    c("mremap", Action::Remap),
    c("brk", Action::SetBreak),
    c("sbrk", Action::MoveBreak),
    c("mprotect", Action::Protect),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_an_id_of_its_own() {
        assert_eq!(all().count(), FUNCTIONS.len());
        for (id, function) in all() {
            assert_eq!(id.function().map(|f| f.name), Some(function.name));
            let same = FUNCTIONS.iter().filter(|f| f.name == function.name);
            assert_eq!(same.count(), 1, "{}", function.name);
        }
        assert!(FunctionId(u8::MAX).function().is_none());
    }

    #[test]
    fn sizes_come_from_the_arguments() {
        assert_eq!(Size::Argument(1).of(&[1, 2, 3]), Some(2));
        assert_eq!(Size::Product(0, 1).of(&[3, 4, 5]), Some(12));
        assert_eq!(Size::Product(1, 2).of(&[0, 1 << 63, 2]), None);
    }
}
