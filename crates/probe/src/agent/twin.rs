//! Which function may be called in the place of a throwing operator new: malloc, where it is proved
//! to be the same but for what is done when memory runs out.
//!
//! The nothrow form of the operator would not do: it is `noexcept`, and calls the program's new
//! handler, which may throw. And that a module has some allocator in it proves nothing: debug
//! builds tell apart who made a block, and a program may have an operator new of its own beside
//! jemalloc. So an operator that is not known for sure is left alone.

use leaktap_image::Module;
use leaktap_memory::{Addr, Svma};

use crate::arch::direct_callees;

/// What tcmalloc and mimalloc call malloc, and both of their operators new, by other names:
/// (malloc, operator new, operator new[]). A build that tells them apart, such as tcmalloc's debug
/// libraries, has different functions there.
const ALIASES: [(&str, &str, &str); 2] = [
    ("tc_malloc", "tc_new", "tc_newarray"),
    ("mi_malloc", "mi_new", "_Znam"),
];

/// jemalloc's own name as a shared library. It never tells apart who made a block, in debug builds
/// neither.
const JEMALLOC: &str = "libjemalloc.so.2";

/// In the mangled name of a function that only an operator new of jemalloc's calls, when its fast
/// path fails: `fallbackNewImpl<..>` of jemalloc_cpp.cpp.
const OF_JEMALLOC: &str = "15fallbackNewImplI";

/// Whether `malloc` is the same as the throwing operator new at `operator`, but for what happens
/// when memory runs out. Both are in `module`.
pub(super) fn is_same(module: &Module, operator: Addr, malloc: Addr) -> bool {
    is_alias(module, operator, malloc) || is_of_jemalloc(module, operator)
}

/// By the names that the library's authors have given to one function.
fn is_alias(module: &Module, operator: Addr, malloc: Addr) -> bool {
    let is_at = |name: &str, at: Addr| {
        let functions = module.file().functions(name);
        functions
            .iter()
            .any(|function| module.addr(function.svma) == at)
    };
    ALIASES.iter().any(|(of_malloc, of_new, of_array)| {
        is_at(of_malloc, malloc) && is_at(of_new, operator) && is_at(of_array, operator)
    })
}

fn is_of_jemalloc(module: &Module, operator: Addr) -> bool {
    let file = module.file();
    if file.functions("mallctl").is_empty() {
        return false;
    }
    file.soname().as_deref() == Some(JEMALLOC)
        || callees(module, operator)
            .into_iter()
            .filter_map(|callee| file.symbol_at(callee))
            .any(|callee| callee.name.contains(OF_JEMALLOC))
}

/// Where the direct calls and jumps of a function lead to, as the file has it.
fn callees(module: &Module, function: Addr) -> Vec<Svma> {
    let at = module.svma(function);
    let symbol = module.file().symbol_at(at);
    let len = symbol.and_then(|symbol| usize::try_from(symbol.size).ok());
    let code = len.and_then(|len| module.file().bytes_at(at, len));
    direct_callees(&code.unwrap_or_default(), at)
}
