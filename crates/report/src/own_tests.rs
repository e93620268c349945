use super::*;
use crate::formats::text::tests::{add, frame, report};
use crate::{Frame, Hex, Module, ModuleId};

/// A report of a program with these stacks; each frame is function, file and module.
fn marked(own: &Own, stacks: &[&[(&str, &str, &str)]]) -> Report {
    let mut report = report();
    for stack in stacks {
        let frames = stack.iter().map(|(function, file, module)| {
            report.modules.push(Module {
                path: (*module).to_owned(),
                ..Module::default()
            });
            let module = ModuleId(report.modules.len() as u32 - 1);
            Frame {
                module: Some(module),
                file: Some((*file).to_owned()).filter(|file| !file.is_empty()),
                offset: Some(Hex(1)),
                ..frame(function, "", 7)
            }
        });
        let frames: Vec<_> = frames.collect();
        add(&mut report, &frames, &[(1.0, 1, 1)]);
    }
    report.target.program = "/home/u/app/build/app".to_owned();
    own.mark(&mut report);
    report
}

fn culprits(own: &Own, stacks: &[&[(&str, &str, &str)]]) -> Vec<String> {
    let report = marked(own, stacks);
    let culprit = |site: &crate::Site| {
        let place = report.tables().place(site.culprit.unwrap()).unwrap();
        place.frame.function.clone().unwrap()
    };
    report.sites.iter().map(culprit).collect()
}

const APP: &str = "/home/u/app/build/app";
const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";

#[test]
fn the_first_own_frame_is_the_culprit() {
    let push = (
        "std::vector<int>::push_back",
        "/usr/include/c++/12/v.h",
        APP,
    );
    let fill = ("fill", "/home/u/app/src/fill.cpp", APP);
    let main = ("main", "/home/u/app/src/main.cpp", APP);
    let gtk = ("gtk_new", "", "/usr/lib/libgtk-4.so.1");
    let start = ("_start", "", APP);
    // Its sources are those of the program.
    let installed = (
        "open",
        "/home/u/app/lib/open.c",
        "/usr/local/lib/libopen.so",
    );
    // Beside the program.
    let plugin = ("plug", "", "/home/u/app/plugins/plug.so");
    let rest = [
        (("strdup", "", LIBC), "strdup"),
        (("PyList_New", "", "/usr/bin/python3.11"), "PyList_New"),
        (
            (
                "numpy",
                "",
                "/home/u/.venv/lib/python3/site-packages/numpy/x.so",
            ),
            "numpy",
        ),
    ];
    let none = Own::default();
    for (stack, expected) in [
        (vec![push, fill, main], "fill"),
        (vec![gtk, main, start], "main"),
        (vec![gtk, ("start_thread", "", LIBC)], "gtk_new"),
        (vec![installed, main], "open"),
        (vec![plugin, main], "plug"),
    ] {
        let with_sources = [&[fill, main][..], &stack];
        assert_eq!(culprits(&none, &with_sources)[1], expected, "{stack:?}");
    }
    for (frame, expected) in rest {
        assert_eq!(culprits(&none, &[&[frame, start]])[0], expected);
    }
}

#[test]
fn the_user_may_say_otherwise() {
    let gtk = ("gtk_new", "/build/gtk/list.c", "/usr/lib/libgtk-4.so.1");
    let pool = ("pool_get", "/home/u/app/pool/pool.c", APP);
    let main = ("main", "/home/u/app/src/main.c", APP);
    let own = |own: &[&str], not_own: &[&str]| {
        let all = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Own {
            own: all(own),
            not_own: all(not_own),
        }
    };
    for (own, expected) in [
        (own(&[], &[]), "pool_get"),
        (own(&["libgtk-4"], &[]), "gtk_new"),
        (own(&["libgtk-4.so.1"], &[]), "gtk_new"),
        (own(&["libgtk"], &[]), "pool_get"),
        (own(&["/build"], &[]), "gtk_new"),
        (own(&["/buil"], &[]), "pool_get"),
        (own(&["gtk/list.c"], &[]), "gtk_new"),
        (own(&[], &["./pool"]), "main"),
        (own(&[], &["pool/"]), "main"),
        (own(&[], &["app/pool"]), "main"),
        (own(&["app/pool"], &["app"]), "pool_get"),
    ] {
        let found = culprits(&own, &[&[gtk, pool, main]]);
        assert_eq!(found, [expected], "{own:?}");
    }
}

#[test]
fn rusts_c_main_is_not_the_users() {
    let std = "/rustc/c0ffee/library/std/src/rt.rs";
    let run = ("lang_start<()>", std, APP);
    let report = marked(
        &Own::default(),
        &[&[("f", "/rustc/x/library/y.rs", APP), run, ("main", "", APP)]],
    );
    let own: Vec<_> = report.frames.iter().map(|frame| frame.own).collect();
    assert_eq!(own, [Some(false); 3]);
}

#[test]
fn who_allocates_for_several_is_not_to_blame() {
    let at = |function| (function, "", APP);
    let (zmalloc, usable) = (at("zmalloc"), at("ztrymalloc_usable"));
    let (main, malloc) = (at("main"), at("leak_malloc"));
    let stacks: [&[_]; 5] = [
        &[usable, zmalloc, at("create"), main],
        &[usable, zmalloc, at("insert"), main],
        &[usable, at("expand"), main],
        // Only one function calls it.
        &[malloc, main],
        // Nobody else is there.
        &[zmalloc],
    ];
    let expected = ["create", "insert", "expand", "leak_malloc", "zmalloc"];
    assert_eq!(culprits(&Own::default(), &stacks), expected);
}
