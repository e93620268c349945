//! Names and paths as people read them, and as a terminal may see them.

use std::borrow::Cow;

use crate::Place;

/// True of characters that no text for people may have: those that a terminal acts on (C0, DELETE,
/// C1), that end a line, and that change the order of what is shown or are not shown at all
/// (Unicode's bidirectional controls, UAX 9, other format characters, and what XML cannot have).
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{fffe}'..='\u{ffff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// `text` with control and format characters escaped: names and paths are the target's own, and
/// must not be able to move a terminal's cursor, to forge a line of the report, or to look like
/// others.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| match is_harmful(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// Most columns of a name with the types of its parameters.
const WIDEST: usize = 60;

/// A C++ or Rust name without template arguments, the type of the result, and what a compiler adds
/// to a copy of a function; types of parameters only if they are short.
pub(crate) fn short(name: &str) -> String {
    let name = without_copy(name);
    let bare = match name.strip_prefix('<').map(split_closing) {
        // `<T as Trait>::f` of Rust says who it is.
        Some(Some((of, rest))) => {
            let (of, rest) = (without_arguments(of), without_arguments(rest));
            match of.contains(" as ") {
                true => format!("<{of}>{rest}"),
                false => of + &rest,
            }
        }
        Some(None) => name.to_owned(),
        None => without_result(&without_arguments(name)).to_owned(),
    };
    match parameters(&bare) {
        Some((start, end)) if bare.chars().count() > WIDEST => {
            let (before, rest) = bare.split_at(start);
            let after = rest.get(end - start..).unwrap_or_default();
            format!("{before}(…){after}")
        }
        _ => bare,
    }
}

/// `a<b>` and `::c` of `a<b>>::c`.
fn split_closing(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1usize;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text.get(at + 1..).map(|rest| (text.split_at(at).0, rest));
        }
        before = c;
    }
    None
}

fn without_copy(name: &str) -> &str {
    const COPIES: &[&str] = &[
        " [clone ",
        ".constprop.",
        ".isra.",
        ".part.",
        ".cold",
        ".llvm.",
    ];
    let ends = COPIES.iter().filter_map(|copy| name.find(copy));
    let end = ends.filter(|&end| end > 0).min();
    name.split_at(end.unwrap_or(name.len())).0
}

fn without_arguments(name: &str) -> String {
    let mut folded = String::new();
    let mut depth = 0usize;
    let mut before = ' ';
    for c in name.chars() {
        let operator = folded
            .trim_end_matches(['<', '>', '-', '='])
            .ends_with("operator");
        match c {
            '<' if !operator => {
                depth += 1;
                // `f::<T>` of Rust.
                if depth == 1 && folded.ends_with("::") {
                    folded.truncate(folded.len() - 2);
                }
            }
            '>' if !operator && depth > 0 && before != '-' => depth -= 1,
            _ if depth == 0 => folded.push(c),
            _ => {}
        }
        before = c;
    }
    folded
}

/// Without the type of the result, which that of a template has: it ends at the last space before
/// the parameters.
pub(crate) fn without_result(name: &str) -> &str {
    let Some((start, _)) = parameters(name) else {
        return name;
    };
    let before = name.split_at(start).0;
    let before = before.split_once("operator").map_or(before, |(of, _)| of);
    let mut depth = 0usize;
    let mut end = 0;
    for (at, c) in before.char_indices() {
        match c {
            '(' | '{' | '<' => depth += 1,
            ')' | '}' | '>' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 => end = at + 1,
            _ => {}
        }
    }
    name.split_at(end).1
}

/// A C++ name without what follows it: `f` of `f(int) const`.
pub(crate) fn without_parameters(name: &str) -> &str {
    match parameters(name) {
        // In a name of Go's there are brackets, too.
        Some((start, end))
            if name
                .get(end..)
                .is_some_and(|rest| !rest.starts_with(['.', ':'])) =>
        {
            name.split_at(start).0
        }
        // Of a name that is cut, they have no end.
        None if name.ends_with('…') => match open_bracket(name) {
            Some(at) => name.split_at(at).0,
            None => name,
        },
        _ => name,
    }
}

/// The first bracket that is in no other, and no part of a name.
fn open_bracket(name: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut found = name.char_indices().filter(|&(at, c)| {
        let is_outer = depth == 0;
        match c {
            '(' | '<' | '{' => depth += 1,
            ')' | '>' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let (before, behind) = name.split_at(at);
        let is_name = ["(anonymous namespace)", "()"];
        let is_name = is_name.iter().any(|name| behind.starts_with(name));
        c == '(' && is_outer && !before.is_empty() && !is_name
    });
    found.next().map(|(at, _)| at)
}

/// Where the parameters of a C++ function begin and end: the last brackets that are in no others,
/// and no part of a name.
fn parameters(name: &str) -> Option<(usize, usize)> {
    let mut depth = 0usize;
    let (mut start, mut found) = (0, None);
    for (at, c) in name.char_indices() {
        match c {
            '(' | '{' => {
                if depth == 0 {
                    start = at;
                }
                depth += 1;
            }
            ')' | '}' => {
                depth = depth.saturating_sub(1);
                let inside = name.get(start..=at).unwrap_or_default();
                let is_name = c == '}'
                    || inside == "(anonymous namespace)"
                    || name.split_at(start).0.ends_with("operator") && inside == "()";
                if depth == 0 && !is_name {
                    found = Some((start, at + 1));
                }
            }
            _ => {}
        }
    }
    found
}

/// A source file's path, without the part of Rust's own that names the compiler.
pub(crate) fn without_compiler(file: &str) -> &str {
    let rust = file.strip_prefix("/rustc/");
    rust.and_then(|rest| rest.split_once('/'))
        .map_or(file, |(_, path)| path)
}

/// The last part of a path.
pub(crate) fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Functions of C's and Rust's runtime that call `main`, by the beginning of their names.
const RUNTIME: &[&str] = &[
    "_start",
    "__libc_start_",
    "libc_start_main_stage2",
    "std::rt::lang_start",
    "std::sys::backtrace::__rust_begin_short_backtrace",
    "std::panic::catch_unwind",
    "std::panicking::",
    "core::ops::function::FnOnce::call_once",
    "core::ops::function::impls::",
];

/// The frames up to the program's `main`. All of them where anything but the runtime called it.
pub(crate) fn up_to_main<'a, 'p>(frames: &'p [Place<'a>]) -> &'p [Place<'a>] {
    let without_start = match frames {
        // `_start` of a stripped program.
        [rest @ .., caller, start] if start.frame.function.is_none() && is_runtime(caller) => rest,
        _ => frames,
    };
    let Some(main) = without_start.iter().rposition(|place| !is_runtime(place)) else {
        return frames;
    };
    if name(without_start.get(main)) != "main" {
        return frames;
    }
    // Rust's own `main` is a function of the program's crate, called by the runtime's.
    let inner = without_start.get(..main).unwrap_or_default();
    let rust = inner.iter().rposition(|place| !is_runtime(place));
    let end = match rust {
        Some(rust) if rust + 1 < main && name(inner.get(rust)).ends_with("::main") => rust,
        _ => main,
    };
    frames.get(..=end).unwrap_or(frames)
}

fn is_runtime(place: &Place<'_>) -> bool {
    let name = name(Some(place));
    // Rust's shims of closures and pointers: `<F as core::ops::function::FnOnce<..>>::call_once`.
    RUNTIME.iter().any(|start| name.starts_with(start))
        || (name.starts_with('<') && name.contains("core::ops::function::"))
}

fn name<'a>(place: Option<&Place<'a>>) -> &'a str {
    place
        .and_then(|place| place.frame.function.as_deref())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;

    #[test]
    fn names_are_short() {
        let long = "std::basic_string<char, std::char_traits<char> > const&, unsigned long, int";
        for (name, expected) in [
            (
                "std::vector<int, std::allocator<int> >::push_back(int&&)",
                "std::vector::push_back(int&&)",
            ),
            ("operator<<(std::ostream&)", "operator<<(std::ostream&)"),
            ("a::operator->()", "a::operator->()"),
            ("f<(a->b)>()", "f()"),
            ("std::shared_ptr<A> make<A>(int)", "make(int)"),
            (
                "void (anonymous namespace)::f<int>(int)",
                "(anonymous namespace)::f(int)",
            ),
            ("operator new(unsigned long)", "operator new(unsigned long)"),
            (
                "bool A::operator()<int>(int) const",
                "A::operator()(int) const",
            ),
            (
                "main::{lambda(int)#1}::operator()(int) const",
                "main::{lambda(int)#1}::operator()(int) const",
            ),
            (
                &format!("open_connection({long}, {long})"),
                "open_connection(…)",
            ),
            ("work(int) [clone .constprop.0]", "work(int)"),
            ("work.isra.0", "work"),
            ("<T as Trait>::f", "<T as Trait>::f"),
            ("<a::B<C> as d::E<F>>::f", "<a::B as d::E>::f"),
            ("<a::B<C>>::f::<D>", "a::B::f"),
            ("alloc::vec::Vec<T,A>::push", "alloc::vec::Vec::push"),
            ("app::main::{{closure}}", "app::main::{{closure}}"),
            ("main", "main"),
            ("broken<", "broken"),
            ("<broken", "<broken"),
            (")}(", ")}("),
            ("", ""),
        ] {
            assert_eq!(short(name), expected);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("größe"), "größe");
        assert_eq!(printable("a\x1b[31m\nb\u{9b}"), "a\\u{1b}[31m\\nb\\u{9b}");
        assert_eq!(printable("\u{202e}gpj\u{2069}"), "\\u{202e}gpj\\u{2069}");
        assert_eq!(
            printable("a\u{2028}b\u{7f}\x07"),
            "a\\u{2028}b\\u{7f}\\u{7}"
        );
    }

    #[test]
    fn only_what_the_runtime_calls_main_with_is_left_out() {
        let cases: [(&[&str], usize); 7] = [
            (
                &[
                    "f",
                    "main",
                    "__libc_start_call_main",
                    "__libc_start_main_impl",
                    "_start",
                ],
                2,
            ),
            (&["f", "main", "__libc_start_main", ""], 2),
            (
                &[
                    "f",
                    "app::main",
                    "core::ops::function::FnOnce::call_once",
                    "std::rt::lang_start::{{closure}}",
                    "main",
                    "_start",
                ],
                2,
            ),
            (&["f", "Worker::main", "run_all", "main", "_start"], 4),
            (&["f", "Worker::main", "start_thread", "clone3"], 4),
            (&["f", "main", "", "g"], 4),
            (&["_start"], 1),
        ];
        for (names, expected) in cases {
            let frame = |name: &&str| Frame {
                function: Some((*name).to_owned()).filter(|name| !name.is_empty()),
                ..Frame::default()
            };
            let frames: Vec<_> = names.iter().map(frame).collect();
            let module = None;
            let places: Vec<_> = frames.iter().map(|frame| Place { frame, module }).collect();
            assert_eq!(up_to_main(&places).len(), expected, "{names:?}");
        }
    }
}
