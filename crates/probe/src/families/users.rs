//! Which allocator functions each module is bound to.

use std::collections::{HashMap, HashSet};

use leaktap_api::Functions;
use leaktap_image::{Bindings, Code, Image};
use leaktap_memory::{Addr, ReadMemory};

use super::{Member, names};

/// A module that is bound to a function.
pub(super) struct Bound {
    pub(super) user: usize,
    pub(super) member: Member,
}

/// All of them.
pub(super) struct Users {
    bound: Vec<Bound>,
    /// The module whose malloc each gets, or would get.
    malloc: HashMap<usize, usize>,
    /// Those whose malloc somebody gets.
    definers: HashSet<usize>,
    program: Option<usize>,
    /// See [`Users::is_bound`].
    is_bound: bool,
}

impl Users {
    pub(super) fn new(
        image: &Image,
        bindings: &Bindings,
        memory: &dyn ReadMemory,
        functions: &Functions,
    ) -> Users {
        let mut users = Users {
            bound: bound(image, bindings, functions),
            malloc: HashMap::new(),
            definers: HashSet::new(),
            program: None,
            is_bound: false,
        };
        for name in ["malloc", "free"] {
            for bound in users
                .bound
                .iter()
                .filter(|bound| functions.name(bound.member.function) == name)
            {
                users
                    .malloc
                    .entry(bound.user)
                    .or_insert(bound.member.module);
                if name == "malloc" {
                    users.definers.insert(bound.member.module);
                }
            }
        }
        for list in image.namespaces() {
            users.add_silent(list);
        }
        let program = image.program().and_then(|_| users.malloc.get(&0).copied());
        users.is_bound = program.is_some();
        users.program = program.or_else(|| first_allocator(image, memory, functions));
        users.definers.extend(users.program);
        users
    }

    /// Those that ask neither for malloc nor for free get what others do in their namespace.
    fn add_silent(&mut self, list: &[usize]) {
        let mut asking = list.iter().filter_map(|user| self.malloc.get(user));
        if let Some(usual) = asking.next().copied() {
            for user in list {
                self.malloc.entry(*user).or_insert(usual);
            }
        }
    }

    pub(super) fn all(&self) -> &[Bound] {
        &self.bound
    }

    /// The module whose malloc `user` gets, or would get.
    pub(super) fn malloc_of(&self, user: usize) -> Option<usize> {
        self.malloc.get(&user).copied()
    }

    /// The module whose malloc the main program gets.
    pub(super) fn of_program(&self) -> Option<usize> {
        self.program
    }

    /// Whether it is bound to it, as far as can be told.
    pub(super) fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// True of a module whose malloc somebody gets.
    pub(super) fn defines_malloc(&self, module: usize) -> bool {
        self.definers.contains(&module)
    }
}

/// The modules in the order of the linker's lists, the program first; then what it does not list.
fn bound(image: &Image, bindings: &Bindings, functions: &Functions) -> Vec<Bound> {
    let mut definers: HashMap<Addr, Option<usize>> = HashMap::new();
    let mut definer = |at: Addr| *definers.entry(at).or_insert_with(|| image.index_at(at));
    let all: Vec<_> = functions.all().collect();
    let mut found = Vec::new();
    for (user, module) in image.modules().iter().enumerate() {
        for bound in bindings.of(module) {
            let at = match bound.code {
                Code::At(at) => at,
                Code::Unresolved { resolver } => resolver,
            };
            let function = all.get(bound.name).filter(|(_, known)| known.is_of_heap());
            if let (Some(&(function, _)), Some(module)) = (function, definer(at)) {
                let code = bound.code;
                found.push(Bound {
                    user,
                    member: Member {
                        function,
                        module,
                        code,
                    },
                });
            }
        }
    }
    found
}

/// Where nobody is bound to any, as in a static program: the first definition. A small program may
/// have realloc alone.
fn first_allocator(image: &Image, memory: &dyn ReadMemory, functions: &Functions) -> Option<usize> {
    let is_static = image.is_static();
    let mut allocating = functions.standard().filter(|(_, known)| {
        known.allocates() && (is_static || !names::is_beside_malloc(&known.name))
    });
    allocating.find_map(|(_, known)| Some(image.resolve(&known.name, memory)?.module))
}
