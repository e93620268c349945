//! Names as sources have them, from those that linkers have.

use crate::{itanium, mangled};

/// The name that is mangled in `symbol`: of C++ (`_Z`), of Rust (`_R`, and `_Z` with a hash), of
/// Fortran's modules and Ada's main program. None where it is no mangled name: it is the source's
/// own then, however it looks.
pub fn demangle(symbol: &str) -> Option<String> {
    if symbol.starts_with("_R") || has_rust_hash(symbol) {
        let name = rustc_demangle::try_demangle(symbol).ok()?;
        return Some(format!("{name:#}"));
    }
    if symbol.starts_with("_Z") {
        return itanium::demangle(symbol).or_else(|| mangled::beginning(symbol));
    }
    let fortran = || {
        let (module, name) = symbol.strip_prefix("__")?.split_once("_MOD_")?;
        Some(format!("{module}::{name}"))
    };
    let ada = || symbol.strip_prefix("_ada_").map(ada);
    fortran().or_else(ada)
}

/// A name of Ada's, which the compiler has lengthened by those of packages: `stock.shelf`.
pub(crate) fn ada(symbol: &str) -> String {
    symbol.replace("__", ".")
}

/// `_ZN…17h` and sixteen hexadecimal digits, and `E`.
fn has_rust_hash(symbol: &str) -> bool {
    let hashes = symbol.match_indices("17h");
    symbol.starts_with("_ZN")
        && hashes.into_iter().any(|(at, start)| {
            let rest = symbol.split_at(at + start.len()).1;
            let (digits, end) = rest.split_at_checked(16).unwrap_or_default();
            digits.bytes().all(|byte| byte.is_ascii_hexdigit()) && end.starts_with('E')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mangled_is_demangled() {
        for (symbol, expected) in [
            ("_Z4openi", Some("open(int)")),
            ("_ZN5stock5shelf17h0123456789abcdefE", Some("stock::shelf")),
            ("_RNvC5stock5shelf", Some("stock::shelf")),
            ("__shelves_MOD_fill", Some("shelves::fill")),
            ("_ada_stock__main", Some("stock.main")),
            ("f", None),
            ("i", None),
            ("PKc", None),
            ("w", None),
            ("my__open", None),
            ("_Z", None),
            ("_R", None),
            ("", None),
        ] {
            assert_eq!(demangle(symbol).as_deref(), expected, "{symbol}");
        }
    }
}
