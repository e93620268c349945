//! A stack, as suppressions see it.

use crate::{Kind, Place, Site, Tables};

/// C++'s operators, by their mangled names: how one calls another differs from library to library,
/// and a call at the end of one leaves no frame.
const OPERATORS: &[&str] = &[
    "_Znwm",
    "_Znam",
    "_ZnwmRKSt9nothrow_t",
    "_ZnamRKSt9nothrow_t",
    "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t",
    "_ZnamSt11align_val_tRKSt9nothrow_t",
    "operator new(unsigned long)",
    "operator new[](unsigned long)",
];

/// What stands at one place of a stack.
#[derive(Clone, Copy)]
pub(super) enum Call<'a> {
    /// The allocator's function that was called, which our stacks begin behind; and whether that
    /// was one of [`OPERATORS`], or called by one.
    Allocator(&'a str, bool),
    /// A frame.
    Frame(Place<'a>),
}

/// The stack of a site.
pub(super) struct Stack<'a> {
    pub(super) kind: Kind,
    /// The ways in which tools list it: with the function that was called, with and without what
    /// was inlined of the allocator; or as leaktap does.
    pub(super) ways: Vec<Vec<Call<'a>>>,
}

impl<'a> Stack<'a> {
    pub(super) fn of(site: &'a Site, tables: Tables<'a>) -> Stack<'a> {
        let (operators, rest) = operators(site, tables);
        let is_operator = !operators.is_empty() || site.function.starts_with(OPERATOR);
        let called = || std::iter::once(Call::Allocator(&site.function, is_operator));
        let frames = || tables.places(&site.frames).map(Call::Frame);
        let mut ways: Vec<Vec<_>> = vec![called().chain(frames()).collect(), frames().collect()];
        if !rest.is_empty() {
            let rest = rest.into_iter().map(Call::Frame);
            ways.push(called().chain(rest).chain(frames()).collect());
        }
        Stack {
            kind: site.kind,
            ways,
        }
    }
}

const OPERATOR: &str = "operator new";

/// Of the allocator's frames, the operators that begin them, and the others.
pub(super) fn operators<'a>(site: &Site, tables: Tables<'a>) -> (Vec<Place<'a>>, Vec<Place<'a>>) {
    let mut operators = tables.stack(&site.allocator);
    let is_operator = |place: &Place<'_>| {
        let function = place.frame.function.as_deref();
        function.is_some_and(|function| function.starts_with(OPERATOR))
    };
    let others = operators.iter().position(|place| !is_operator(place));
    let rest = operators.split_off(others.unwrap_or(operators.len()));
    (operators, rest)
}

/// The names by which tools know the function that was called.
pub(super) fn names(function: &str, is_operator: bool) -> impl Iterator<Item = &str> {
    let operators = if is_operator { OPERATORS } else { &[] };
    // A group may have been made by several.
    function.split(", ").chain(operators.iter().copied())
}
