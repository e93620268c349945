//! As much of each format's reader as the sums need.

mod profile;

pub(super) use profile::pprof;

use std::collections::HashSet;

use quick_xml::events::Event;
use serde_json::Value;

use super::Sums;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn number(value: &Value) -> u128 {
    u128::from(value.as_u64().unwrap())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

pub(super) fn json(bytes: &[u8]) -> Sums {
    let report: Value = serde_json::from_slice(bytes).unwrap();
    let sum = |of: &str| {
        list(&report["sites"])
            .iter()
            .map(|site| number(&site[of]))
            .sum()
    };
    (Some(sum("blocks")), Some(sum("bytes")))
}

/// What is in the page's element of JSON.
pub(super) fn html(page: &[u8]) -> Sums {
    let (_, rest) = text(page).split_once(r#"id="data">"#).unwrap();
    let data = rest.split_once("</script>").unwrap().0;
    let data: Value = serde_json::from_str(data).unwrap();
    let stacks = &data["processes"][0]["stacks"];
    let sum = |of: &str| list(&stacks[of]).iter().map(number).sum();
    (Some(sum("blocks")), Some(sum("bytes")))
}

/// It has no more than five sites.
pub(super) fn summary(bytes: &[u8]) -> Sums {
    let summary: Value = serde_json::from_slice(bytes).unwrap();
    let more = number(&summary["more_sites"]);
    let sum = |of: &str| {
        list(&summary["sites"])
            .iter()
            .map(|site| number(&site[of]))
            .sum()
    };
    match more {
        0 => (Some(sum("blocks")), Some(sum("bytes"))),
        _ => (None, None),
    }
}

pub(super) fn csv(bytes: &[u8]) -> Sums {
    let mut rows = text(bytes).lines().map(cells);
    let columns = rows.next().unwrap();
    let at = |name: &str| columns.iter().position(|column| column == name).unwrap();
    let (mut blocks, mut sum) = (0, 0);
    for row in rows {
        assert_eq!(row.len(), columns.len(), "{row:?}");
        blocks += row[at("blocks")].parse::<u128>().unwrap();
        sum += row[at("bytes")].parse::<u128>().unwrap();
        let is_number = |cell: &str| cell.parse::<f64>().is_ok();
        let formula = row
            .iter()
            .find(|cell| !is_number(cell) && cell.trim_start().starts_with(['=', '+', '-', '@']));
        assert_eq!(formula, None);
    }
    (Some(blocks), Some(sum))
}

/// The cells of a row of RFC 4180, which none of ours spreads over lines.
fn cells(row: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut is_quoted = false;
    let mut before = ',';
    for c in row.chars() {
        match c {
            '"' => {
                if !is_quoted && before == '"' {
                    cells.last_mut().unwrap().push('"');
                }
                is_quoted = !is_quoted;
            }
            ',' if !is_quoted => cells.push(String::new()),
            c => cells.last_mut().unwrap().push(c),
        }
        before = c;
    }
    assert!(!is_quoted, "{row}");
    cells
}

pub(super) fn folded(bytes: &[u8]) -> Sums {
    let count = |line: &str| {
        let (stack, count) = line.rsplit_once(' ').unwrap();
        assert!(
            stack.split(';').all(|frame| !frame.trim().is_empty()),
            "{line}"
        );
        count.parse::<u128>().unwrap()
    };
    (None, Some(text(bytes).lines().map(count).sum()))
}

/// The frame that all others stand upon says the sum.
pub(super) fn flamegraph(bytes: &[u8]) -> Sums {
    let text = text(bytes);
    let mut reader = quick_xml::Reader::from_str(text);
    while !matches!(reader.read_event().unwrap(), Event::Eof) {}
    assert!(!text.contains("<script>alert"), "markup");
    let all = text.split("<title>all (").nth(1).unwrap();
    let digits = all.split(' ').next().unwrap().replace(',', "");
    let is_empty = text.contains("[nothing listed]");
    let sum = digits.parse::<u128>().unwrap();
    (None, Some(if is_empty { 0 } else { sum }))
}

pub(super) fn speedscope(bytes: &[u8]) -> Sums {
    let file: Value = serde_json::from_slice(bytes).unwrap();
    let frames = list(&file["shared"]["frames"]).len() as u128;
    let mut sums = (None, None);
    for profile in list(&file["profiles"]) {
        let samples = list(&profile["samples"]);
        for sample in samples {
            assert!(!list(sample).is_empty());
            assert!(list(sample).iter().all(|frame| number(frame) < frames));
        }
        let weights = list(&profile["weights"]);
        assert_eq!(samples.len(), weights.len());
        let sum = Some(weights.iter().map(number).sum());
        match profile["unit"].as_str() {
            Some("bytes") => sums.1 = sum,
            _ => sums.0 = sum,
        }
    }
    sums
}

pub(super) fn dhat(bytes: &[u8]) -> Sums {
    let file: Value = serde_json::from_slice(bytes).unwrap();
    let frames = list(&file["ftbl"]).len() as u128;
    let points = list(&file["pps"]);
    let stacks: HashSet<_> = points.iter().map(|point| point["fs"].to_string()).collect();
    assert_eq!(stacks.len(), points.len(), "a stack is there twice");
    for point in points {
        assert!(
            list(&point["fs"])
                .iter()
                .all(|frame| number(frame) < frames)
        );
    }
    let sum = |of: &str| points.iter().map(|point| number(&point[of])).sum();
    (Some(sum("tbk")), Some(sum("tb")))
}

/// A node of a tree says how many are below it.
fn node<'t>(lines: &mut impl Iterator<Item = &'t str>, depth: usize) -> u128 {
    let line = lines.next().unwrap();
    let text = line.trim_start_matches(' ');
    assert_eq!(line.len() - text.len(), depth, "{line}");
    let (children, rest) = text.strip_prefix('n').unwrap().split_once(": ").unwrap();
    let bytes: u128 = rest.split(' ').next().unwrap().parse().unwrap();
    let mut last = u128::MAX;
    for _ in 0..children.parse::<usize>().unwrap() {
        let child = node(lines, depth + 1);
        assert!(child <= last, "{line}");
        last = child;
    }
    bytes
}

/// The root of the last snapshot's tree.
pub(super) fn massif(bytes: &[u8]) -> Sums {
    let lines = text(bytes).lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<_> = lines.collect();
    assert!(!lines.iter().any(|line| line.contains('#')));
    let last = lines.iter().rposition(|line| line.starts_with("heap_tree"));
    let mut tree = lines[last.unwrap() + 1..].iter().copied();
    let sum = node(&mut tree, 0);
    assert_eq!(tree.next(), None);
    (None, Some(sum))
}

/// Blocks of a size each; all numbers lead to something.
pub(super) fn heaptrack(bytes: &[u8]) -> Sums {
    let (mut texts, mut places, mut traces, mut infos) = (0, 0, 0, Vec::new());
    let (mut blocks, mut sum) = (0, 0);
    for line in text(bytes).lines() {
        let (kind, rest) = line.split_once(' ').unwrap();
        let hex = |word: &str| u128::from_str_radix(word, 16).unwrap();
        let words = || rest.split(' ').map(hex).collect::<Vec<_>>();
        match kind {
            "s" => {
                let (size, text) = rest.split_once(' ').unwrap();
                assert_eq!(hex(size), text.len() as u128);
                texts += 1;
            }
            "i" => {
                let names = words().into_iter().skip(1);
                assert!(
                    names
                        .enumerate()
                        .all(|(at, id)| at % 3 == 0 && at > 0 || id <= texts)
                );
                places += 1;
            }
            "t" => {
                assert!(words()[0] <= places && words()[1] <= traces);
                traces += 1;
            }
            "a" => {
                assert!(words()[1] <= traces);
                infos.push(words()[0]);
            }
            "+" => {
                blocks += 1;
                sum += infos[words()[0] as usize];
            }
            "v" | "X" | "I" | "c" | "R" | "#" => {}
            kind => panic!("{kind}"),
        }
    }
    (Some(blocks), Some(sum))
}

/// All texts of elements of that name.
fn elements(bytes: &[u8], name: &str) -> Vec<String> {
    let mut reader = quick_xml::Reader::from_str(text(bytes));
    let mut found = Vec::new();
    let mut path = Vec::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Start(start) => path.push(start.name().as_ref().to_vec()),
            Event::End(_) => drop(path.pop()),
            Event::Text(inner) if path.last().is_some_and(|last| last == name.as_bytes()) => {
                found.push(String::from_utf8(inner.to_vec()).unwrap());
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(path.is_empty());
    found
}

pub(super) fn valgrind(bytes: &[u8]) -> Sums {
    let sum = |name: &str| {
        let numbers = elements(bytes, name).into_iter();
        numbers.map(|number| number.parse::<u128>().unwrap()).sum()
    };
    assert_eq!(elements(bytes, "unique").len() % 2, 0);
    (Some(sum("leakedblocks")), Some(sum("leakedbytes")))
}

pub(super) fn junit(bytes: &[u8]) -> Sums {
    assert!(!elements(bytes, "testsuites").is_empty());
    let failures = text(bytes).matches("<failure ").count();
    assert!(text(bytes).contains(&format!("failures=\"{failures}\"")));
    (None, None)
}

pub(super) fn sarif(bytes: &[u8]) -> Sums {
    let log: Value = serde_json::from_slice(bytes).unwrap();
    let results = list(&log["runs"][0]["results"]);
    let sum = |of: &str| {
        results
            .iter()
            .map(|one| number(&one["properties"][of]))
            .sum()
    };
    (Some(sum("blocks")), Some(sum("bytes")))
}

/// No line but commands.
pub(super) fn github(bytes: &[u8]) -> Sums {
    for line in text(bytes).lines() {
        let command = line.strip_prefix("::").unwrap();
        let (command, _) = command.split_once("::").unwrap();
        let (level, properties) = command.split_once(' ').unwrap();
        assert!(["error", "warning", "notice"].contains(&level), "{line}");
        for property in properties.split(',') {
            let (name, _) = property.split_once('=').unwrap();
            assert!(["file", "line", "title"].contains(&name), "{line}");
        }
    }
    (None, None)
}

pub(super) fn gitlab(bytes: &[u8]) -> Sums {
    let entries: Value = serde_json::from_slice(bytes).unwrap();
    let mut prints = HashSet::new();
    for entry in list(&entries) {
        assert!(prints.insert(entry["fingerprint"].as_str()), "{entry}");
        assert!(number(&entry["location"]["lines"]["begin"]) > 0);
        assert!(!entry["location"]["path"].as_str().unwrap().is_empty());
    }
    (None, None)
}

/// All lines are of one process; those of records say how much.
pub(super) fn memcheck(bytes: &[u8]) -> Sums {
    let (mut blocks, mut sum) = (0, 0);
    for line in text(bytes).lines() {
        let (pid, rest) = line.strip_prefix("==").unwrap().split_once("== ").unwrap();
        assert!(pid.parse::<u32>().is_ok(), "{line}");
        let (Some((size, rest)), true) = (
            rest.split_once(" bytes in "),
            rest.contains(" in loss record "),
        ) else {
            continue;
        };
        let number = |text: &str| text.replace(',', "").parse::<u128>().unwrap();
        sum += number(size);
        blocks += number(rest.split(' ').next().unwrap());
    }
    (Some(blocks), Some(sum))
}
