//! Small programs with a leak each: the first site that grows, in the text report, names its place.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::compile::{Build, sources};
use crate::engines::{Engine, engines};
use crate::fixture::{Fixture, Target};
use crate::leaktap::{attach, leaktap_with, run_with};
use crate::tools;

/// What follows the place of the leak in a source.
const PLANTED: &str = "// PLANTED";

/// A program with a leak.
struct Planted {
    /// The source that has the leak, in `fixtures/planted/`.
    source: &'static str,
    /// The program and its arguments.
    words: Vec<String>,
}

impl Planted {
    fn new(source: &'static str) -> Planted {
        Planted::built(source, &Build::default())
    }

    fn built(source: &'static str, build: &Build) -> Planted {
        let fixture = Fixture::built(&format!("planted/{source}"), build);
        let program = fixture.program().display().to_string();
        Planted {
            source,
            words: vec![program],
        }
    }

    /// `search.py:31` for each line that has the leak.
    fn places(&self) -> Vec<String> {
        let path = sources().join("planted").join(self.source);
        let text = fs::read_to_string(path).expect("a source");
        let lines = (1..).zip(text.lines());
        let planted = lines.filter(|(_, line)| line.contains(PLANTED));
        let places = planted.map(|(number, _): (u32, _)| format!("{}:{number}", self.source));
        places.collect()
    }

    /// The text reports of a process that was launched, and of one that was attached to.
    fn reports(&self, engine: Engine) -> [String; 2] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let captures = ["launched", "attached"].map(|name| directory.path().join(name));
        thread::scope(|scope| {
            scope.spawn(|| self.launch(engine, &captures[0]));
            self.attach(engine, &captures[1]);
        });
        captures.map(|capture| {
            let report = leaktap_with(["report".as_ref(), capture.as_os_str()]);
            report.succeeded().stdout_text()
        })
    }

    fn launch(&self, engine: Engine, capture: &Path) {
        let words: Vec<&OsStr> = self.words.iter().map(OsStr::new).collect();
        let words = [&words[..], &["run".as_ref()]].concat();
        let capture = capture.to_str().expect("UTF-8");
        run_with(engine, &["-o", capture], &words).succeeded();
    }

    /// To see all that it does.
    fn attach(&self, engine: Engine, capture: &Path) {
        let (program, arguments) = self.words.split_first().expect("a program");
        let mut target = Target::start(Command::new(program).args(arguments));
        let capture = capture.to_str().expect("UTF-8");
        let tracing = attach(engine, target.pid(), &["-o", capture]);
        target.work();
        tracing.detach().succeeded();
        target.end().succeeded();
    }

    /// Fails the test unless the first site that grows names the place.
    fn is_found(&self, engine: Engine) -> [String; 2] {
        let places = self.places();
        let reports = self.reports(engine);
        for report in &reports {
            let site = first_growing(report);
            let names = |place: &String| site.iter().any(|line| line.ends_with(place));
            assert!(places.iter().any(names), "{places:?} in {report}");
        }
        reports
    }
}

/// A report's sites, in lines.
fn sites(report: &str) -> impl Iterator<Item = Vec<&str>> {
    let paragraphs = report.split("\n\n");
    paragraphs.map(|site| site.lines().collect())
}

/// Its first site that grows.
fn first_growing(report: &str) -> Vec<&str> {
    let grows = |site: &Vec<&str>| site[0].contains(", growing: ");
    let site = sites(report).find(grows);
    site.unwrap_or_else(|| panic!("nothing grows: {report}"))
}

engines! {
    fn beside_a_cache_that_is_full(engine) {
        let reports = Planted::new("catalog.cpp").is_found(engine);
        for report in reports {
            let is_of_cache = |site: &Vec<&str>| site.iter().any(|line| line.contains("Cache::"));
            let of_cache: Vec<_> = sites(&report).filter(is_of_cache).collect();
            assert_eq!(of_cache.len(), 3, "{report}");
            assert!(of_cache.iter().all(|site| !site[0].contains("growing")), "{report}");
        }
    }

    fn on_an_error_path(engine) {
        Planted::new("gateway.c").is_found(engine);
    }

    fn in_a_library_that_is_used_wrongly(engine) {
        Planted::new("archive.c").is_found(engine);
    }

    fn of_one_request_in_a_thousand(engine) {
        Planted::new("orders.c").is_found(engine);
    }

    fn in_a_cycle_of_shared_pointers(engine) {
        Planted::new("scene.cpp").is_found(engine);
    }

    fn of_what_rust_forgets(engine) {
        Planted::new("ingest.rs").is_found(engine);
    }

    fn in_a_cycle_of_counted_references(engine) {
        Planted::new("routes.rs").is_found(engine);
    }

    fn in_a_module_for_python(engine) {
        let Some(python) = tools::program("python3") else {
            return;
        };
        // What is called so may be a script that looks for it.
        let itself = ["-c", "import sys; print(sys.executable)"];
        let itself = Command::new(python).args(itself).output().expect("Python");
        let python = String::from_utf8(itself.stdout).expect("UTF-8").trim().to_owned();
        let mut planted = Planted::new("tokens.c");
        let script = sources().join("planted/search.py").display().to_string();
        planted.words = vec![python, script, planted.words.remove(0)];
        planted.is_found(engine);
    }

    fn with_another_c_library(engine) {
        if tools::program("musl-gcc").is_none() {
            return;
        }
        let build = Build {
            compiler: Some("musl-gcc".to_owned()),
            ..Build::default()
        };
        Planted::built("resolver.c", &build).is_found(engine);
    }

    /// The report has the command that names the place, for who has a file with symbols.
    fn without_symbols(engine) {
        let with_symbols = Planted::new("meter.c");
        let build = Build {
            flags: vec!["-s".to_owned()],
            ..Build::default()
        };
        let stripped = Planted::built("meter.c", &build);
        for report in stripped.reports(engine) {
            let site = first_growing(&report);
            let see = site.iter().find_map(|line| line.trim().strip_prefix("see "));
            let command = see.unwrap_or_else(|| panic!("no command: {report}"));
            let words = command.split(" (").next().unwrap_or_default().split(' ');
            let words: Vec<_> = words.collect();
            assert_eq!(words[2], stripped.words[0], "{report}");
            let mut named = Command::new(words[0]);
            named.arg(words[1]).arg(&with_symbols.words[0]).args(&words[3..]);
            let named = named.output().expect("addr2line");
            let named = String::from_utf8_lossy(&named.stdout).into_owned();
            let places = with_symbols.places();
            assert!(named.lines().next().is_some_and(|line| line.ends_with(&places[0])), "{named}");
        }
    }
}
