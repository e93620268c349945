//! The code that allocators run: their functions, and all that these lead to in the same module.

use std::collections::HashSet;
use std::ops::Range;

use leaktap_image::{Changes, ElfFile, Image, Module};
use leaktap_memory::{Addr, Svma};

use super::by_module::ByModule;
use super::{Family, User};
use crate::arch::{self, Callee};
use crate::extents::functions;

/// Most functions that a module's allocators are followed to, nearest first: jemalloc has 1,000.
const MOST_FUNCTIONS: usize = 4096;

/// That code of each module, as far as it was asked for.
#[derive(Debug, Default)]
pub(super) struct Reach(ByModule<Option<Reached>>);

#[derive(Debug)]
struct Reached {
    /// Where the allocators' functions begin.
    from: Vec<Svma>,
    /// Sorted.
    code: Vec<Range<Svma>>,
}

impl Reach {
    /// Forgets modules that are gone.
    pub(super) fn update(&mut self, image: &Image) {
        self.0.update(image, |_| None);
    }

    /// As [`Reach::update`], where nothing has changed but `changes`.
    pub(super) fn follow(&mut self, changes: &Changes) {
        self.0.follow(changes, |_| None);
    }

    /// Whether `at` is code that an allocator among `families` runs. Not one that a user has told
    /// of: its functions may lead anywhere in the program.
    pub(super) fn holds(&mut self, image: &Image, families: &[Family], at: Addr) -> bool {
        let index = image.index_at(at);
        let module = index.and_then(|index| image.modules().get(index));
        let (Some(index), Some(module)) = (index, module) else {
            return false;
        };
        let known = families.iter().filter(|family| family.user != User::Told);
        let here = known.flat_map(|family| &family.functions);
        let here = here.filter(|member| member.module == index);
        let from: Vec<Svma> = here
            .filter_map(|member| Some(module.svma(member.code.addr()?)))
            .collect();
        let Some(known) = self.0.get_mut(module).filter(|_| !from.is_empty()) else {
            return false;
        };
        if known.as_ref().is_none_or(|known| known.from != from) {
            let code = reached(module, &from);
            *known = Some(Reached { from, code });
        }
        known
            .as_ref()
            .is_some_and(|known| is_in(&known.code, module.svma(at)))
    }
}

/// The functions of `module` that those at `from` call or jump to, and those that these do, and so
/// on: by distance, or through a slot for a name that the module defines.
fn reached(module: &Module, from: &[Svma]) -> Vec<Range<Svma>> {
    let file = module.file();
    let mut extents = Extents::of(module);
    let mut targets: HashSet<Svma> = HashSet::new();
    let mut found: Vec<Range<Svma>> = Vec::new();
    let mut next = 0;
    let mut leads_to = from.to_vec();
    loop {
        for at in leads_to.drain(..) {
            if targets.insert(at)
                && let Some(function) = extents.function_at(at)
                && found.len() < MOST_FUNCTIONS
                && (function.start == at || targets.insert(function.start))
            {
                found.push(function);
            }
        }
        let Some(function) = found.get(next) else {
            break;
        };
        next += 1;
        let callees = arch::callees(file, function).into_iter();
        leads_to.extend(callees.filter_map(|callee| defined(file, callee)));
    }
    found.sort_by_key(|function| function.start);
    found
}

fn defined(file: &ElfFile, callee: Callee) -> Option<Svma> {
    match callee {
        Callee::Here(at) => Some(at),
        Callee::Slot(slot) => {
            let name = file.referred_to_at(slot)?;
            Some(file.definition(&name, None)?.svma)
        }
    }
}

/// Where functions begin and end: by symbols, else by call frame information.
struct Extents<'m> {
    module: &'m Module,
    by_frames: Option<Vec<Range<Svma>>>,
}

impl Extents<'_> {
    fn of(module: &Module) -> Extents<'_> {
        let by_frames = None;
        Extents { module, by_frames }
    }

    fn function_at(&mut self, at: Svma) -> Option<Range<Svma>> {
        let by_symbol = arch::by_symbol(self.module.file(), at);
        by_symbol.or_else(|| {
            let by_frames = &mut self.by_frames;
            let all = by_frames.get_or_insert_with(|| functions(self.module));
            last_before(all, at).cloned()
        })
    }
}

fn is_in(sorted: &[Range<Svma>], at: Svma) -> bool {
    last_before(sorted, at).is_some()
}

/// That of `sorted` which starts last before `at`, and holds it.
fn last_before(sorted: &[Range<Svma>], at: Svma) -> Option<&Range<Svma>> {
    let after = sorted.partition_point(|function| function.start <= at);
    let before = sorted.get(after.checked_sub(1)?)?;
    before.contains(&at).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_in_the_function_that_starts_last_before_it() {
        let range = |start, end| Svma(start)..Svma(end);
        let all = [range(0x10, 0x20), range(0x30, 0x38)];
        let within = |at| is_in(&all, Svma(at));
        let found = [0xf, 0x10, 0x1f, 0x20, 0x30, 0x38].map(within);
        assert_eq!(found, [false, true, true, false, true, false]);
    }
}
