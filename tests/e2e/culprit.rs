//! What the text report says first of a site: whose code it is, and what becomes of its blocks.

use crate::compile::Build;
use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::{leaktap_with, run};

/// The text report of a program that was launched under these options.
fn launched(engine: Engine, options: &[&str], fixture: &Fixture) -> String {
    let program = fixture.program().display().to_string();
    let engine = engine.to_string();
    let run = ["run", "--engine", &engine];
    let words = [&run[..], options, &["--", &program, "run"]].concat();
    let finished = leaktap_with(words);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.shown());
    finished.stderr_text()
}

/// The lines of each site: how much, and who the culprit is, and so on.
fn sites(text: &str) -> Vec<Vec<&str>> {
    let paragraphs = text.split("\n\n").map(str::trim);
    let is_site = |text: &&str| text.starts_with(|c: char| c.is_ascii_digit());
    let sites = paragraphs.filter(is_site);
    sites
        .map(|site| site.lines().map(str::trim).collect())
        .collect()
}

engines! {
    fn the_second_line_is_the_users_own(engine) {
        let text = launched(engine, &[], &Fixture::new("culprit.cpp"));
        let culprits: Vec<_> = sites(&text).iter().map(|site| site[1].to_owned()).collect();
        for own in [
            "fill  culprit.cpp:13",
            "compare  culprit.cpp:17",
            "in_thread  culprit.cpp:21",
            "make  culprit.cpp:23",
            "main  culprit.cpp:27",
        ] {
            let (name, place) = own.split_once("  ").expect("a place");
            let is_it = |line: &&String| line.starts_with(name) && line.ends_with(place);
            assert_eq!(culprits.iter().filter(is_it).count(), 1, "{own} in {text}");
        }
        // libstdc++'s pool for exceptions is nobody's.
        let own = |line: &&String| line.contains("culprit.cpp:");
        assert!(
            culprits.iter().filter(own).count() + 1 >= culprits.len(),
            "{text}"
        );
        for absent in ["_start", "__libc_start", "clone", "allocator"] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
        assert!(text.contains(" in libstdc++"), "{text}");
    }

    fn who_is_to_blame_can_be_said(engine) {
        let fixture = Fixture::new("culprit.cpp");
        for (options, expected) in [
            (["--own", "libc.so.6"], "strdup"),
            (["--own", "libc"], "strdup"),
            (["--not-own", "fixtures/culprit.cpp"], "compare"),
        ] {
            let text = launched(engine, &options, &fixture);
            let of_strdup = sites(&text)
                .into_iter()
                .find(|site| site[0].contains(" 14 B in 1 block "));
            let culprit = of_strdup.map(|site| site[1].to_owned()).unwrap_or_default();
            assert!(culprit.contains(expected), "{options:?}: {text}");
        }
    }

    fn rusts_runtime_is_left_out_with_lines_alone(engine) {
        let flags = vec!["-C".to_owned(), "debuginfo=line-tables-only".to_owned()];
        let build = Build {
            flags,
            ..Build::default()
        };
        let text = launched(engine, &[], &Fixture::built("rust_leaks.rs", &build));
        for absent in [
            "lang_start",
            "short_backtrace",
            "catch_unwind",
            "call_once",
            "panicking",
        ] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
        assert!(text.contains("rust_leaks.rs:18"), "{text}");
    }

    fn a_line_in_several_places_is_one_site(engine) {
        let fixture = Fixture::new("unrolled.c");
        for by in ["caller", "stack", "site"] {
            let text = launched(engine, &["--by", by], &fixture);
            let sites = sites(&text);
            assert_eq!(sites.len(), 2, "{by}: {text}");
            assert!(
                sites[0][0].contains(" in 4 blocks, 4,000 B on average"),
                "{by}: {text}"
            );
            assert!(
                sites[0][1].contains("open_connection  unrolled.c:8"),
                "{by}: {text}"
            );
        }
        let traced = run(engine, &[fixture.program().as_ref()]);
        let report = traced.succeeded();
        let culprit = format!("/frames/{}", report.at("/sites/0/culprit"));
        assert_eq!(
            report.at(&(culprit.clone() + "/function")),
            "open_connection"
        );
        assert_eq!(report.at(&(culprit + "/own")), true);
    }

    fn only_so_many_sites_are_listed(engine) {
        let fixture = Fixture::new("recursion.c");
        let text = launched(engine, &["--by", "stack"], &fixture);
        let all = launched(engine, &["--by", "stack", "--top", "0"], &fixture);
        assert_eq!(sites(&text).len(), 20, "{text}");
        let more = format!("\n… {} more (--top 0)\n", sites(&all).len() - 20);
        assert!(text.contains(&more), "{text}");
        assert!(all.contains("at 60 call sites\n"), "{all}");
    }

    fn what_becomes_of_blocks_is_said(engine) {
        let text = launched(engine, &["--sort", "rate"], &Fixture::new("courses.c"));
        let sites = sites(&text);
        for (function, course) in [
            ("growing", ", growing: "),
            ("turning_over", ", turns over: none older than "),
            ("replacing", ", full: as many as at "),
            ("for_a_while", ", stopped after "),
            ("at_start", ", start-up: none is of later than "),
        ] {
            let site = sites.iter().find(|site| site[1].starts_with(function));
            assert!(
                site.is_some_and(|site| site[0].contains(course)),
                "{function}: {text}"
            );
        }
        assert!(sites[0][1].starts_with("growing "), "{text}");
    }
}
