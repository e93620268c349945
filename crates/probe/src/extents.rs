//! Where a module's functions begin and end.

use std::ops::Range;

use leaktap_image::{Cfi, Module};
use leaktap_memory::Svma;
use leaktap_unwind::CfiSections;

/// The functions that `at` lie in, by call frame information, or else by symbols that have a size.
pub(crate) fn functions_at(module: &Module, at: &[Svma]) -> Vec<Option<Range<Svma>>> {
    let file = module.file();
    let mut functions = leaktap_unwind::functions_at(&sections(&file.cfi()), at);
    for (function, at) in functions.iter_mut().zip(at) {
        let by_symbol = || {
            let symbol = file.symbol_at(*at).filter(|symbol| symbol.size > 0)?;
            let end = symbol.svma.0.saturating_add(symbol.size);
            Some(symbol.svma..Svma(end))
        };
        *function = function.take().or_else(by_symbol);
    }
    functions
}

/// See [`leaktap_unwind::may_unwind`].
pub(crate) fn may_unwind(module: &Module, within: &Range<Svma>) -> bool {
    leaktap_unwind::may_unwind(&sections(&module.file().cfi()), within)
}

/// All functions of `module` by call frame information, sorted.
pub(crate) fn functions(module: &Module) -> Vec<Range<Svma>> {
    leaktap_unwind::functions(&sections(&module.file().cfi()))
}

/// Call frame information as it is to be read.
pub(crate) fn sections(cfi: &Cfi) -> CfiSections<'_> {
    CfiSections {
        base: cfi.base,
        eh_frame: cfi.eh_frame.as_ref().map(|s| (s.svma, &s.bytes[..])),
        debug_frame: cfi.debug_frame.as_ref().map(|s| &s.bytes[..]),
        text: cfi.text,
        got: cfi.got,
        instead: &[],
        signal_returns: &[],
    }
}
