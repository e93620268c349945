//! Formats that are stacks with sums: pprof, speedscope, folded, flamegraph.

use std::fs;
use std::path::Path;

use super::captured::Captured;
use super::{lines_with, read_by};
use crate::engines::engines;
use crate::tools::{npm, program};

/// Numbers of blocks and bytes of `pprof -raw`: `  9   909   4   404: 6 7 8` each, of which the
/// last two are what is left.
fn samples(raw: &str) -> (u64, u64) {
    let samples = raw.split("Locations\n").next().unwrap_or_default();
    let numbers = samples.lines().filter_map(|line| {
        let (values, ids) = line.split_once(": ")?;
        ids.trim().split(' ').next()?.parse::<u64>().ok()?;
        let mut values = values.split_whitespace().rev().map(str::parse::<u64>);
        let bytes = values.next()?.ok()?;
        Some((values.next()?.ok()?, bytes))
    });
    numbers.fold((0, 0), |sum, (blocks, bytes)| {
        (sum.0 + blocks, sum.1 + bytes)
    })
}

engines! {
    fn pprof_reads_a_profile(engine) {
        let Some(go) = program("go") else { return };
        let captured = Captured::new(engine);
        let file = captured.in_format("pprof", &[]).display().to_string();
        let pprof = |options: &[&str]| {
            let words = ["tool", "pprof", "-symbolize=none"].iter().chain(options);
            read_by(&go, words.chain(&[&*file]))
        };
        let raw = pprof(&["-raw"]);
        assert_eq!(samples(&raw), captured.sums(), "{raw}");
        assert!(raw.contains("alloc_space"), "{raw}");
        let top = pprof(&["-top"]);
        let report = captured.json().remove(0);
        let build_id = report["modules"][0]["build_id"].as_str().unwrap_or("none");
        for text in ["Type: inuse_space", "File: culprit", build_id, "in_thread"] {
            assert!(top.contains(text), "{text}: {top}");
        }
        assert_eq!(
            lines_with(&top, &["emplace_back", "(inline)"]).len(),
            1,
            "{top}"
        );
        // Its callers above it, what it calls below.
        let peek = pprof(&["-peek", "^fill$"]);
        let at = |word: &str| peek.find(word).unwrap_or_else(|| panic!("{word}: {peek}"));
        assert!(at("|   main") < at("| fill") && at("| fill") < at("emplace_back"));
        let tree = pprof(&["-tree", "-sample_index=inuse_objects"]);
        assert!(tree.contains("Type: inuse_objects"), "{tree}");
        let difference = pprof(&["-top", "-base", &file]);
        assert!(difference.contains("Total samples = 0"), "{difference}");
        let tags = pprof(&["-tags"]);
        assert!(
            tags.contains("unmatched") && tags.contains("oldest"),
            "{tags}"
        );
    }

    /// Two runs, whose modules are at other addresses.
    fn pprof_draws_a_graph(engine) {
        let (Some(go), Some(_)) = (program("go"), program("dot")) else { return };
        let captured = Captured::new(engine);
        let file = captured.in_format("pprof", &[]).display().to_string();
        let pdf = captured.folder().join("graph.pdf").display().to_string();
        let words = ["tool", "pprof", "-symbolize=none", "-pdf", "-output", &pdf, &file];
        read_by(&go, words);
        let pdf = fs::read(&pdf).expect("a graph");
        assert!(pdf.starts_with(b"%PDF") && pdf.len() > 5000, "{} bytes", pdf.len());
    }

    fn pprof_subtracts_another_run(engine) {
        let Some(go) = program("go") else { return };
        let files = [(); 2].map(|()| {
            let captured = Captured::new(engine);
            (
                captured.in_format("pprof", &[]).display().to_string(),
                captured,
            )
        });
        let [(one, _), (other, _)] = &files;
        let words = [
            "tool",
            "pprof",
            "-symbolize=none",
            "-addresses",
            "-top",
            "-base",
            one,
            other,
        ];
        let difference = read_by(&go, words);
        assert!(
            difference.contains("nodes accounting for 0, 0% of"),
            "{difference}"
        );
    }

    fn speedscope_opens_it(engine) {
        let (Some(package), Some(browser)) = (npm("speedscope"), program("chromium")) else {
            return;
        };
        let captured = Captured::new(engine);
        for format in ["speedscope", "folded", "pprof"] {
            let file = captured.in_format(format, &[]);
            let page = open_in_speedscope(&package, &browser, &file, captured.folder());
            let (blocks, bytes) = captured.sums();
            let sums = [
                format!(">{blocks}</td>"),
                format!(">{:.2} KB</td>", bytes as f64 / 1024.0),
            ];
            // Of the others it shows a single profile, without its sum.
            let sums = sums.iter().filter(|_| format == "speedscope");
            for text in sums.map(String::as_str).chain(["Sandwich"]) {
                assert!(page.contains(text), "{format}: {text}: {page}");
            }
        }
    }

    fn a_flame_graph_is_an_xml_file(engine) {
        let Some(xmllint) = program("xmllint") else {
            return;
        };
        let captured = Captured::new(engine);
        let file = captured.in_format("flamegraph", &[]);
        read_by(&xmllint, ["--noout".as_ref(), file.as_os_str()]);
        let titles = read_by(
            &xmllint,
            [
                "--xpath".as_ref(),
                "//*[local-name()='title']/text()".as_ref(),
                file.as_os_str(),
            ],
        );
        let (_, bytes) = captured.sums();
        let grouped = format!("{},{:03}", bytes / 1000, bytes % 1000);
        assert!(
            titles.contains(&format!("all ({grouped} bytes, 100%)")),
            "{titles}"
        );
        assert_eq!(
            lines_with(&titles, &["in_thread (4,000 bytes"]).len(),
            1,
            "{titles}"
        );
    }

    fn folded_lines_sum_up(engine) {
        let captured = Captured::new(engine);
        let folded = captured.text("folded");
        let counts = folded
            .lines()
            .map(|line| line.rsplit(' ').next().unwrap_or_default());
        let sum: u64 = counts
            .map(|count| count.parse::<u64>().expect("a count"))
            .sum();
        assert_eq!(sum, captured.sums().1, "{folded}");
        assert_eq!(
            lines_with(&folded, &["_start;", ";main;", ";fill;"]).len(),
            3,
            "{folded}"
        );
    }
}

/// The page that speedscope makes of `file`, as its own command opens one.
fn open_in_speedscope(package: &Path, browser: &Path, file: &Path, folder: &Path) -> String {
    let bytes = fs::read(file).expect("a report");
    let script = folder.join("profile.js");
    let call = format!(
        "speedscope.loadFileFromBase64('profile', '{}')",
        base64(&bytes)
    );
    fs::write(&script, call).expect("a script");
    let page = package.join("dist/release/index.html");
    let page = format!(
        "file://{}#localProfilePath={}",
        page.display(),
        script.display()
    );
    let profile = format!("--user-data-dir={}", folder.join("browser").display());
    let budget = "--virtual-time-budget=10000";
    let mut options = vec!["--headless", "--no-sandbox", "--disable-gpu", &profile];
    options.extend([budget, "--dump-dom", &page]);
    read_by(browser, options)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .chain(&[0, 0])
            .take(3)
            .fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        for digit in 0..4 {
            match digit <= chunk.len() {
                true => text.push(char::from(DIGITS[bits >> (18 - 6 * digit) & 63])),
                false => text.push('='),
            }
        }
    }
    text
}
