use alloc::borrow::Cow;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::Action;
use crate::table::{PREFIXED, SHIFTED, STANDARD};

/// Which function: the one byte that a live block keeps of who allocated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId(pub u8);

/// A function worth a probepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its symbol, as in the ELF file.
    pub name: Cow<'static, str>,
    /// How people write it: `operator new` for `_Znwm`.
    pub display: Cow<'static, str>,
    /// What a call of it does.
    pub action: Action,
}

/// The functions that leaktap knows, by number. Clones share the list.
#[derive(Clone, Debug)]
pub struct Functions(Arc<Vec<Function>>);

impl Default for Functions {
    /// Those that are known without being told: [`Functions::standard`] first, then what the known
    /// allocators have besides.
    fn default() -> Functions {
        let standard = STANDARD.iter().map(|&(name, display, action)| Function {
            name: Cow::Borrowed(name),
            display: Cow::Borrowed(if display.is_empty() { name } else { display }),
            action,
        });
        let own = PREFIXED.iter().flat_map(|family| {
            let of_standard = family.standard.iter().filter_map(|name| {
                let (.., action) = STANDARD.iter().find(|(standard, ..)| standard == name)?;
                Some((*name, *action))
            });
            let all = of_standard.chain(family.more.iter().copied());
            all.map(|(name, action)| named(family.prefix, name, action))
        });
        let shifted = SHIFTED.iter().flat_map(|&(prefix, functions)| {
            let all = functions.iter();
            all.map(move |&(name, action)| named(prefix, name, action.shifted()))
        });
        Functions(Arc::new(standard.chain(own).chain(shifted).collect()))
    }
}

fn named(prefix: &str, name: &str, action: Action) -> Function {
    let name: Cow<'static, str> = Cow::Owned(format!("{prefix}{name}"));
    Function {
        display: name.clone(),
        name,
        action,
    }
}

impl Function {
    /// True of functions that allocate from the heap or free.
    pub fn is_of_heap(&self) -> bool {
        !self.action.is_mapping()
    }

    /// True of those that allocate from the heap.
    pub fn allocates(&self) -> bool {
        self.is_of_heap() && !self.action.is_free()
    }
}

impl Functions {
    /// One more. Nothing if there is no number left, or one of that name is known.
    pub fn add(&mut self, function: Function) -> Option<FunctionId> {
        let id = FunctionId(u8::try_from(self.0.len()).ok()?);
        if self.0.iter().any(|known| known.name == function.name) {
            return None;
        }
        Arc::make_mut(&mut self.0).push(function);
        Some(id)
    }

    /// The function with this number.
    pub fn get(&self, id: FunctionId) -> Option<&Function> {
        self.0.get(usize::from(id.0))
    }

    /// All of them, in the order of their numbers: what an allocator may have.
    pub fn all(&self) -> impl Iterator<Item = (FunctionId, &Function)> {
        (0..=u8::MAX).map(FunctionId).zip(self.0.iter())
    }

    /// Those with the names that programs call, whichever allocator defines them: C, C++,
    /// jemalloc(3)'s own, and the mmap(2) family.
    pub fn standard(&self) -> impl Iterator<Item = (FunctionId, &Function)> {
        self.all().take(STANDARD.len())
    }

    /// What a call of a function does.
    pub fn action(&self, id: FunctionId) -> Option<Action> {
        Some(self.get(id)?.action)
    }

    /// The function's symbol.
    pub fn name(&self, id: FunctionId) -> &str {
        self.get(id).map_or("?", |known| &known.name)
    }

    /// How people write the function's name.
    pub fn display(&self, id: FunctionId) -> &str {
        self.get(id).map_or("?", |known| &known.display)
    }

    /// True of functions that only free.
    pub fn frees(&self, id: FunctionId) -> bool {
        self.action(id).is_some_and(Action::is_free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_function_has_an_id_of_its_own() {
        let functions = Functions::default();
        let mut names = HashSet::new();
        for (id, function) in functions.all() {
            assert_eq!(functions.get(id), Some(function));
            assert!(names.insert(&function.name), "{}", function.name);
        }
        assert_eq!(functions.all().count(), functions.0.len());
        assert_eq!(functions.get(FunctionId(u8::MAX)), None);
    }

    #[test]
    fn there_are_numbers_left_for_functions_that_leaktap_is_told_of() {
        let mut functions = Functions::default();
        let known = functions.0.len();
        assert!(known <= 200, "{known}");
        let get = named("", "pool_get", Action::ALLOCATE.sized(1));
        let id = functions.add(get.clone()).expect("there is room");
        assert_eq!((usize::from(id.0), functions.name(id)), (known, "pool_get"));
        assert_eq!(functions.add(get), None);
        let fill =
            (0..256).filter_map(|n| functions.add(named("f", &format!("{n}"), Action::FREE)));
        assert_eq!(fill.count(), 255 - known);
    }

    #[test]
    fn forms_with_a_prefix_do_what_their_standard_forms_do() {
        let functions = Functions::default();
        let action = |name: &str| {
            let mut all = functions.all();
            let found = all.find(|(_, function)| function.name == name);
            found.map(|(_, function)| function.action)
        };
        for (one, other) in [
            ("_rjem_malloc", "malloc"),
            ("je_sdallocx", "sdallocx"),
            ("tc_posix_memalign", "posix_memalign"),
            ("__libc_memalign", "memalign"),
            ("mi_reallocarray", "reallocarray"),
            ("tc_new", "_Znwm"),
            ("mi_new_n", "mi_new_n"),
        ] {
            assert!(action(one).is_some(), "{one}");
            assert_eq!(action(one), action(other), "{one}");
        }
        let of_heap = action("mi_heap_recalloc").expect("known");
        assert_eq!(of_heap.block(&[1, 2, 3, 4]), Some(2));
        assert_eq!(of_heap.size(&[1, 2, 3, 4]), Some(12));
        let of_arena = action("moz_arena_realloc").expect("known");
        assert_eq!(of_arena.block(&[1, 2, 3]), Some(2));
        assert_eq!(of_arena.size(&[1, 2, 3]), Some(3));
        assert_eq!(of_heap.arguments(), 4);
    }

    #[test]
    fn only_argument_registers_say_what_a_call_does() {
        for (_, function) in Functions::default().all() {
            let action = function.action;
            assert!(action.arguments() <= 6, "{}", function.name);
            assert!(action.is_mapping() || action.is_told_by(action.arguments()));
        }
    }
}
