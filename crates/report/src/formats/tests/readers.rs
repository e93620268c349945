//! As much of each format's reader as the sums need.

use std::io::Read;

use flate2::read::GzDecoder;
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
    while !matches!(reader.read_event().unwrap(), quick_xml::events::Event::Eof) {}
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

/// A field of a message: its number, and what it is.
enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (&byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = varint(&mut bytes);
        match key & 7 {
            0 => fields.push(Field::Number(key >> 3, value)),
            2 => {
                let (field, rest) = bytes.split_at(value as usize);
                bytes = rest;
                fields.push(Field::Bytes(key >> 3, field));
            }
            other => panic!("type {other}"),
        }
    }
    fields
}

fn numbers(mut bytes: &[u8]) -> Vec<u64> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(varint(&mut bytes));
    }
    numbers
}

/// The last two values of all samples; each number leads to something.
pub(super) fn pprof(bytes: &[u8]) -> Sums {
    let mut profile = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut profile).unwrap();
    let all = fields(&profile);
    let of = |wanted: u64| {
        all.iter().filter_map(move |field| match field {
            Field::Bytes(number, bytes) if *number == wanted => Some(*bytes),
            _ => None,
        })
    };
    let texts: Vec<_> = of(6).map(text).collect();
    assert_eq!(texts.first(), Some(&""));
    let ids = |wanted: u64| {
        let ids = of(wanted).map(|bytes| match fields(bytes)[0] {
            Field::Number(1, id) => id,
            _ => panic!("no id"),
        });
        ids.collect::<Vec<_>>()
    };
    let (mappings, locations, functions) = (ids(3), ids(4), ids(5));
    for location in of(4).flat_map(fields) {
        match location {
            Field::Number(2, mapping) => assert!(mappings.contains(&mapping)),
            Field::Bytes(4, line) => {
                let Field::Number(1, function) = fields(line)[0] else {
                    panic!("no function")
                };
                assert!(functions.contains(&function));
            }
            _ => {}
        }
    }
    let types = of(1).count();
    let (mut blocks, mut sum) = (0, 0);
    for sample in of(2).map(fields) {
        for field in sample {
            match field {
                Field::Bytes(1, ids) => {
                    let ids = numbers(ids);
                    assert!(!ids.is_empty() && ids.iter().all(|id| locations.contains(id)));
                }
                Field::Bytes(2, values) => {
                    let values = numbers(values);
                    assert_eq!(values.len(), types);
                    assert!(values.iter().all(|&value| i64::try_from(value).is_ok()));
                    blocks += u128::from(values[types - 2]);
                    sum += u128::from(values[types - 1]);
                }
                _ => {}
            }
        }
    }
    (Some(blocks), Some(sum))
}
