//! Which code a function name stands for in a process.

use leaktap_memory::{Addr, ReadMemory, Svma};

use crate::elf::Symbol;
use crate::{Image, Module};

/// A function of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Index in [`Image::modules`] of the module that defines it.
    pub module: usize,
    /// Its code.
    pub code: Code,
    /// Its symbol.
    pub symbol: Symbol,
}

/// Where a function's code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Here.
    At(Addr),
    /// An IFUNC that nothing has called or bound yet: its choice is not known.
    Unresolved {
        /// The function that chooses.
        resolver: Addr,
    },
}

impl Code {
    /// The address, where it is known.
    pub fn addr(self) -> Option<Addr> {
        match self {
            Code::At(addr) => Some(addr),
            Code::Unresolved { .. } => None,
        }
    }
}

impl Image {
    /// The definition of `name` that a reference without a version is bound to: the first in
    /// [`Image::modules`] order. Of several versions in that module the default one; if there is
    /// none, as for functions kept for old programs only (`cfree`), the first.
    ///
    /// Only symbols that the dynamic linker sees count, except in a static program, where it is
    /// the symbol table or nothing.
    pub fn resolve(&self, name: &str, memory: &dyn ReadMemory) -> Option<Resolved> {
        (0..self.modules().len()).find_map(|module| {
            let mut found = self.resolve_in(module, name, memory);
            (!found.is_empty()).then(|| found.swap_remove(0))
        })
    }

    /// All definitions of `name` in module number `module`, the one a reference without a version
    /// gets first; several versions may have different code. Nothing in the vdso: it is not
    /// searched for symbols.
    pub fn resolve_in(&self, module: usize, name: &str, memory: &dyn ReadMemory) -> Vec<Resolved> {
        let Some(definer) = self
            .modules()
            .get(module)
            .filter(|module| !module.is_vdso())
        else {
            return Vec::new();
        };
        let is_static = self.is_static() && module == 0;
        let mut found: Vec<Resolved> = Vec::new();
        for symbol in definer.file().functions(name) {
            if !symbol.dynamic && !is_static {
                continue;
            }
            let code = self.code(definer, &symbol, memory);
            if !found.iter().any(|other| other.code == code) {
                found.push(Resolved {
                    module,
                    code,
                    symbol,
                });
            }
        }
        found
    }

    pub(crate) fn code(&self, definer: &Module, symbol: &Symbol, memory: &dyn ReadMemory) -> Code {
        let at = definer.addr(symbol.svma);
        if !symbol.ifunc {
            return Code::At(at);
        }
        let chosen = chosen_at_start(definer, symbol.svma, memory).or_else(|| {
            let mut modules = self.modules().iter();
            modules.find_map(|user| bound(user, definer, &symbol.name, memory))
        });
        chosen.map_or(Code::Unresolved { resolver: at }, Code::At)
    }
}

/// What `definer` itself has in a slot for the function that `resolver` chooses (IRELATIVE). Until
/// it is relocated, that is no address of its code.
fn chosen_at_start(definer: &Module, resolver: Svma, memory: &dyn ReadMemory) -> Option<Addr> {
    let mut slots = definer.file().ifunc_slots(resolver).into_iter();
    slots.find_map(|slot| chosen(definer, slot, definer, memory))
}

/// What `user` has in a slot for function `name`, if it is code of `definer`.
fn bound(user: &Module, definer: &Module, name: &str, memory: &dyn ReadMemory) -> Option<Addr> {
    let references = user.file().references(name);
    let mut slots = references.iter().map(|reference| reference.slot.svma);
    slots.find_map(|slot| chosen(user, slot, definer, memory))
}

/// The word in a slot, if it points into the code of `definer` and no longer is what the file has
/// there: a lazy slot holds the address of its own PLT entry until the first call.
fn chosen(user: &Module, slot: Svma, definer: &Module, memory: &dyn ReadMemory) -> Option<Addr> {
    let word = memory.read_u64(user.addr(slot)).ok()?;
    let at_first = user.file().bytes_at(slot, 8)?;
    let at_first = u64::from_le_bytes(at_first.try_into().ok()?);
    let lazy = at_first != 0 && word == at_first.wrapping_add(user.bias());
    (!lazy && definer.has_code_at(Addr::new(word))).then(|| Addr::new(word))
}
