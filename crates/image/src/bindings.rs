//! Which code each module gets for the functions that it refers to.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use leaktap_memory::{Addr, ReadMemory, Svma};

use crate::elf::ElfFile;
use crate::scope::{Definition, Scopes};
use crate::{Code, Image, Module, Reference};

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
}

/// A file at one place: where the file is in our memory, and the load bias.
type Key = (usize, u64);

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
            known: HashMap::new(),
        }
    }

    /// Brings it up to date with the modules of `image`: those that are new are looked at, and
    /// those that had slots which nobody could foretell.
    pub fn update(&mut self, image: &Image, memory: &dyn ReadMemory) {
        let keys: Vec<Key> = image.modules().iter().map(key).collect();
        let mut before = std::mem::take(&mut self.known);
        let mut left = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            match before.remove(key).filter(|known| is_settled(&known.bound)) {
                Some(known) => drop(self.known.insert(*key, known)),
                None => left.push(index),
            }
        }
        if !left.is_empty() {
            self.look_at(&left, image, memory);
        }
    }

    /// Each in the first namespace that has it; what the linker does not list has what its slots
    /// hold.
    fn look_at(&mut self, new: &[usize], image: &Image, memory: &dyn ReadMemory) {
        let code = CodeMap::new(image);
        let mut left: HashSet<usize> = new.iter().copied().collect();
        let is_new = |index: &usize| new.contains(index);
        for list in image.namespaces() {
            let here: Vec<usize> = list.iter().copied().filter(|i| left.remove(i)).collect();
            if !here.is_empty() {
                self.add(&here, &Scopes::new(image, list, is_new), &code, memory);
            }
        }
        let rest: Vec<usize> = left.into_iter().collect();
        self.add(&rest, &Scopes::new(image, &[], is_new), &code, memory);
    }

    fn add(
        &mut self,
        users: &[usize],
        scopes: &Scopes<'_>,
        code: &CodeMap<'_>,
        memory: &dyn ReadMemory,
    ) {
        for &user in users {
            if let Some(module) = code.image.modules().get(user) {
                let known = Known {
                    _file: Arc::clone(module.file()),
                    bound: self.of_module(user, scopes, code, memory),
                };
                self.known.insert(key(module), known);
            }
        }
    }

    /// What `module` gets. More than one for a name if its slots differ, or if it has not been
    /// bound yet and RTLD_DEEPBIND, of which nothing is public, would make a difference.
    pub fn of(&self, module: &Module) -> &[Bound] {
        let known = self.known.get(&key(module));
        known.map_or(&[], |known| &known.bound)
    }

    fn of_module(
        &self,
        user: usize,
        scopes: &Scopes<'_>,
        code: &CodeMap<'_>,
        memory: &dyn ReadMemory,
    ) -> Vec<Bound> {
        let Some(module) = code
            .image
            .modules()
            .get(user)
            .filter(|user| !user.is_vdso())
        else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut open = Vec::new();
        let mut is_deep = None;
        for (name, text) in self.names.iter().enumerate() {
            for reference in module.file().references(text) {
                let held = code.held(module, text, &reference, memory);
                let both = scopes.lookup(user, text, reference.version.as_deref());
                let both = both.map(|found| code.of(found?, memory));
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

fn key(module: &Module) -> Key {
    (Arc::as_ptr(module.file()).addr(), module.bias())
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

/// Executable memory by address, to find whose code a word points to.
struct CodeMap<'a> {
    image: &'a Image,
    ranges: Vec<(Range<Addr>, usize)>,
}

impl<'a> CodeMap<'a> {
    fn new(image: &'a Image) -> CodeMap<'a> {
        let modules = image.modules().iter().enumerate();
        let ranges = modules.flat_map(|(index, module)| {
            module.executable().iter().map(move |r| (r.clone(), index))
        });
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_by_key(|(range, _)| range.start);
        CodeMap { image, ranges }
    }

    fn module_at(&self, at: Addr) -> Option<&'a Module> {
        let after = self.ranges.partition_point(|(range, _)| range.start <= at);
        let (range, module) = self.ranges.get(after.checked_sub(1)?)?;
        self.image
            .modules()
            .get(*module)
            .filter(|_| range.contains(&at))
    }

    fn of(&self, (definer, symbol): Definition, memory: &dyn ReadMemory) -> Option<Code> {
        let definer = self.image.modules().get(definer)?;
        Some(self.image.code(definer, &symbol, memory))
    }

    /// The code that a slot of `user` for `name` leads to. Nothing if it has not been filled yet,
    /// or leads to a PLT entry: that of `user` until the first call, or of a program at a fixed
    /// address, which is then the function's address for all (psABI, 5.2.5 "Function Addresses").
    fn held(
        &self,
        user: &Module,
        name: &str,
        reference: &Reference,
        memory: &dyn ReadMemory,
    ) -> Option<Addr> {
        let at = Addr::new(memory.read_u64(user.addr(reference.slot.svma)).ok()?);
        let definer = self.module_at(at)?;
        if is_defined(definer, name, definer.svma(at)) {
            return Some(at);
        }
        let is_program = |program: &Module| program.same_as(definer);
        let is_stub = definer.same_as(user) || self.image.program().is_some_and(is_program);
        (!is_stub).then_some(at)
    }
}

/// Whether code of `definer` at `at` is its function `name`, or one that the function's resolver
/// may have chosen.
fn is_defined(definer: &Module, name: &str, at: Svma) -> bool {
    let functions = definer.file().functions(name);
    functions
        .iter()
        .any(|function| function.ifunc || function.svma == at)
}
