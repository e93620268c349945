//! In which order the dynamic linker looks through modules for what one of them refers to.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};

use crate::elf::Symbol;
use crate::{Image, Module};

/// The orders of search of one namespace.
pub(crate) struct Scopes<'a> {
    image: &'a Image,
    by_name: HashMap<String, usize>,
    /// What was loaded at the start, with all that this depends on; then, each with what it depends
    /// on, what dlopen(3) has opened.
    scopes: Vec<Vec<usize>>,
    /// Which of them, beside the first, is searched for a module.
    local: HashMap<usize, usize>,
    found: RefCell<HashMap<Wanted, Option<Definition>>>,
}

/// A definition: the module's index, and its symbol.
pub(crate) type Definition = (usize, Symbol);

/// A scope, a name and a version.
type Wanted = (usize, String, Option<String>);

impl<'a> Scopes<'a> {
    /// Of the namespace that has loaded `list`. `is_new` tells which modules scopes are asked for.
    pub(crate) fn new(
        image: &'a Image,
        list: &[usize],
        is_new: impl Fn(&usize) -> bool,
    ) -> Scopes<'a> {
        let mut scopes = Scopes {
            image,
            by_name: HashMap::new(),
            scopes: Vec::new(),
            local: HashMap::new(),
            found: RefCell::default(),
        };
        for &index in list {
            for name in scopes.module(index).map(names).into_iter().flatten() {
                scopes.by_name.entry(name).or_insert(index);
            }
        }
        scopes.scopes.push(scopes.at_start(list));
        let global: HashSet<_> = scopes.scopes.iter().flatten().copied().collect();
        for &index in list {
            let is_opened = !global.contains(&index) && !scopes.local.contains_key(&index);
            if is_opened && is_new(&index) {
                scopes.open(index, &global);
            }
        }
        scopes
    }

    fn module(&self, index: usize) -> Option<&'a Module> {
        self.image.modules().get(index)
    }

    /// All that the linker has listed before the last module that the first one depends on: new
    /// ones go to the end. Preloaded libraries are among them, and what these depend on comes
    /// behind.
    fn at_start(&self, list: &[usize]) -> Vec<usize> {
        let Some(&first) = list.first() else {
            return Vec::new();
        };
        let needed: HashSet<_> = self.closure(&[first]).into_iter().collect();
        let last = list.iter().rposition(|index| needed.contains(index));
        let loaded = list.get(..=last.unwrap_or(0)).unwrap_or_default();
        self.closure(loaded)
    }

    /// `root` has been opened by dlopen(3): those that came with it are searched as it is.
    fn open(&mut self, root: usize, global: &HashSet<usize>) {
        let scope = self.closure(&[root]);
        for &index in scope.iter().filter(|index| !global.contains(index)) {
            self.local.entry(index).or_insert(self.scopes.len());
        }
        self.scopes.push(scope);
    }

    /// `roots` and what they depend on, breadth first.
    fn closure(&self, roots: &[usize]) -> Vec<usize> {
        let mut found = Vec::new();
        let mut seen: HashSet<usize> = roots.iter().copied().collect();
        let mut queue: VecDeque<usize> = roots.iter().copied().collect();
        while let Some(index) = queue.pop_front() {
            found.push(index);
            let needed = self.module(index).map(|module| module.file().needed());
            for name in needed.unwrap_or_default() {
                if let Some(&other) = self.by_name.get(file_name(&name))
                    && seen.insert(other)
                {
                    queue.push_back(other);
                }
            }
        }
        found
    }

    /// What `user` gets for `name`: as usual, and if its library was opened with RTLD_DEEPBIND,
    /// which is not public.
    pub(crate) fn lookup(
        &self,
        user: usize,
        name: &str,
        version: Option<&str>,
    ) -> [Option<Definition>; 2] {
        let own = self.module(user).filter(|user| user.file().is_symbolic());
        let own = own.and_then(|own| Some((user, own.file().definition(name, version)?)));
        if own.is_some() {
            return [own.clone(), own];
        }
        let global = self.first_in(0, name, version);
        let local = self.local.get(&user);
        let local = local.and_then(|&local| self.first_in(local, name, version));
        [global.clone().or(local.clone()), local.or(global)]
    }

    fn first_in(&self, scope: usize, name: &str, version: Option<&str>) -> Option<Definition> {
        let key = (scope, name.to_owned(), version.map(str::to_owned));
        let find = || {
            self.scopes.get(scope)?.iter().find_map(|&index| {
                let module = self.module(index).filter(|module| !module.is_vdso())?;
                Some((index, module.file().definition(name, version)?))
            })
        };
        let mut found = self.found.borrow_mut();
        found.entry(key).or_insert_with(find).clone()
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
