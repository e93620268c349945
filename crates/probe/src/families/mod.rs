//! The allocators of a process: each that somebody is bound to, or that a module has for itself.

mod by_module;
mod copies;
mod draft;
mod forwards;
mod names;
mod numbers;
mod pools;
mod reach;
mod users;
mod uses;

use std::collections::HashSet;
use std::path::PathBuf;

use leaktap_api::{FunctionId, Functions};
use leaktap_image::{Bindings, Changes, Code, Image, Module, Moves};
use leaktap_ledger::FamilyId;
use leaktap_memory::{Addr, ReadMemory};

pub use self::pools::Pool;

use self::copies::Copies;
use self::draft::Draft;
use self::names::Group;
use self::numbers::Numbers;
use self::pools::Pools;
use self::reach::Reach;
use self::users::Users;
use self::uses::Uses;

/// An allocator: the functions that one module has over one heap. Where a wrapper defines some of
/// the names alone, the functions that the same callers get for the others belong to it, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its number; none if there are [`FamilyId::MOST`] others.
    pub id: Option<FamilyId>,
    /// What people call it: libc, jemalloc, or the module's file name.
    pub name: String,
    /// Index in [`Image::modules`] of the module.
    pub module: usize,
    /// Its functions, in the order of their numbers; several names may have the same code.
    pub functions: Vec<Member>,
    /// Who uses it.
    pub user: User,
}

/// A function of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub function: FunctionId,
    /// Index in [`Image::modules`] of the module that defines it.
    pub module: usize,
    /// Where it is.
    pub code: Code,
}

/// Who uses a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// The module with this path is bound to it; others may be, too.
    Bound(PathBuf),
    /// Its own module, which calls it directly.
    Inside,
    /// A user says so: `--alloc-fn`.
    Told,
}

impl Family {
    /// Its name, its module and who uses it, for reports.
    pub fn describe(&self, image: &Image) -> String {
        let module = image.modules().get(self.module);
        let module = module.map_or_else(String::new, |module| module.path().display().to_string());
        let user = match &self.user {
            User::Bound(user) => format!("used by {}", user.display()),
            User::Inside => "for itself".to_owned(),
            User::Told => "by --alloc-fn".to_owned(),
        };
        format!("{} in {module}, {user}", self.name)
    }
}

/// The families of a process, kept up to date.
#[derive(Debug)]
pub struct Families {
    functions: Functions,
    bindings: Bindings,
    copies: Copies,
    all: Vec<Family>,
    numbers: Numbers,
    pools: Pools,
    reach: Reach,
    uses: Uses,
    /// The main program is bound to its malloc.
    is_bound: bool,
}

impl Families {
    /// None yet; of allocators that leaktap knows, and of `pools`.
    pub fn new(pools: Vec<Pool>) -> Families {
        let functions = Functions::default();
        let names = functions.all().map(|(_, known)| known.name.to_string());
        Families {
            bindings: Bindings::new(names.collect()),
            copies: Copies::new(functions.clone()),
            functions,
            all: Vec::new(),
            numbers: Numbers::default(),
            pools: Pools::new(pools),
            reach: Reach::default(),
            uses: Uses::default(),
            is_bound: false,
        }
    }

    /// That of the main program's malloc first; none before that is known.
    pub fn all(&self) -> &[Family] {
        &self.all
    }

    /// Looks again, when modules have come or gone, or slots have been filled. What is known of a
    /// module is not found out again.
    pub fn update(&mut self, image: &Image, memory: &dyn ReadMemory) {
        self.bindings.update(image, memory);
        self.copies.update(image);
        self.reach.update(image);
        self.uses = Uses::new(image, &self.bindings, &self.functions);
        let users = Users::new(image, &self.bindings, memory, &self.functions);
        self.is_bound = users.is_bound();
        if users.of_program().is_none() {
            // The linker has not mapped it yet: nothing else may come first.
            self.all.clear();
            return;
        }
        let mut drafts = self.bound(image, &users);
        self.add_copies(image, &mut drafts);
        for draft in &mut drafts {
            self.complete(draft, image, memory, &users);
        }
        let families = drafts
            .into_iter()
            .filter(|draft| draft.allocates(&self.functions));
        self.all = families.map(|draft| draft.family(image)).collect();
        names::tell_apart(&mut self.all, image);
        for (name, functions) in self.pools.find(image, &mut self.functions) {
            if let Some(first) = functions.first() {
                self.all.push(Family {
                    id: None,
                    name,
                    module: first.module,
                    functions,
                    user: User::Told,
                });
            }
        }
        for family in &mut self.all {
            family.id = self.numbers.of(family, image);
        }
    }

    /// As [`Families::update`], where nothing has changed but what `changes` say. False if the
    /// families are no longer those that they were.
    pub fn follow(&mut self, image: &Image, changes: &Changes, memory: &dyn ReadMemory) -> bool {
        let moves = changes.moves.as_ref();
        let is_known = self.bindings.follow(image, changes, memory);
        let are_same = is_known && moves.is_some_and(|moves| self.stay(image, changes, moves));
        if !are_same {
            self.update(image, memory);
        }
        are_same
    }

    /// Whether they are the same: what has come uses what others used before it, and has nothing
    /// for itself; and none needs what is gone. If not, they are to be found again.
    fn stay(&mut self, image: &Image, changes: &Changes, moves: &Moves) -> bool {
        if !self.is_bound || self.pools.are_told() || !self.are_resolved() {
            return false;
        }
        self.copies.follow(image, changes);
        self.reach.follow(changes);
        let copies = &mut self.copies;
        let mut has_own = |module: &Module| {
            let index = image.index_of(module);
            index.is_none_or(|index| !copies.groups(image, index, false).is_empty())
        };
        let mut added = changes.added.iter();
        !added.any(&mut has_own)
            && (self.uses).follow(changes, image, &self.bindings, &self.functions)
            && self.move_modules(moves)
    }

    fn are_resolved(&self) -> bool {
        let mut members = self.all.iter().flat_map(|family| &family.functions);
        members.all(|member| member.code.addr().is_some())
    }

    /// Whether another look at the same modules finds the same.
    pub(crate) fn are_settled(&self) -> bool {
        self.are_resolved() && self.bindings.are_settled()
    }

    /// False if one has moved to nowhere.
    fn move_modules(&mut self, moves: &Moves) -> bool {
        let modules = self.all.iter_mut().flat_map(|family| {
            let members = family.functions.iter_mut().map(|member| &mut member.module);
            std::iter::once(&mut family.module).chain(members)
        });
        let mut moved = modules.map(|module| {
            let now = moves.index(*module);
            *module = now.unwrap_or(*module);
            now.is_some()
        });
        moved.all(|is_there| is_there)
    }

    /// Whether `at` is code that an allocator runs in its own module.
    pub fn lead_to(&mut self, image: &Image, at: Addr) -> bool {
        self.reach.holds(image, &self.all, at)
    }

    /// What a user has described and no module had so far.
    pub fn missing(&self) -> Vec<String> {
        self.pools.missing()
    }

    /// The functions by their numbers.
    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// How many families have had numbers.
    pub fn count(&self) -> usize {
        self.numbers.count()
    }

    /// What the family of a number is called; its module may be gone.
    pub fn name(&self, id: FamilyId) -> Option<&str> {
        self.numbers.name(id)
    }

    /// What somebody is bound to.
    fn bound(&mut self, image: &Image, users: &Users) -> Vec<Draft> {
        let mut drafts = Vec::new();
        if let Some(first) = users.of_program() {
            let program = image
                .program()
                .map_or_else(PathBuf::new, |p| p.path().to_owned());
            drafts.push(Draft::new(first, Group::Standard, User::Bound(program)));
        }
        for bound in users.all() {
            let Some((module, group)) = self.owner(image, users, bound) else {
                continue;
            };
            let known = drafts
                .iter()
                .position(|d| (d.module, d.group) == (module, group));
            let index = known.unwrap_or_else(|| {
                let user = image.modules().get(bound.user);
                let user = user.map_or_else(PathBuf::new, |user| user.path().to_owned());
                drafts.push(Draft::new(module, group, User::Bound(user)));
                drafts.len() - 1
            });
            drafts[index].add(bound.member.clone());
        }
        drafts
    }

    /// The module and the group of names that a function which somebody is bound to belongs to.
    fn owner(
        &mut self,
        image: &Image,
        users: &Users,
        bound: &users::Bound,
    ) -> Option<(usize, Group)> {
        let definer = bound.member.module;
        let name = &self.functions.get(bound.member.function)?.name;
        if let Group::Prefixed(prefix) = names::group(name) {
            return Some((definer, self.copies.group(image, definer, prefix)?));
        }
        let whose = users.malloc_of(bound.user).unwrap_or(definer);
        if definer == whose || users.defines_malloc(definer) {
            return Some((definer, Group::Standard));
        }
        if !names::is_beside_malloc(name) {
            return Some((whose, Group::Standard));
        }
        let at = bound.member.code.addr()?;
        // libstdc++'s operator new calls malloc, which is probed.
        let forwards = self.copies.forwards(image, definer, at);
        (!forwards).then_some((definer, Group::Standard))
    }

    /// What modules have for themselves.
    fn add_copies(&mut self, image: &Image, drafts: &mut Vec<Draft>) {
        let members = drafts.iter().flat_map(|draft| &draft.members);
        let used: HashSet<usize> = members.map(|member| member.module).collect();
        for module in 0..image.modules().len() {
            for group in self.copies.groups(image, module, used.contains(&module)) {
                if !drafts
                    .iter()
                    .any(|d| (d.module, d.group) == (module, group))
                {
                    drafts.push(Draft::new(module, group, User::Inside));
                }
            }
        }
    }

    /// Adds the functions that share the heap, though nobody is bound to them.
    fn complete(
        &mut self,
        draft: &mut Draft,
        image: &Image,
        memory: &dyn ReadMemory,
        users: &Users,
    ) {
        let (module, group) = (draft.module, draft.group);
        let may_forward = match group {
            Group::Standard => !users.defines_malloc(module),
            Group::Hidden => true,
            Group::Prefixed(_) => false,
        };
        for (function, known) in self.functions.all().filter(|(_, known)| known.is_of_heap()) {
            if !self.copies.belongs(image, module, &known.name, group) {
                continue;
            }
            for code in copies::definitions(image, module, &known.name, group, memory) {
                let at = code.addr().filter(|_| may_forward);
                if !at.is_some_and(|at| self.copies.forwards(image, module, at)) {
                    draft.add(Member {
                        function,
                        module,
                        code,
                    });
                }
            }
        }
        if group == Group::Standard {
            draft.add_others(image, memory, &self.functions);
        }
        draft.members.sort_by_key(|member| member.function);
    }
}
