//! Names and paths as people read them, and as a terminal may see them.

use std::borrow::Cow;

use crate::Place;

/// True of characters that no text for people may have: those that a terminal acts on (C0, DELETE,
/// C1), that end a line, and that change the order of what is shown or are not shown at all
/// (Unicode's bidirectional controls, UAX 9, and other format characters).
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
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// `text` with control and format characters escaped: names and paths are the target's own, and
/// must not be able
/// to move a terminal's cursor, to forge a line of the report, or to look like others.
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

/// A C++ or Rust name without its template arguments.
pub(crate) fn fold(name: &str) -> String {
    // `<T as Trait>::f` of Rust says who it is.
    if name.starts_with('<') || !name.contains('<') {
        return name.to_owned();
    }
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
                if depth == 1 {
                    folded.push_str("<..>");
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
    fn folds_template_arguments() {
        for (name, expected) in [
            (
                "std::vector<int, std::allocator<int> >::push_back(int&&)",
                "std::vector<..>::push_back(int&&)",
            ),
            ("operator<<(std::ostream&)", "operator<<(std::ostream&)"),
            ("a::operator->()", "a::operator->()"),
            ("f<(a->b)>()", "f<..>()"),
            ("<T as Trait>::f", "<T as Trait>::f"),
            ("main", "main"),
            ("broken<", "broken<..>"),
        ] {
            assert_eq!(fold(name), expected);
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
