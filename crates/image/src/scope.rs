//! In which order the dynamic linker looks through modules for what one of them refers to.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};

use crate::Module;
use crate::elf::Symbol;
use crate::module::Key;

/// A definition: its module, and its symbol.
pub(crate) type Definition = (Module, Symbol);

/// What has been looked for in a scope: by name and version.
type Searched = RefCell<HashMap<(String, Option<String>), Option<Definition>>>;

/// What a namespace has loaded.
#[derive(Debug, Default)]
pub(crate) struct Namespace {
    /// By what others may call them; those of one name in the order of the list.
    by_name: HashMap<String, Vec<Module>>,
    at_start: Scope,
}

/// Modules in the order in which they are searched.
#[derive(Debug, Default)]
struct Scope {
    modules: Vec<Module>,
    keys: HashSet<Key>,
    searched: Searched,
}

/// What is searched for modules that are looked at now: beside what was loaded at the start, with
/// all that this depends on, what dlopen(3) has opened them with.
pub(crate) struct Scopes<'n> {
    at_start: &'n Scope,
    opened: Vec<Scope>,
    /// Which of those is searched for a module.
    local: HashMap<Key, usize>,
}

impl Namespace {
    /// That has loaded `list`.
    pub(crate) fn new(list: &[&Module]) -> Namespace {
        let mut namespace = Namespace::default();
        list.iter().for_each(|module| namespace.add(module));
        namespace.at_start = Scope::of(namespace.loaded_at_start(list));
        namespace
    }

    /// `module` is listed behind all others.
    pub(crate) fn add(&mut self, module: &Module) {
        for name in names(module) {
            self.by_name.entry(name).or_default().push(module.clone());
        }
    }

    /// Forgets `module`, if it was not loaded at the start; else returns false.
    pub(crate) fn remove(&mut self, module: &Module) -> bool {
        for name in names(module) {
            if let Some(named) = self.by_name.get_mut(&name) {
                named.retain(|other| other.key() != module.key());
            }
        }
        !self.at_start.keys.contains(&module.key())
    }

    /// All that the linker has listed before the last module that the first one depends on: new
    /// ones go to the end. Preloaded libraries are among them, and what these depend on comes
    /// behind.
    fn loaded_at_start(&self, list: &[&Module]) -> Vec<Module> {
        let Some(&first) = list.first() else {
            return Vec::new();
        };
        let needed = self.closure(&[first]);
        let needed: HashSet<Key> = needed.iter().map(Module::key).collect();
        let last = list
            .iter()
            .rposition(|module| needed.contains(&module.key()));
        self.closure(list.get(..=last.unwrap_or(0)).unwrap_or_default())
    }

    /// What is searched for those of `new`, in the order of the list, beside others that came with
    /// them.
    pub(crate) fn scopes(&self, new: &[&Module]) -> Scopes<'_> {
        let mut scopes = Scopes {
            at_start: &self.at_start,
            opened: Vec::new(),
            local: HashMap::new(),
        };
        for module in new {
            let is_at_start = self.at_start.keys.contains(&module.key());
            if !is_at_start && !scopes.local.contains_key(&module.key()) {
                scopes.open(self.closure(&[module]));
            }
        }
        scopes
    }

    /// `roots` and what they depend on, breadth first.
    fn closure(&self, roots: &[&Module]) -> Vec<Module> {
        let mut found = Vec::new();
        let mut seen: HashSet<Key> = roots.iter().map(|module| module.key()).collect();
        let mut queue: VecDeque<Module> = roots.iter().copied().cloned().collect();
        while let Some(module) = queue.pop_front() {
            for name in module.file().needed() {
                let named = self.by_name.get(file_name(&name));
                if let Some(other) = named.and_then(|named| named.first())
                    && seen.insert(other.key())
                {
                    queue.push_back(other.clone());
                }
            }
            found.push(module);
        }
        found
    }
}

impl Scope {
    fn of(modules: Vec<Module>) -> Scope {
        Scope {
            keys: modules.iter().map(Module::key).collect(),
            modules,
            searched: Searched::default(),
        }
    }

    fn first(&self, name: &str, version: Option<&str>) -> Option<Definition> {
        let key = (name.to_owned(), version.map(str::to_owned));
        let find = || {
            let mut modules = self.modules.iter().filter(|module| !module.is_vdso());
            modules.find_map(|m| Some((m.clone(), m.file().definition(name, version)?)))
        };
        let mut searched = self.searched.borrow_mut();
        searched.entry(key).or_insert_with(find).clone()
    }
}

impl Scopes<'_> {
    /// dlopen(3) has opened the first of `scope`: those that came with it are searched as it is.
    fn open(&mut self, scope: Vec<Module>) {
        for key in scope.iter().map(Module::key) {
            if !self.at_start.keys.contains(&key) {
                self.local.entry(key).or_insert(self.opened.len());
            }
        }
        self.opened.push(Scope::of(scope));
    }

    /// What `user` gets for `name`: as usual, and if its library was opened with RTLD_DEEPBIND,
    /// which is not public.
    pub(crate) fn lookup(
        &self,
        user: &Module,
        name: &str,
        version: Option<&str>,
    ) -> [Option<Definition>; 2] {
        let own = Some(user).filter(|user| user.file().is_symbolic());
        let own = own.and_then(|own| Some((own.clone(), own.file().definition(name, version)?)));
        if own.is_some() {
            return [own.clone(), own];
        }
        let global = self.at_start.first(name, version);
        let local = self.local.get(&user.key());
        let local = local.and_then(|local| self.opened.get(*local)?.first(name, version));
        [global.clone().or(local.clone()), local.or(global)]
    }
}

/// What others may call a module in DT_NEEDED.
fn names(module: &Module) -> impl Iterator<Item = String> {
    let file = module.path().file_name();
    let file = file.map(|name| name.to_string_lossy().into_owned());
    module.file().soname().into_iter().chain(file)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
