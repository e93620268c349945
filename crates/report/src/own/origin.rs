//! Whose code a frame is, by its file, its name and its module.

use std::borrow::Cow;

use crate::Place;
use crate::names::{last_part, short};

/// Whose code it is. The first of these that a stack has is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// The user's own.
    Own,
    /// A library's.
    Library,
    /// An interpreter's.
    Language,
    /// The standard library's of a compiled language.
    Standard,
    /// The C library's, the dynamic linker's, an allocator's.
    System,
}

/// Whose code a frame is, and what that is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    /// Whose.
    pub(crate) class: Class,
    /// As in "4 in libstdc++".
    pub(crate) label: Cow<'a, str>,
}

impl<'a> Origin<'a> {
    fn new(class: Class, label: impl Into<Cow<'a, str>>) -> Origin<'a> {
        let label = label.into();
        Origin { class, label }
    }

    /// Whose code a frame is that [`Own`](crate::Own) has marked.
    pub(crate) fn of(place: &Place<'a>) -> Origin<'a> {
        if place.frame.own == Some(true) {
            return Origin::new(Class::Own, module_name(place));
        }
        let foreign = Origin::foreign(place);
        // What calls Rust's `lang_start`: the user's `main` has a file, or is a crate's.
        foreign.unwrap_or_else(|| match is_nameless_main(place) {
            true => Origin::new(Class::Standard, RUST),
            false => Origin::new(Class::Library, module_name(place)),
        })
    }

    /// Whose code it is, if not the module's that it is in.
    pub(crate) fn foreign(place: &Place<'a>) -> Option<Origin<'a>> {
        let name = place.frame.function.as_deref().unwrap_or_default();
        if is_entry(name) {
            return Some(Origin::new(Class::System, "libc"));
        }
        let by_code = match place.frame.file.as_deref() {
            Some(file) => by_file(file),
            None => by_name(name),
        };
        by_code.or_else(|| by_module(place.module?.path.as_str()))
    }
}

/// `main`, of which nothing else is known.
pub(crate) fn is_nameless_main(place: &Place<'_>) -> bool {
    place.frame.function.as_deref() == Some("main") && place.frame.file.is_none()
}

/// What Rust's runtime calls the program's `main` with.
pub(crate) fn is_lang_start(place: &Place<'_>) -> bool {
    let name = place.frame.function.as_deref().unwrap_or_default();
    name.contains("lang_start") && Origin::foreign(place).is_some_and(|origin| origin.label == RUST)
}

fn module_name<'a>(place: &Place<'a>) -> &'a str {
    place
        .module
        .map_or("(no module)", |module| last_part(&module.path))
}

const RUST: &str = "Rust std";
const GO: &str = "Go runtime";
const LIBSTDCXX: &str = "libstdc++";
const LIBCXX: &str = "libc++";

/// How C's threads and programs begin.
fn is_entry(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "_start",
        "_start_c",
        "_dl_start_user",
        "_dl_init",
        "call_init",
        "start_thread",
        "clone",
        "clone3",
        "__clone",
        "__clone3",
        "__clone_internal",
        "libc_start_main_stage2",
    ];
    name.starts_with("__libc_start_") || NAMES.contains(&name)
}

fn by_file(file: &str) -> Option<Origin<'_>> {
    const RUST_PATHS: &[&str] = &["/lib/rustlib/src/rust/library/", "/rust/deps/"];
    const RUST_STARTS: &[&str] = &["library/std/", "library/core/", "library/alloc/"];
    let has = |part: &&str| file.contains(*part);
    let is_rust = file.starts_with("/rustc/")
        || RUST_PATHS.iter().any(has)
        || RUST_STARTS.iter().any(|start| file.starts_with(start));
    if is_rust {
        return Some(Origin::new(Class::Standard, RUST));
    }
    if ["/c++/v1/", "/libcxx/", "/libcxxabi/"].iter().any(has) {
        return Some(Origin::new(Class::Standard, LIBCXX));
    }
    let is_header = file.contains("/include/") && file.contains("/c++/");
    if is_header || file.contains("libstdc++-v3/") {
        return Some(Origin::new(Class::Standard, LIBSTDCXX));
    }
    if ["/go/src/", "/usr/lib/go-", "/usr/share/go-"]
        .iter()
        .any(has)
    {
        return Some(Origin::new(Class::Standard, GO));
    }
    if file.contains("/lib/gcc/") || file.contains("/lib/clang/") {
        return Some(Origin::new(Class::Standard, "the compiler's headers"));
    }
    package(file)
}

/// A library by its source: a crate, a Go module, a header of the system.
fn package(file: &str) -> Option<Origin<'_>> {
    let after = |part: &str| file.split_once(part).map(|(_, rest)| rest);
    let first = |rest: &'_ str| rest.split('/').next().unwrap_or_default().to_owned();
    if let Some((_, rest)) = after("/registry/src/").and_then(|rest| rest.split_once('/')) {
        return Some(Origin::new(Class::Library, unversioned(&first(rest))));
    }
    if let Some(rest) = after("/git/checkouts/") {
        return Some(Origin::new(Class::Library, unversioned(&first(rest))));
    }
    if let Some(rest) = after("/pkg/mod/") {
        let module = rest.split('@').next().unwrap_or(rest);
        return Some(Origin::new(Class::Library, module));
    }
    let header = file.strip_prefix("/usr/include/");
    let header = header.or_else(|| file.strip_prefix("/usr/local/include/"));
    header.map(|rest| Origin::new(Class::Library, first(rest)))
}

/// `serde_json` of `serde_json-1.0.1`.
fn unversioned(name: &str) -> String {
    let end = name.rfind('-').unwrap_or(name.len());
    name.split_at(end).0.to_owned()
}

const GO_NAMES: &[&str] = &["runtime.", "runtime/", "_cgo_", "x_cgo_", "crosscall"];

const RUST_NAMES: &[&str] = &[
    "core::",
    "alloc::",
    "<core::",
    "<alloc::",
    "<std::",
    "__rust_",
    "__rustc",
    "__rdl_",
    "std::rt::",
    "std::sys::",
    "std::panic",
    "std::thread::",
    "std::io::",
];

const CXX_NAMES: &[&str] = &[
    "__gnu_cxx::",
    "operator new",
    "operator delete",
    "__cxa_",
    "__cxxabiv1::",
    "_Unwind_",
];

/// Functions of the C library that allocate for their callers, where it is linked in.
const C_NAMES: &[&str] = &[
    "strdup",
    "__strdup",
    "strndup",
    "__strndup",
    "wcsdup",
    "fopen",
    "fopen64",
    "fdopen",
    "__fopen_internal",
    "getline",
    "getdelim",
    "__getdelim",
    "asprintf",
    "__asprintf",
    "vasprintf",
    "__vasprintf_internal",
    "opendir",
    "qsort",
    "bsearch",
    "setlocale",
    "realpath",
    "scandir",
    "_IO_file_doallocate",
    "_IO_doallocbuf",
];

/// For want of a file.
fn by_name(name: &str) -> Option<Origin<'_>> {
    let begins = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    let function = short(name);
    if begins(GO_NAMES) {
        return Some(Origin::new(Class::Standard, GO));
    }
    if begins(RUST_NAMES) && !name.contains('(') {
        return Some(Origin::new(Class::Standard, RUST));
    }
    if function.starts_with("std::__1::") {
        return Some(Origin::new(Class::Standard, LIBCXX));
    }
    if function.starts_with("std::") || begins(CXX_NAMES) {
        let label = if name.contains('(') { LIBSTDCXX } else { RUST };
        return Some(Origin::new(Class::Standard, label));
    }
    let is_libc = C_NAMES.contains(&name);
    is_libc.then(|| Origin::new(Class::System, "libc"))
}

fn by_module(path: &str) -> Option<Origin<'_>> {
    const SYSTEM: &[&str] = &[
        "ld-linux",
        "ld-musl",
        "ld.so",
        "ld-2",
        "libc.so",
        "libc-2",
        "libc.musl",
        "libpthread",
        "libdl.so",
        "libdl-2",
        "librt.so",
        "librt-2",
        "libm.so",
        "libm-2",
        "libresolv",
        "libutil.so",
        "libnss_",
        "[vdso]",
        "linux-vdso",
        "libjemalloc",
        "libtcmalloc",
        "libmimalloc",
        "libasan",
        "liblsan",
        "libhoard",
        "librpmalloc",
        "libsnmalloc",
    ];
    const STANDARD: &[&str] = &["libstdc++", "libsupc++", "libc++", "libgcc_s", "libunwind"];
    const LANGUAGES: &[&str] = &[
        "python",
        "libpython",
        "libperl",
        "libruby",
        "libjvm",
        "libnode",
        "libphp",
        "liblua",
    ];
    let name = last_part(path);
    let begins = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    let stem = name.split(".so").next().unwrap_or(name);
    if begins(SYSTEM) {
        return Some(Origin::new(Class::System, stem));
    }
    if begins(STANDARD) {
        return Some(Origin::new(Class::Standard, stem));
    }
    if path.contains("/lib-dynload/") {
        return Some(Origin::new(Class::Language, "Python"));
    }
    let is_interpreter = matches!(name, "perl" | "ruby" | "node" | "java" | "php" | "lua");
    let is_language = is_interpreter || begins(LANGUAGES);
    is_language.then(|| Origin::new(Class::Language, stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, Module};

    fn origin(function: &str, file: &str, module: &str) -> Option<(Class, String)> {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let frame = Frame {
            function: some(function),
            file: some(file),
            ..Frame::default()
        };
        let module = Module {
            path: module.to_owned(),
            ..Module::default()
        };
        let place = Place {
            frame: &frame,
            module: Some(&module),
        };
        Origin::foreign(&place).map(|origin| (origin.class, origin.label.into_owned()))
    }

    #[test]
    fn foreign_code_is_told_by_file_name_or_module() {
        use Class::{Language, Library, Standard, System};
        let registry = "/root/.cargo/registry/src/index.crates.io-1/serde_json-1.0.1/src/lib.rs";
        for (function, file, module, expected) in [
            ("f", "/src/x.c", "/x", None),
            (
                "f",
                "/usr/include/c++/12/bits/v.h",
                "/x",
                Some((Standard, LIBSTDCXX)),
            ),
            (
                "f",
                "/usr/lib/llvm-14/include/c++/v1/v",
                "/x",
                Some((Standard, LIBCXX)),
            ),
            (
                "push",
                "/rustc/c0ffee/library/alloc/src/vec/mod.rs",
                "/x",
                Some((Standard, RUST)),
            ),
            ("f", registry, "/x", Some((Library, "serde_json"))),
            (
                "f",
                "/usr/include/boost/a.hpp",
                "/x",
                Some((Library, "boost")),
            ),
            // A specialisation of the user's is the user's.
            ("std::hash<Key>::operator()(Key)", "/src/key.h", "/x", None),
            (
                "std::vector<int>::f(int)",
                "",
                "/x",
                Some((Standard, LIBSTDCXX)),
            ),
            (
                "void std::sort<int*>(int*, int*)",
                "",
                "/x",
                Some((Standard, LIBSTDCXX)),
            ),
            ("std::shared_ptr<A> make<A>(int)", "", "/x", None),
            ("std::__1::f()", "", "/x", Some((Standard, LIBCXX))),
            (
                "alloc::vec::Vec<T,A>::push",
                "",
                "/x",
                Some((Standard, RUST)),
            ),
            ("runtime.cgocall", "", "/x", Some((Standard, GO))),
            ("strdup", "", "/x", Some((System, "libc"))),
            ("strdup", "/src/own.c", "/x", None),
            ("_start", "/src/x.c", "/x", Some((System, "libc"))),
            ("f", "", "/usr/lib/libc.so.6", Some((System, "libc"))),
            (
                "f",
                "",
                "/usr/lib/libstdc++.so.6",
                Some((Standard, LIBSTDCXX)),
            ),
            (
                "f",
                "",
                "/usr/bin/python3.11",
                Some((Language, "python3.11")),
            ),
            ("f", "", "/usr/lib/libglib-2.0.so.0", None),
        ] {
            let expected = expected.map(|(class, label)| (class, label.to_owned()));
            assert_eq!(
                origin(function, file, module),
                expected,
                "{function} {file} {module}"
            );
        }
    }
}
