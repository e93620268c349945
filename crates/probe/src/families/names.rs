//! What functions are called, and what allocators are.

use leaktap_image::{Image, Module};

use super::Family;

/// Names that stand for functions over one heap, in one module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Group {
    /// Those that programs call, as the dynamic linker sees them; in a static program, all.
    Standard,
    /// The same in a module that keeps them for itself.
    Hidden,
    /// An allocator's own, with this before the standard ones.
    Prefixed(&'static str),
}

/// What allocators put before the standard names when they are built to stand beside another one.
pub(super) const PREFIXES: [&str; 4] = ["je_", "_rjem_", "tc_", "mi_"];

/// What an allocator with a prefix is known by, after that. A linker drops what nothing calls:
/// Rust programs with mimalloc have no `mi_malloc`.
pub(super) const MALLOCS: [&str; 2] = ["malloc", "malloc_aligned"];

/// The group that a name belongs to.
pub(super) fn group(name: &str) -> Group {
    let prefix = PREFIXES.into_iter().find(|prefix| name.starts_with(prefix));
    prefix.map_or(Group::Standard, Group::Prefixed)
}

/// True of allocation functions that stand on malloc unless one module defines both.
pub(super) fn is_beside_malloc(name: &str) -> bool {
    name.starts_with("_Z") || name.ends_with("allocx") || name.starts_with("moz_arena_")
}

/// What the allocator that has these names in that module is called.
pub(super) fn of_family(image: &Image, module: usize, group: Group) -> String {
    let Some(module) = image.modules().get(module) else {
        return String::new();
    };
    let known = match group {
        Group::Prefixed("je_" | "_rjem_") => Some("jemalloc"),
        Group::Prefixed("tc_") => Some("tcmalloc"),
        Group::Prefixed("mi_") => Some("mimalloc"),
        _ => by_functions(module),
    };
    known.map_or_else(|| file_name(module), str::to_owned)
}

/// By a function that no other allocator has.
fn by_functions(module: &Module) -> Option<&'static str> {
    const KNOWN: [(&str, &str); 5] = [
        ("mallctl", "jemalloc"),
        ("tc_version", "tcmalloc"),
        ("mi_version", "mimalloc"),
        ("moz_arena_malloc", "mozjemalloc"),
        ("__libc_start_main", "libc"),
    ];
    let has = |name: &str| !module.file().functions(name).is_empty();
    let found = KNOWN.into_iter().find(|(function, _)| has(function));
    found.map(|(_, name)| name)
}

/// Gives each a name of its own: what is in another namespace has that in its name, and what has
/// the name of an earlier one, its file's.
pub(super) fn tell_apart(families: &mut [Family], image: &Image) {
    for index in 0..families.len() {
        let Some((family, earlier)) = families[..=index].split_last_mut() else {
            return;
        };
        let mut lists = image.namespaces().iter();
        let namespace = lists.position(|list| list.contains(&family.module));
        if let Some(namespace) = namespace.filter(|namespace| *namespace > 0) {
            family.name = format!("{} (namespace {})", family.name, namespace + 1);
        }
        if earlier.iter().any(|other| other.name == family.name)
            && let Some(module) = image.modules().get(family.module)
        {
            family.name = format!("{} ({})", family.name, file_name(module));
        }
    }
}

fn file_name(module: &Module) -> String {
    let path = module.path();
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
