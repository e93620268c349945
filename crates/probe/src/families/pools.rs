//! Allocators that leaktap is told of (`--alloc-fn`): where their functions are.

use std::collections::HashSet;

use leaktap_api::spec::{Described, Place, SpecError, describe};
use leaktap_api::{Function, FunctionId, Functions};
use leaktap_image::{Code, Image, Module};
use leaktap_memory::Svma;

use super::Member;
use super::by_module::ByModule;
use crate::extents::functions_at;

/// An allocator as a user describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// What it is called: its preset, or the first of its functions.
    pub name: String,
    functions: Vec<Described>,
    /// Its library need not have all of them.
    is_preset: bool,
}

impl Pool {
    /// That of `--alloc-fn SPEC`.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn parse(spec: &str) -> Result<Pool, SpecError> {
        let functions = describe(spec)?;
        let first = spec.split_ascii_whitespace().next().unwrap_or_default();
        let name = match first.strip_prefix('@') {
            Some(preset) => preset,
            None => first.rsplit_once(':').map_or(first, |(name, _)| name),
        };
        Ok(Pool {
            name: name.to_owned(),
            functions,
            is_preset: first.starts_with('@'),
        })
    }
}

/// What was found of pools, by module.
#[derive(Debug, Default)]
pub(super) struct Pools {
    all: Vec<Pool>,
    known: ByModule<Vec<Found>>,
    /// Pools and places of what has been found in any module so far.
    seen: HashSet<(usize, usize)>,
}

/// A function of a pool.
#[derive(Clone, Copy, Debug)]
struct Found {
    pool: usize,
    /// Which of the functions described.
    told: usize,
    function: FunctionId,
    at: Svma,
}

impl Pools {
    pub(super) fn new(all: Vec<Pool>) -> Pools {
        Pools {
            all,
            known: ByModule::default(),
            seen: HashSet::new(),
        }
    }

    /// What was described and was in no module; of a preset, nothing of which was.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (index, pool) in self.all.iter().enumerate() {
            let is_seen = |told: usize| self.seen.contains(&(index, told));
            if pool.is_preset {
                let is_any = (0..pool.functions.len()).any(is_seen);
                missing.extend((!is_any).then(|| format!("@{}", pool.name)));
                continue;
            }
            let unseen = pool.functions.iter().enumerate();
            let unseen = unseen.filter(|(told, _)| !is_seen(*told));
            missing.extend(unseen.map(|(_, told)| told.to_string()));
        }
        missing
    }

    /// Whether something was described.
    pub(super) fn are_told(&self) -> bool {
        !self.all.is_empty()
    }

    /// The pools of which functions are loaded, with these. Those of their names are added to
    /// `functions`.
    pub(super) fn find(
        &mut self,
        image: &Image,
        functions: &mut Functions,
    ) -> Vec<(String, Vec<Member>)> {
        if self.all.is_empty() {
            return Vec::new();
        }
        let mut members: Vec<Vec<Member>> = vec![Vec::new(); self.all.len()];
        let look = |module: &Module| of_module(&self.all, module, functions);
        self.known.update(image, look);
        for (index, module) in image.modules().iter().enumerate() {
            for found in self.known.get(module).into_iter().flatten() {
                self.seen.insert((found.pool, found.told));
                if let Some(members) = members.get_mut(found.pool) {
                    members.push(Member {
                        function: found.function,
                        module: index,
                        code: Code::At(module.addr(found.at)),
                    });
                }
            }
        }
        let names = self.all.iter().map(|pool| pool.name.clone());
        names.zip(members).collect()
    }
}

fn of_module(pools: &[Pool], module: &Module, functions: &mut Functions) -> Vec<Found> {
    let mut found = Vec::new();
    for (pool, told) in (0..).zip(pools) {
        for (place, told) in told.functions.iter().enumerate() {
            if module.is_vdso() || !is_of(told, module) {
                continue;
            }
            for (name, at) in places(told, module) {
                if let Some(function) = number(functions, name, told) {
                    found.push(Found {
                        pool,
                        told: place,
                        function,
                        at,
                    });
                }
            }
        }
    }
    found
}

/// Whether `told` may be a function of `module`.
fn is_of(told: &Described, module: &Module) -> bool {
    let Some(wanted) = &told.module else {
        return true;
    };
    let path = module.path().to_string_lossy();
    match wanted.contains('/') {
        true => matches(wanted, &path),
        false => {
            let soname = module.file().soname();
            let file_name = path.rsplit('/').next().unwrap_or_default();
            matches(wanted, file_name) || soname.is_some_and(|name| matches(wanted, &name))
        }
    }
}

/// The functions of `module` that `told` names, and where they are.
fn places(told: &Described, module: &Module) -> Vec<(String, Svma)> {
    let file = module.file();
    let named = |name: String| {
        let found = file.functions(&name).into_iter();
        let code = found.filter(|function| !function.ifunc);
        code.map(move |function| (name.clone(), function.svma))
            .collect::<Vec<_>>()
    };
    match &told.place {
        Place::Offset(at) => {
            let is_code = module.has_code_at(module.addr(Svma(*at))) && is_start(module, Svma(*at));
            let file_name = module.path().file_name().unwrap_or_default();
            let name = format!("{}!{at:#x}", file_name.to_string_lossy());
            is_code.then_some((name, Svma(*at))).into_iter().collect()
        }
        Place::Name(name) if name.contains('*') => {
            let names = file.function_names().into_iter();
            let wanted = names.filter(|function| matches(name, function));
            wanted.flat_map(named).collect()
        }
        Place::Name(name) => named(name.clone()),
    }
}

/// Whether a function begins at `at`: an int3 in the middle of an instruction would be another one.
fn is_start(module: &Module, at: Svma) -> bool {
    let symbol = module.file().symbol_at(at);
    let by_frame = || functions_at(module, &[at]).pop().flatten();
    symbol.is_some_and(|symbol| symbol.svma == at)
        || by_frame().is_some_and(|function| function.start == at)
}

/// The number of the function; none if there are no more.
fn number(functions: &mut Functions, name: String, told: &Described) -> Option<FunctionId> {
    let action = told.call.action();
    let is_it = |known: &Function, name: &str| known.name == name && known.action == action;
    // Of a name that is known, but does something else, there are as many as needed.
    let names = std::iter::successors(Some(name), |name| Some(format!("{name}'")));
    for name in names {
        let same = functions.all().find(|(_, known)| is_it(known, &name));
        if let Some((id, _)) = same {
            return Some(id);
        }
        let is_known = functions.all().any(|(_, known)| known.name == name);
        if !is_known {
            let display = name.trim_end_matches('\'').to_owned().into();
            let name = name.into();
            return functions.add(Function {
                name,
                display,
                action,
            });
        }
    }
    None
}

/// Whether `text` is what `pattern` says, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut left) = text.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else {
            return false;
        };
        left = left.get(at + part.len()..).unwrap_or_default();
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("get", "get", true),
            ("get", "gets", false),
            ("*", "", true),
            ("*get", "pool_get", true),
            ("pool_*", "pool_get", true),
            ("lib*.so*", "libx.so.6", true),
            ("lib*.so*", "libx.a", false),
            ("a*bc*c", "abcc", true),
            ("a*bc*c", "abc", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pool_is_called_by_its_preset_or_its_first_function() {
        let name = |spec| Pool::parse(spec).map(|pool| pool.name);
        assert_eq!(name("@glib"), Ok("glib".to_owned()));
        assert_eq!(
            name("lib.so!get:returns put:ptr=0"),
            Ok("lib.so!get".to_owned())
        );
        assert!(name("get").is_err());
    }
}
