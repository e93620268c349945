//! Operators by their codes.

/// How one is written in an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `-a`
    Prefix,
    /// `a++`, or with `_` behind the code `++a`
    Postfix,
    /// `a+b`
    Infix,
    /// In a way of its own.
    Other,
}

use Form::{Infix, Other, Postfix, Prefix};

const OPERATORS: [(&str, &str, Form); 61] = [
    ("aN", "&=", Infix),
    ("aS", "=", Infix),
    ("aa", "&&", Infix),
    ("ad", "&", Prefix),
    ("an", "&", Infix),
    ("at", "alignof", Other),
    ("aw", "co_await", Prefix),
    ("az", "alignof", Other),
    ("cc", "const_cast", Other),
    ("cl", "()", Other),
    ("cm", ",", Infix),
    ("co", "~", Prefix),
    ("dV", "/=", Infix),
    ("da", "delete[]", Other),
    ("dc", "dynamic_cast", Other),
    ("de", "*", Prefix),
    ("dl", "delete", Other),
    ("ds", ".*", Infix),
    ("dt", ".", Infix),
    ("dv", "/", Infix),
    ("eO", "^=", Infix),
    ("eo", "^", Infix),
    ("eq", "==", Infix),
    ("ge", ">=", Infix),
    ("gt", ">", Infix),
    ("ix", "[]", Other),
    ("lS", "<<=", Infix),
    ("le", "<=", Infix),
    ("ls", "<<", Infix),
    ("lt", "<", Infix),
    ("mI", "-=", Infix),
    ("mL", "*=", Infix),
    ("mi", "-", Infix),
    ("ml", "*", Infix),
    ("mm", "--", Postfix),
    ("na", "new[]", Other),
    ("ne", "!=", Infix),
    ("ng", "-", Prefix),
    ("nt", "!", Prefix),
    ("nw", "new", Other),
    ("oR", "|=", Infix),
    ("oo", "||", Infix),
    ("or", "|", Infix),
    ("pL", "+=", Infix),
    ("pl", "+", Infix),
    ("pm", "->*", Infix),
    ("pp", "++", Postfix),
    ("ps", "+", Prefix),
    ("pt", "->", Infix),
    ("qu", "?", Other),
    ("rM", "%=", Infix),
    ("rS", ">>=", Infix),
    ("rc", "reinterpret_cast", Other),
    ("rm", "%", Infix),
    ("rs", ">>", Infix),
    ("sc", "static_cast", Other),
    ("ss", "<=>", Infix),
    ("st", "sizeof", Other),
    ("sz", "sizeof", Other),
    ("te", "typeid", Other),
    ("ti", "typeid", Other),
];

/// How the operator with this code is written, and in which form.
pub(super) fn operator(code: &str) -> Option<(&'static str, Form)> {
    let at = OPERATORS.binary_search_by_key(&code, |(code, ..)| code);
    let (_, symbol, form) = OPERATORS.get(at.ok()?)?;
    Some((symbol, *form))
}

/// What stands behind `operator` where such an operator is declared.
pub(super) fn symbol(code: &str) -> Option<&'static str> {
    let is_declared = !matches!(
        code,
        "at" | "az" | "cc" | "dc" | "ds" | "dt" | "rc" | "sc" | "st" | "sz" | "te" | "ti"
    );
    operator(code).filter(|_| is_declared).map(|found| found.0)
}
