//! The HTML report in a browser, headless Chromium: `tests/html/` drives it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use leaktap_report::{
    Format as _, Frame, FrameId, Hex, Html, Kind, Module, ModuleId, Moment, Report, Selection,
    Site, difference,
};

use crate::child::Watched;
use crate::comparing::capture;
use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::leaktap_with;
use crate::tools;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/html");

/// Runs a script of `tests/html/` to its end, which has to be a good one.
fn drive(script: &str, arguments: &[&OsStr]) {
    let Some(node) = tools::program("node") else {
        return;
    };
    let Some(chromium) = tools::program("chromium") else {
        return;
    };
    if !Path::new(FOLDER).join("node_modules/axe-core").exists() {
        tools::skipped::<()>("npm packages of tests/html");
        return;
    }
    let mut command = Command::new(node);
    let command = command.current_dir(FOLDER).arg(script).args(arguments);
    let mut process = Watched::spawn(command.env("CHROMIUM", chromium));
    process.close_stdin();
    process.finish().succeeded();
}

/// The page of a run with these options and words.
fn page(engine: Engine, path: &Path, options: &[&str], program: &[&OsStr]) {
    let engine = engine.to_string();
    let words = [
        "run",
        "--engine",
        &engine,
        "--max-overhead",
        "100",
        "-F",
        "html",
    ];
    let words = words.iter().chain(options).map(OsStr::new);
    let file = ["--report-file".as_ref(), path.as_os_str(), "--".as_ref()];
    leaktap_with(words.chain(file).chain(program.iter().copied())).succeeded();
}

engines! {
    fn a_page_is_looked_through(engine) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("page.html");
        let fixture = Fixture::new("courses.c");
        let program = fixture.program().as_os_str();
        let options = ["--interval", "100ms", "--source"];
        page(engine, &path, &options, &[program, "run".as_ref()]);
        drive("courses.mjs", &[path.as_os_str()]);
    }

    fn a_page_of_two_traces_is_looked_through(engine) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let fixture = Fixture::new("compared.c");
        let less = capture(engine, &fixture, ["5", "2", "0"], &folder, "less");
        let more = capture(engine, &fixture, ["7", "1", "4"], &folder, "more");
        let rules = folder.path().join("rules").display().to_string();
        let first = "{\n a\n Memcheck:Leak\n fun:one\n fun:first\n}\n";
        let none = first.replace("first", "none").replace(" a\n", " b\n");
        fs::write(&rules, [first, &none].concat()).expect("a file");
        let pages = ["changed", "back", "suppressed"];
        let pages = pages.map(|name| folder.path().join(name).with_extension("html"));
        let options = ["--by", "stack", "-F", "html", "--report-file"];
        for (page, of) in pages.iter().zip([
            &["diff", &less, &more][..],
            &["diff", &more, &less],
            &["report", "--suppressions", &rules, &less],
        ]) {
            let words = of.iter().chain(&options).map(OsStr::new);
            leaktap_with(words.chain([page.as_os_str()])).succeeded();
        }
        drive("compared.mjs", &pages.each_ref().map(|page| page.as_os_str()));
    }

    fn hostile_names_are_text_and_each_process_is_shown(engine) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("page.html");
        let name = "<img src=x onerror=alert(1)>\u{202e}&amp;";
        let program = directory.path().join(name);
        fs::copy(Fixture::new("portable.c").program(), &program).expect("a copy");
        let twice = ["sh", "-c", "\"$0\" run; \"$0\" run; true"].map(OsStr::new);
        let words = [&twice[..], &[program.as_os_str()]].concat();
        page(engine, &path, &["-f"], &words);
        let shown = "<img src=x onerror=alert(1)>\\u{202e}&amp;";
        drive("hostile.mjs", &[path.as_os_str(), shown.as_ref()]);
    }
}

/// What no process is like, but a capture may say.
#[test]
fn odd_pages_have_no_fault() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let timeless = Report {
        duration: 0.0,
        timeline: vec![
            Moment {
                rss: 1,
                ..Moment::default()
            };
            2
        ],
        ..large(3)
    };
    let mut endless = Report {
        duration: f64::MAX,
        ..large(3)
    };
    for site in &mut endless.sites {
        (site.blocks, site.bytes, site.oldest) = (u64::MAX, u64::MAX, f64::MAX);
        site.ages = vec![(f64::MAX, u64::MAX, u64::MAX).into()];
    }
    let changed = difference(&[endless.clone()], &[large(2), timeless.clone()]);
    let listed = Selection {
        members: true,
        ..Selection::default()
    };
    let odd = [
        ("empty", Report::default()),
        ("changed", listed.apply(changed.expect("a difference"))),
        ("timeless", timeless),
        ("endless", endless),
    ];
    let paths = odd.map(|(name, report)| {
        let path = directory.path().join(name).with_extension("html");
        let mut page = Vec::new();
        Html::default().write(&[report], &mut page).expect("a page");
        fs::write(&path, page).expect("a file");
        path
    });
    drive("odd.mjs", &paths.each_ref().map(|path| path.as_os_str()));
}

/// Stacks as of a service of some size: 20 deep, of 30,000 different frames.
fn large(sites: u32) -> Report {
    let frames = (0..30_000).map(|id| Frame {
        module: Some(ModuleId(0)),
        offset: Some(Hex(id)),
        function: Some(format!("service::module_{}::function_{id}", id % 97)),
        file: Some(format!("/home/user/service/src/module_{}.rs", id % 97)),
        line: Some(id as u32 % 3000 + 1),
        own: Some(id % 3 == 0),
        ..Frame::default()
    });
    let site = |id: u32| {
        let frame = |depth: u32| FrameId((id >> depth).wrapping_mul(depth + 7) % 30_000);
        let bytes = u64::from(sites - id) * 16;
        Site {
            kind: Kind::Unmatched,
            function: "malloc".to_owned(),
            blocks: 3,
            bytes,
            youngest: f64::from(id % 500),
            oldest: 600.0,
            frames: (0..20).map(frame).collect(),
            ages: vec![
                (600.0, 1, bytes / 2).into(),
                (f64::from(id % 500), 2, bytes / 2).into(),
            ],
            ..Site::default()
        }
    };
    Report {
        duration: 610.0,
        modules: vec![Module::default()],
        frames: frames.collect(),
        sites: (0..sites).map(site).collect(),
        ..Report::default()
    }
}

#[test]
fn a_hundred_thousand_call_sites_open_in_a_second() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("page.html");
    let mut page = Vec::new();
    Html::default()
        .write(&[large(100_000)], &mut page)
        .expect("a page");
    fs::write(&path, &page).expect("a file");
    drive("large.mjs", &[path.as_os_str()]);
}
