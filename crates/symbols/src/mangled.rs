//! Names of C++ functions that could not be demangled.

/// How the name that is mangled in `symbol` begins: as far as its first template arguments, which
/// are `<…>` then. None if this is no such name.
pub(crate) fn beginning(symbol: &str) -> Option<String> {
    let mut rest = symbol.strip_prefix("_Z")?;
    let is_nested = rest.starts_with('N');
    rest = rest.trim_start_matches(['N', 'K', 'L']);
    let mut parts = Vec::new();
    if let Some(after) = rest.strip_prefix("St") {
        parts.push("std");
        rest = after;
    }
    while let Some((part, after)) = source_name(rest) {
        parts.push(part);
        rest = after;
        if !is_nested {
            break;
        }
    }
    let (first, last) = (parts.first()?, parts.last()?);
    let end = match rest.starts_with('I') {
        true => "<…>",
        false => "",
    };
    (*first != "std" || *last != "std").then(|| parts.join("::") + end)
}

/// `name` of `4nameX`, and `X`.
fn source_name(mangled: &str) -> Option<(&str, &str)> {
    let digits = mangled.bytes().take_while(u8::is_ascii_digit).count();
    let (length, name) = mangled.split_at(digits);
    name.split_at_checked(length.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_as_far_as_template_arguments() {
        for (symbol, expected) in [
            (
                "_ZSt11make_sharedI4NodeJEESt10shared_ptrINSt9enable_ifIXntsrSt8is_arrayIT_E5value\
                 ES3_E4typeEEDpOT0_",
                Some("std::make_shared<…>"),
            ),
            ("_ZN3app4Pool3getIiEEvv", Some("app::Pool::get<…>")),
            ("_ZN3app4PoolIiE3getEv", Some("app::Pool<…>")),
            ("_ZNKSt3map2atEv", Some("std::map::at")),
            ("_Z4openi", Some("open")),
            ("_ZN99x", None),
            ("_ZSt", None),
            ("_Z99999999999999999999999x", None),
            ("_Z", None),
            ("open", None),
        ] {
            assert_eq!(beginning(symbol).as_deref(), expected, "{symbol}");
        }
    }
}
