//! Captures and JSON reports, read and printed.

use std::io;
use std::path::Path;

use leaktap_report::{
    By, Damage, Error, Format, Html, Json, MAGIC, Needs, Own, Report, Selection, Sort, Style, Text,
    checked, seal,
};

use crate::Random;

/// What may stand in the place of a value.
const VALUES: [&str; 22] = [
    "0",
    "-1",
    "1e308",
    "-1e308",
    "1e-400",
    "0.1",
    "18446744073709551615",
    "18446744073709551616",
    "2147483647",
    "-9223372036854775809",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"x\"",
    r#""\u001b]0;x\u0007\u202e""#,
    r#""a<b<c<(>::{closure#0}::<T as U>::f""#,
    r#""\ud800""#,
    "\"0x7f\"",
    "\"main\"",
    "[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]",
];

/// A capture, whose checksum is made right, or JSON, which may be in a capture as well.
pub(crate) fn parse(bytes: &[u8]) -> bool {
    if bytes.starts_with(MAGIC) {
        let (content, _) = bytes.split_at(bytes.len().saturating_sub(4));
        return read(&checked(content.to_vec()));
    }
    let is_printed = read(bytes);
    let is_captured = read(&seal(bytes));
    is_printed || is_captured
}

fn read(bytes: &[u8]) -> bool {
    let needs = Needs {
        ages: bytes.len().is_multiple_of(2),
        stacks: bytes.len().is_multiple_of(3),
    };
    match leaktap_report::parse(Path::new("fuzzed"), bytes, needs) {
        Ok(reports) => {
            for report in &reports {
                print(report);
            }
            true
        }
        // It was read as a whole, and has no ages.
        Err(Error::NotKept {
            of: "a sum of captures",
            ..
        }) => true,
        // It was whole JSON of this schema.
        Err(Error::Corrupt { source, .. }) => match source {
            Damage::Json(error) => error.is_data(),
            Damage::Number(_) => true,
            Damage::Checksum | Damage::Compression(_) | Damage::Empty => false,
        },
        Err(_) => false,
    }
}

/// Prints a report in every way there is.
fn print(report: &Report) {
    let ways = [
        By::Stack,
        By::Caller,
        By::Site,
        By::Function,
        By::File,
        By::Module,
    ];
    let mut report = report.clone();
    Own::default().mark(&mut report);
    for (number, by) in ways.into_iter().enumerate() {
        let selection = Selection {
            older: (number % 2 == 1).then_some(report.duration / 2.0),
            min_size: number as u64,
            by,
            sort: [Sort::Bytes, Sort::Blocks, Sort::Rate][number % 3],
            members: number > 2,
        };
        let style = Style {
            color: number == 1,
            ascii: number == 2,
            verbose: number > 3,
            width: (number % 2 == 0).then_some(number * 20),
        };
        let top = (number > 2).then_some(1);
        let chosen = selection.apply(report.clone());
        let chosen = std::slice::from_ref(&chosen);
        let _ = Text {
            style,
            top,
            ..Text::default()
        }
        .write(chosen, &mut io::sink());
        let _ = Json.write(chosen, &mut io::sink());
        let _ = Html::default().write(chosen, &mut io::sink());
    }
}

pub(crate) fn mutate(text: &mut Vec<u8>, random: &mut Random) {
    if text.starts_with(MAGIC) {
        let len = text.len();
        return random.damage(text, MAGIC.len()..len);
    }
    match random.below(8) {
        0..5 => value(text, random),
        5 => repeat(text, random),
        _ if random.one_in(3) => {
            let len = text.len();
            random.damage(text, 0..len);
        }
        _ => {}
    }
    text.truncate(1 << 16);
}

/// Puts another value in the place of one.
fn value(text: &mut Vec<u8>, random: &mut Random) {
    let from = random.below(text.len());
    let begins = |byte: &u8| *byte == b':' || *byte == b'[';
    let Some(start) = text.iter().skip(from).position(begins) else {
        return;
    };
    let start = from + start + 1;
    let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b'{' | b'[');
    let len = text.iter().skip(start).position(ends).unwrap_or(0);
    let new = match random.one_in(4) {
        true => random.edge().to_string(),
        false => random.of(&VALUES).to_owned(),
    };
    text.splice(start..start + len, new.into_bytes());
}

/// Repeats, or takes out, what is between two commas.
fn repeat(text: &mut Vec<u8>, random: &mut Random) {
    let commas = text.iter().enumerate().filter(|(_, byte)| **byte == b',');
    let commas: Vec<usize> = commas.map(|(at, _)| at).collect();
    if let Some(&[start, end]) = commas.windows(2).nth(random.below(commas.len())) {
        let part = text[start..end].to_vec();
        match random.one_in(2) {
            true => drop(text.splice(start..start, part)),
            false => drop(text.drain(start..end)),
        }
    }
}
