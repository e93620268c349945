//! Whether an exception can pass a function.

use leaktap_image::Module;
use leaktap_memory::{Addr, Svma};

use crate::arch::may_leave;
use crate::extents::may_unwind;

/// Whether nothing that is thrown gets past the function at `at` in `module`: nothing in .eh_frame
/// describes it, so that the search for a handler ends there (Itanium C++ ABI, 1.3:
/// `_URC_END_OF_STACK`), and it goes on to no other function without its own frame. Chromium's
/// operators are such.
pub(super) fn ends_at(module: &Module, at: Addr) -> bool {
    let start = module.svma(at);
    let symbol = module.file().symbol_at(start);
    let symbol = symbol.filter(|symbol| symbol.svma == start);
    let Some(len) = symbol.and_then(|symbol| usize::try_from(symbol.size).ok()) else {
        return false;
    };
    let all = start..Svma(start.0.saturating_add(len as u64));
    let code = module.file().bytes_at(start, len).unwrap_or_default();
    !code.is_empty() && !may_unwind(module, &all) && !may_leave(&code, start)
}
