//! What each module uses of allocators: by that it is known that a module which comes or goes
//! changes nothing, without a look at all the others.

use std::collections::HashMap;

use leaktap_api::Functions;
use leaktap_image::{Bindings, Bound, Changes, Code, Image, Key, Module};
use leaktap_memory::Addr;

/// That a module is bound to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Use {
    /// The first namespace that has it.
    namespace: Option<usize>,
    /// The function, as [`Bindings`] have it, and its code, or what chooses that.
    name: usize,
    at: Addr,
    is_known: bool,
    /// Where the module begins whose malloc it gets, or else whose free.
    asks: Option<Addr>,
}

/// How many modules have a use, and the first of them.
type Users = (usize, Key);

/// The uses of all modules.
#[derive(Debug, Default)]
pub(super) struct Uses {
    all: HashMap<Use, Users>,
    by_module: HashMap<Key, Vec<Use>>,
}

impl Uses {
    /// Those of the modules of `image`.
    pub(super) fn new(image: &Image, bindings: &Bindings, functions: &Functions) -> Uses {
        let mut namespaces = vec![None; image.modules().len()];
        for (number, list) in image.namespaces().iter().enumerate() {
            for index in list {
                if let Some(namespace) = namespaces.get_mut(*index) {
                    namespace.get_or_insert(number);
                }
            }
        }
        let mut uses = Uses::default();
        for (module, namespace) in image.modules().iter().zip(namespaces) {
            let known = of(module, namespace, image, bindings, functions);
            for one in &known {
                uses.all.entry(*one).or_insert((0, module.key())).0 += 1;
            }
            uses.by_module.insert(module.key(), known);
        }
        uses
    }

    /// Brings them up to date. False if some module has a use that none had before it, or one is
    /// gone that was the first to have one: they have to be made anew then.
    pub(super) fn follow(
        &mut self,
        changes: &Changes,
        image: &Image,
        bindings: &Bindings,
        functions: &Functions,
    ) -> bool {
        let mut removed = changes.removed.iter().map(Module::key);
        let mut added = changes.added.iter();
        removed.all(|key| self.remove(key))
            && added.all(|module| {
                let index = image.index_of(module);
                let has = |list: &Vec<usize>| index.is_some_and(|index| list.contains(&index));
                let namespace = image.namespaces().iter().position(has);
                let known = of(module, namespace, image, bindings, functions);
                self.add(module.key(), known)
            })
    }

    fn remove(&mut self, module: Key) -> bool {
        let uses = self.by_module.remove(&module).unwrap_or_default();
        uses.iter().all(|one| match self.all.get_mut(one) {
            Some((count, first)) if *first != module => {
                *count -= 1;
                true
            }
            _ => false,
        })
    }

    fn add(&mut self, module: Key, uses: Vec<Use>) -> bool {
        let are_known = uses.iter().all(|one| match self.all.get_mut(one) {
            Some((count, _)) => {
                *count += 1;
                true
            }
            None => false,
        });
        self.by_module.insert(module, uses);
        are_known
    }
}

fn of(
    module: &Module,
    namespace: Option<usize>,
    image: &Image,
    bindings: &Bindings,
    functions: &Functions,
) -> Vec<Use> {
    let all: Vec<_> = functions.all().map(|(_, known)| known).collect();
    let is_of_heap = |bound: &&Bound| {
        let known = all.get(bound.name).is_some_and(|known| known.is_of_heap());
        known && image.index_at(address(bound.code)).is_some()
    };
    let bound: Vec<&Bound> = bindings.of(module).iter().filter(is_of_heap).collect();
    let asked = |name: &str| {
        let is_it = |one: &&&Bound| all.get(one.name).is_some_and(|known| known.name == name);
        let at = address(bound.iter().find(is_it)?.code);
        image.module_at(at).map(|definer| definer.range().start)
    };
    let asks = asked("malloc").or_else(|| asked("free"));
    let one = |bound: &&Bound| Use {
        namespace,
        name: bound.name,
        at: address(bound.code),
        is_known: bound.code.addr().is_some(),
        asks,
    };
    bound.iter().map(one).collect()
}

fn address(code: Code) -> Addr {
    match code {
        Code::At(at) => at,
        Code::Unresolved { resolver } => resolver,
    }
}
