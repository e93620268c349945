//! Captures and JSON reports, read and printed.

use std::io;
use std::path::Path;

use leaktap_report::{By, Error, Report, Selection, Style};

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

pub(crate) fn parse(bytes: &[u8]) -> bool {
    let path = Path::new("fuzzed");
    match leaktap_report::parse(path, bytes, bytes.len().is_multiple_of(2)) {
        Ok(reports) => {
            for report in &reports {
                print(report);
            }
            true
        }
        // It was whole JSON of this schema.
        Err(Error::Corrupt { source, .. }) => source.is_data(),
        Err(_) => false,
    }
}

/// Prints a report in every way there is.
fn print(report: &Report) {
    let ways = [By::Stack, By::Site, By::Function, By::File, By::Module];
    for (number, by) in ways.into_iter().enumerate() {
        let selection = Selection {
            older: (number % 2 == 1).then_some(report.duration / 2.0),
            min_size: number as u64,
            top: (number > 2).then_some(1),
            by,
        };
        let style = Style {
            color: number == 1,
            verbose: number > 1,
        };
        let chosen = selection.apply(report.clone());
        let _ = leaktap_report::render(&chosen, style, &mut io::sink());
        let _ = leaktap_report::json(&chosen, &mut io::sink());
    }
}

pub(crate) fn mutate(text: &mut Vec<u8>, random: &mut Random) {
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
