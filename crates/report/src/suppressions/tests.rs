use super::ready::ready;
use super::*;
use crate::Frame;
use crate::formats::text::tests::{add, frame, report};

fn of(text: &str) -> Suppressions {
    let rules = parse(text).unwrap();
    let rules = rules.into_iter().map(|rule| Rule {
        file: Some("x.supp".to_owned()),
        ..rule
    });
    Suppressions {
        rules: rules.collect(),
    }
}

fn rule(frames: &str) -> String {
    let frames = frames.replace(' ', "\n  ");
    format!("{{\n  x\n  Memcheck:Leak\n  {frames}\n}}\n")
}

/// A leak in `Shop::add`, called by `work`, which has no line, called by `main`.
fn leak() -> Report {
    let mut all = report();
    let add_to = Frame {
        symbol: Some("_ZN4Shop3addEi".to_owned()),
        ..frame("Shop::add(int)", "/src/shop.cc", 7)
    };
    let nameless = Frame {
        function: None,
        file: None,
        line: None,
        ..frame("", "", 0)
    };
    let stack = [add_to, nameless, frame("main", "/src/main.cc", 3)];
    add(&mut all, &stack, &[(1.0, 3, 192)]);
    all
}

fn is_suppressed(text: &str, report: &Report) -> bool {
    let mut reports = [report.clone()];
    of(text).apply(&mut reports);
    reports[0].sites.is_empty()
}

#[test]
fn valgrinds_frames_match_from_the_innermost_on() {
    for (frames, expected) in [
        ("fun:malloc fun:_ZN4Shop3addEi", true),
        ("fun:malloc fun:_ZN4Shop*", true),
        ("fun:m?lloc fun:Shop::add(int)", true),
        ("fun:_ZN4Shop3addEi", true),
        ("fun:calloc fun:_ZN4Shop3addEi", false),
        ("fun:main", false),
        ("... fun:main", true),
        ("fun:malloc ... fun:main", true),
        ("fun:malloc ... fun:mains", false),
        ("fun:malloc * fun:main", false),
        ("fun:malloc fun:* fun:* fun:main", true),
        ("fun:malloc fun:* fun:main", false),
        ("fun:malloc src:shop.cc", true),
        ("fun:malloc src:shop.cc:7", true),
        ("fun:malloc src:shop.cc:8", false),
        ("fun:malloc src:/src/*.cc", true),
        ("fun:malloc obj:*/bin/*", true),
        ("obj:* obj:* obj:*", true),
        ("obj:* obj:* obj:* obj:* obj:*", false),
    ] {
        let parsed = parse(&rule(frames));
        let is_suppressed = parsed.is_ok() && is_suppressed(&rule(frames), &leak());
        assert_eq!(is_suppressed, expected, "{frames}");
    }
}

#[test]
fn operators_have_mangled_names() {
    let mut report = leak();
    report.sites[0].function = "operator new".to_owned();
    for (frames, expected) in [
        ("fun:_Znwm fun:_ZN4Shop3addEi", true),
        ("fun:_Znw* ... fun:main", true),
        ("fun:operator?new* ... fun:main", true),
        ("fun:_Znam fun:_ZN4Shop3addEi", true),
        ("fun:_ZdlPv fun:_ZN4Shop3addEi", false),
    ] {
        assert_eq!(is_suppressed(&rule(frames), &report), expected, "{frames}");
    }
}

#[test]
fn kinds_count_where_leaks_are_graded() {
    for (kinds, kind, expected) in [
        ("definite", Kind::Definite, true),
        ("reachable", Kind::Definite, false),
        ("possible,reachable", Kind::Reachable, true),
        ("all", Kind::Indirect, true),
        ("definite", Kind::Unmatched, true),
        ("none", Kind::Unmatched, false),
        ("all", Kind::Runtime, false),
    ] {
        let mut report = leak();
        report.sites[0].kind = kind;
        let text = rule(&format!("match-leak-kinds:{kinds} fun:malloc"));
        assert_eq!(is_suppressed(&text, &report), expected, "{kinds} {kind:?}");
    }
}

#[test]
fn leak_sanitizers_match_any_frame() {
    for (text, expected) in [
        ("leak:main", true),
        ("# all of it\n\n  leak:^Shop::add  ", true),
        ("leak:^add", false),
        ("leak:shop.cc", true),
        ("leak:_ZN4Shop", true),
        ("leak:nobody\nleak:main", true),
    ] {
        assert_eq!(is_suppressed(text, &leak()), expected, "{text}");
    }
}

#[test]
fn what_is_suppressed_is_told() {
    let mut reports = [leak(), leak()];
    let text = rule("fun:malloc fun:nobody") + &rule("fun:malloc ... fun:main");
    let gone = of(&text).apply(&mut reports);
    assert_eq!(gone.iter().map(Vec::len).sum::<usize>(), 2);
    for report in &reports {
        let totals = &report.totals;
        assert_eq!(
            (totals.suppressed_blocks, totals.suppressed_bytes),
            (3, 192)
        );
        let told: Vec<_> = report
            .suppressions
            .iter()
            .map(|one| (one.line, one.sites))
            .collect();
        assert_eq!(told, [(Some(7), 1), (Some(1), 0)]);
    }
}

#[test]
fn a_target_may_bring_its_own() {
    let mut reports = [leak()];
    reports[0].target_suppressions = Some("leak:Shop\nleak:unused\n".to_owned());
    Suppressions::default().apply(&mut reports);
    assert!(reports[0].sites.is_empty());
    let [told] = &reports[0].suppressions[..] else {
        panic!("{:?}", reports[0].suppressions)
    };
    assert_eq!((told.file.as_deref(), told.sites), (Some(OF_TARGET), 1));
    let mut reports = [leak()];
    reports[0].target_suppressions = Some("race:x".to_owned());
    Suppressions::default().apply(&mut reports);
    assert_eq!(reports[0].sites.len(), 1);
    assert!(reports[0].notes[0].contains(OF_TARGET));
}

#[test]
fn what_is_wrong_with_a_file_is_told_by_line() {
    for (text, line, why) in [
        ("{\n x\n Memcheck:Leak\n fun:a\n", 1, "no `}`"),
        ("\n# x\nfun:malloc\n", 3, "leak:PATTERN"),
        ("x\n", 1, "begins a suppression"),
        ("{\n x\n}\n", 1, "name"),
        ("{\n x\n Leak\n fun:a\n}\n", 3, "Memcheck:Leak"),
        ("{\n x\n Memcheck:Leak\n}\n", 1, "everything"),
        ("{\n x\n Memcheck:Leak\n ...\n}\n", 1, "everything"),
        ("{\n x\n Memcheck:Leak\n foo\n}\n", 4, "fun:NAME"),
        (
            "{\n x\n Memcheck:Leak\n match-leak-kinds: lost\n fun:a\n}\n",
            4,
            "definite",
        ),
        ("leak:a\nrace:b\n", 2, "leak:PATTERN"),
        ("leak:\n", 1, "everything"),
    ] {
        let problem = parse(text).unwrap_err();
        assert_eq!(problem.line, line, "{text}: {problem}");
        assert!(problem.why.contains(why), "{text}: {problem}");
    }
}

#[test]
fn other_errors_of_valgrinds_are_passed_over() {
    let text = "{\n x\n Memcheck:Param\n write(buf)\n fun:write\n}\n\
                {\n x\n Helgrind:Race\n fun:a\n}\n{\n x\n Memcheck,Addrcheck:Leak\n fun:a\n}\n";
    assert_eq!(parse(text).unwrap().len(), 1);
    assert!(parse("# nothing\n").unwrap().is_empty());
}

#[test]
fn the_built_in_ones_can_be_read() {
    let mut all = Suppressions::default();
    all.add_default();
    assert!(!all.rules.is_empty());
    assert_eq!(valgrind::parse(DEFAULT).unwrap().len(), all.rules.len());
}

/// What is printed for a leak suppresses it, and nothing but it.
#[test]
fn what_is_ready_suppresses_its_leak() {
    let mut report = leak();
    for (function, name) in [("malloc", "malloc"), ("operator new", "_Zn*")] {
        report.sites[0].function = function.to_owned();
        let text = ready(std::slice::from_ref(&report));
        assert!(text.contains(&format!("fun:{name}\n")), "{text}");
        assert!(is_suppressed(&text, &report), "{text}");
        let mut other = report.clone();
        other.frames[0].symbol = None;
        other.frames[0].function = Some("other".to_owned());
        assert!(!is_suppressed(&text, &other), "{text}");
    }
    let twice = ready(&[report.clone(), report.clone()]);
    assert_eq!(twice, ready(&[report]));
}
