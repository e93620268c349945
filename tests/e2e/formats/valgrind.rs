//! Formats of valgrind's tools: DHAT, massif, and memcheck's XML.

use std::path::Path;

use super::captured::Captured;
use super::{lines_with, read_by, read_by_in};
use crate::engines::engines;
use crate::fixture::Fixture;
use crate::tools::{program, skipped};

/// Runs `dh_view.js` without a page, and prints the sums of its tree.
const VIEW: &str = "
const fs = require('fs'), vm = require('vm');
const data = fs.readFileSync(process.argv[2], 'utf8');
const context = vm.createContext({ console, data, document: {} });
vm.runInContext(fs.readFileSync(process.argv[1], 'utf8'), context);
vm.runInContext(`
    gData = JSON.parse(data);
    gSelect = { childNodes: gSelectData.map(() => ({})), selectedIndex: 0 };
    buildTree();
    const leaf = gData.ftbl.filter((frame) => frame.endsWith(': in_thread (culprit.cpp:21)'));
    console.log(gRoot._totalBlocks, gRoot._totalBytes, gData.verb, leaf.length);
`, context);
";

engines! {
    fn dh_view_builds_its_tree(engine) {
        let Some(node) = program("node") else { return };
        let viewer = Path::new("/usr/libexec/valgrind/dh_view.js");
        if !viewer.exists() {
            skipped::<()>("dh_view.js of valgrind");
            return;
        }
        let captured = Captured::new(engine);
        let file = captured.in_format("dhat", &[]);
        let (viewer, file) = (viewer.as_os_str(), file.as_os_str());
        let read = read_by(&node, ["-e".as_ref(), VIEW.as_ref(), viewer, file]);
        let (blocks, bytes) = captured.sums();
        assert_eq!(read.trim(), format!("{blocks} {bytes} Not freed 1"));
    }

    fn ms_print_draws_the_time_line(engine) {
        let Some(ms_print) = program("ms_print") else { return };
        let captured = Captured::new(engine);
        let file = captured.in_format("massif", &[]);
        let read = read_by_in(captured.folder(), &ms_print, [&file]);
        let (_, bytes) = captured.sums_with_runtime();
        let grouped = format!("{},{:03}B)", bytes / 1000, bytes % 1000);
        let root = lines_with(&read, &["100.00%", &grouped, "heap allocation functions"]);
        assert_eq!(root.len(), 1, "{read}");
        let words = ["(4,000B)", ": in_thread (culprit.cpp:21)"];
        assert_eq!(lines_with(&read, &words).len(), 1, "{read}");
        let report = captured.json().remove(0);
        let moments = report["timeline"].as_array().map_or(0, Vec::len);
        let peak = report["peak"]["live_bytes"].as_u64().filter(|peak| *peak > bytes);
        let last = format!("{} ", moments + usize::from(peak.is_some()));
        let row = read.lines().find(|line| line.trim_start().starts_with(&last));
        assert!(row.is_some(), "{moments} moments: {read}");
        // There is one, unless no moment at which stacks were summed up had as much as another.
        let peaks = usize::from(peak.is_some() || is_highest(&captured));
        assert_eq!(read.matches("(peak)").count(), peaks, "{read}");
    }

    fn heaptrack_print_counts_what_is_left(engine) {
        let Some(heaptrack_print) = program("heaptrack_print") else { return };
        let captured = Captured::new(engine);
        let file = captured.in_format("heaptrack", &[]).display().to_string();
        let stacks = captured.folder().join("stacks").display().to_string();
        let sum = |of: &str| {
            let words = ["--flamegraph-cost-type", of, "-F", &stacks, &file];
            let said = read_by(&heaptrack_print, words);
            let stacks = std::fs::read_to_string(&stacks).expect("stacks");
            let counts = stacks.lines().map(|line| line.rsplit(' ').next().unwrap_or_default());
            let sum: u64 = counts.map(|count| count.parse::<u64>().expect("a count")).sum();
            (sum, stacks + &said)
        };
        let (bytes, said) = sum("leaked");
        assert_eq!((sum("allocations").0, bytes), captured.sums(), "{said}");
        let words = ["main (culprit.cpp);", "fill (culprit.cpp);"];
        assert_eq!(lines_with(&said, &words).len(), 3, "{said}");
        assert!(!lines_with(&said, &["at ", "culprit.cpp:21"]).is_empty(), "{said}");
    }

    /// Of a program with mappings, too.
    fn xmllint_finds_the_protocol(engine) {
        let Some(xmllint) = program("xmllint") else { return };
        let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/formats/protocol4.rng");
        let hostile = Captured::of(engine, &Fixture::new("mappings.c"), &[]);
        for captured in [Captured::new(engine), hostile] {
            let file = captured.in_format("valgrind-xml", &[]);
            let (schema, file) = (schema.as_os_str(), file.as_os_str());
            read_by(&xmllint, ["--noout".as_ref(), "--relaxng".as_ref(), schema, file]);
            let sum = |of: &str| {
                let path = format!("sum(/valgrindoutput/error/xwhat/{of})");
                let text = read_by(&xmllint, ["--xpath".as_ref(), path.as_ref(), file]);
                text.trim().parse::<f64>().expect("a number") as u64
            };
            assert_eq!((sum("leakedblocks"), sum("leakedbytes")), captured.sums());
        }
    }
}

/// Whether what is left is as much as there was at any moment.
fn is_highest(captured: &Captured) -> bool {
    let report = captured.json().remove(0);
    let moments = report["timeline"].as_array().cloned().unwrap_or_default();
    let live = moments
        .iter()
        .filter_map(|moment| moment["live_bytes"].as_u64());
    live.max().unwrap_or(0) <= captured.sums_with_runtime().1
}
