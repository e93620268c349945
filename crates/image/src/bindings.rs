//! Which code each module gets for the functions that it refers to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use leaktap_memory::{Addr, ReadMemory, Svma};

use crate::elf::ElfFile;
use crate::module::Key;
use crate::scope::{Definition, Namespace, Scopes};
use crate::{Changes, Code, Image, Module, Reference};

/// What a module gets for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What it calls it: an index of the names that [`Bindings`] are of.
    pub name: usize,
    /// The code.
    pub code: Code,
    /// A slot of it holds that; else it is what the dynamic linker would find.
    pub held: bool,
}

/// Who is bound to what, of some names. What is known of a module stays known, so that one that is
/// added costs the same however many there are.
#[derive(Debug, Default)]
pub struct Bindings {
    names: Vec<String>,
    known: HashMap<Key, Known>,
    /// Those that have slots which nobody could foretell.
    unsettled: HashSet<Key>,
    /// What each namespace of the image has loaded.
    namespaces: Vec<Namespace>,
}

/// What is known of a module. As long as its file is held, none other has its key.
#[derive(Debug)]
struct Known {
    _file: Arc<ElfFile>,
    bound: Vec<Bound>,
}

impl Bindings {
    /// Nothing yet; of these functions.
    pub fn new(names: Vec<String>) -> Bindings {
        Bindings {
            names,
            ..Bindings::default()
        }
    }

    /// Brings it up to date with the modules of `image`: those that are new are looked at, and
    /// those that had slots which nobody could foretell.
    pub fn update(&mut self, image: &Image, memory: &dyn ReadMemory) {
        let there: HashSet<Key> = image.modules().iter().map(Module::key).collect();
        self.known.retain(|key, _| there.contains(key));
        let lists = image.namespaces().iter().map(|list| modules(image, list));
        self.namespaces = lists.map(|list| Namespace::new(&list)).collect();
        let unsettled = std::mem::take(&mut self.unsettled);
        let is_open = |module: &&Module| {
            !self.known.contains_key(&module.key()) || unsettled.contains(&module.key())
        };
        let open: Vec<&Module> = image.modules().iter().filter(is_open).collect();
        self.look_at(&open, image, memory);
    }

    /// Brings it up to date with `image`, where nothing has changed but what `changes` say. False
    /// if these are not enough for that, or more has been found of other modules, too: it has to be
    /// updated then.
    pub fn follow(&mut self, image: &Image, changes: &Changes, memory: &dyn ReadMemory) -> bool {
        if changes.moves.is_none() || self.namespaces.len() != image.namespaces().len() {
            return false;
        }
        for gone in &changes.removed {
            self.known.remove(&gone.key());
            self.unsettled.remove(&gone.key());
            let mut namespaces = self.namespaces.iter_mut();
            if !namespaces.all(|namespace| namespace.remove(gone)) {
                return false;
            }
        }
        for added in &changes.added {
            let here = image.index_of(added);
            let has = |list: &[usize]| here.is_some_and(|here| list.contains(&here));
            for (namespace, list) in self.namespaces.iter_mut().zip(image.namespaces()) {
                if has(list) {
                    namespace.add(added);
                }
            }
        }
        let unsettled = std::mem::take(&mut self.unsettled);
        let is_open = |module: &&Module| unsettled.contains(&module.key());
        let open: Vec<&Module> = match unsettled.is_empty() {
            true => changes.added.iter().collect(),
            false => {
                let old = image.modules().iter().filter(is_open);
                old.chain(&changes.added).collect()
            }
        };
        self.look_at(&open, image, memory)
    }

    /// Each in the first namespace that has it; what the linker does not list has what its slots
    /// hold. False if that is not what was known before.
    fn look_at(&mut self, open: &[&Module], image: &Image, memory: &dyn ReadMemory) -> bool {
        let mut is_same = true;
        let mut left: HashMap<usize, &Module> = open
            .iter()
            .filter_map(|module| Some((image.index_of(module)?, *module)))
            .collect();
        let namespaces = std::mem::take(&mut self.namespaces);
        for (namespace, list) in namespaces.iter().zip(image.namespaces()) {
            let here: Vec<&Module> = match left.is_empty() {
                true => Vec::new(),
                false => list.iter().filter_map(|index| left.remove(index)).collect(),
            };
            is_same &= self.add(&here, &namespace.scopes(&here), image, memory);
        }
        self.namespaces = namespaces;
        let rest: Vec<&Module> = left.into_values().collect();
        is_same & self.add(&rest, &Namespace::default().scopes(&[]), image, memory)
    }

    fn add(
        &mut self,
        users: &[&Module],
        scopes: &Scopes<'_>,
        image: &Image,
        memory: &dyn ReadMemory,
    ) -> bool {
        let mut is_same = true;
        for user in users {
            let bound = self.of_module(user, scopes, image, memory);
            if !is_settled(&bound) {
                self.unsettled.insert(user.key());
            }
            let known = Known {
                _file: Arc::clone(user.file()),
                bound,
            };
            let before = self.known.insert(user.key(), known);
            is_same &= before.is_none_or(|before| before.bound == *self.of(user));
        }
        is_same
    }

    /// What `module` gets. More than one for a name if its slots differ, or if it has not been
    /// bound yet and RTLD_DEEPBIND, of which nothing is public, would make a difference.
    pub fn of(&self, module: &Module) -> &[Bound] {
        let known = self.known.get(&module.key());
        known.map_or(&[], |known| &known.bound)
    }

    /// Whether another look at the same modules finds the same.
    pub fn are_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    fn of_module(
        &self,
        module: &Module,
        scopes: &Scopes<'_>,
        image: &Image,
        memory: &dyn ReadMemory,
    ) -> Vec<Bound> {
        if module.is_vdso() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut open = Vec::new();
        let mut is_deep = None;
        for (name, text) in self.names.iter().enumerate() {
            for reference in module.file().references(text) {
                let held = held(image, module, text, &reference, memory);
                let both = scopes.lookup(module, text, reference.version.as_deref());
                let both = both.map(|found: Option<Definition>| {
                    let (definer, symbol) = found?;
                    Some(image.code(&definer, &symbol, memory))
                });
                match held {
                    Some(_) if both[0] != both[1] => is_deep = Some(held.map(Code::At) == both[1]),
                    Some(_) => {}
                    None => open.push((name, both)),
                }
                add(&mut found, name, held.map(Code::At), true);
            }
        }
        for (name, [usual, deep]) in open {
            if is_deep != Some(true) {
                add(&mut found, name, usual, false);
            }
            if is_deep != Some(false) {
                add(&mut found, name, deep, false);
            }
        }
        found
    }
}

fn modules<'i>(image: &'i Image, list: &[usize]) -> Vec<&'i Module> {
    let module = |index: &usize| image.modules().get(*index);
    list.iter().filter_map(module).collect()
}

/// What a slot holds is there already, whoever foretold it.
fn add(found: &mut Vec<Bound>, name: usize, code: Option<Code>, held: bool) {
    let is_same = |bound: &Bound| bound.name == name && Some(bound.code) == code;
    if let Some(code) = code
        && !found.iter().any(is_same)
    {
        found.push(Bound { name, code, held });
    }
}

/// True if a second look would find no more: each function is known, and each name has one that
/// slots will lead to.
fn is_settled(bound: &[Bound]) -> bool {
    bound.iter().enumerate().all(|(i, one)| {
        let mut others = bound.iter().take(i);
        let is_known = one.code.addr().is_some();
        is_known && (one.held || !others.any(|other| other.name == one.name))
    })
}

/// The code that a slot of `user` for `name` leads to. Nothing if it has not been filled yet, or
/// leads to a PLT entry: that of `user` until the first call, or of a program at a fixed address,
/// which is then the function's address for all (psABI, 5.2.5 "Function Addresses").
fn held(
    image: &Image,
    user: &Module,
    name: &str,
    reference: &Reference,
    memory: &dyn ReadMemory,
) -> Option<Addr> {
    let at = Addr::new(memory.read_u64(user.addr(reference.slot.svma)).ok()?);
    let definer = image.code_at(at)?;
    if is_defined(definer, name, definer.svma(at)) {
        return Some(at);
    }
    let is_program = |program: &Module| program.same_as(definer);
    let is_stub = definer.same_as(user) || image.program().is_some_and(is_program);
    (!is_stub).then_some(at)
}

/// Whether code of `definer` at `at` is its function `name`, or one that the function's resolver
/// may have chosen.
fn is_defined(definer: &Module, name: &str, at: Svma) -> bool {
    let functions = definer.file().functions(name);
    functions
        .iter()
        .any(|function| function.ifunc || function.svma == at)
}
